// SPDX-License-Identifier: Apache-2.0
#include "config/role_book.hpp"
#include "config/role_files.hpp"
#include "config/role_shape.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <set>

using namespace berth;
using config::ordered;

namespace {

const std::string shipped_dir = BERTH_SOURCE_DIR "/config/roles";

std::shared_ptr<const ordered> shipped() {
  static auto all = [] {
    auto read = config::read_role_files(shipped_dir);
    if (!read)
      FAIL(describe_error(read.error()));
    return std::make_shared<const ordered>(std::move(*read));
  }();
  return all;
}

settings usual() {
  settings values;
  values.models[0].base_url = "http://127.0.0.1:11434";
  return values;
}

role_book book_of(std::string_view changes = {}, const settings& values = usual()) {
  auto book =
      role_book::open(std::make_shared<const settings>(values), shipped(), changes, "x.json");
  if (!book)
    FAIL(describe_error(book.error()));
  return *book;
}

role_info role_of(const role_book& book, std::string_view name) {
  auto found = book.find(name);
  if (!found)
    FAIL(describe_error(found.error()));
  return *found;
}

/// A role made of one JSON text, beside those that ship.
role_info role_from(const std::string& json, const settings& values = usual()) {
  return role_of(book_of(R"({"roles": {"It": )" + json + "}}", values), "It");
}

std::string fault_of(const expected<role_book>& made) {
  return made ? "" : to_refusal(made.error()).detail;
}

std::string posted_fault(const std::string& text) {
  return fault_of(book_of().replaced(text));
}

role_book posted(const role_book& before, const std::string& text) {
  auto after = before.replaced(text);
  if (!after)
    FAIL(describe_error(after.error()));
  return *after;
}

/// What a client reads, but for the revision.
ordered config_of(const role_book& book) {
  ordered config = ordered::parse(book.public_text());
  config.erase("berth_revision");
  return config;
}

/// What a client reads, changed, as it posts it.
template <class Change>
std::string edited(const role_book& book, Change change) {
  ordered config = ordered::parse(book.public_text());
  change(config);
  return config.dump();
}

std::set<std::string> words_of(const std::string& text) {
  std::set<std::string> words;
  std::string word;
  for (char c : config::lower_case(text) + " ")
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      word += c;
    } else if (!word.empty()) {
      words.insert(word);
      word.clear();
    }
  return words;
}

void write(const std::string& path, const std::string& text) {
  std::ofstream{path} << text;
}

} // namespace

TEST_CASE("The roles that ship are those of the contract, in its order") {
  const std::pair<const char*, const char*> expected[] = {
      {"Default", "Default"},
      {"Llama Rust Engineer", "LlamaRust"},
      {"Llama AI Assistant", "LlamaAI"},
      {"Llama Developer", "LlamaDev"},
      {"DevelopmentAgent", "DevAgent"},
      {"SimpleTaskAgent", "SimpleAgent"},
      {"ComplexTaskAgent", "ComplexAgent"},
      {"OrchestratorAgent", "Orchestrator"},
      {"GeneratorAgent", "Generator"},
      {"EvaluatorAgent", "Evaluator"},
      {"DataScientistAgent", "DataSci"},
      {"RustSystemDeveloper", "RustSys"},
      {"DevOpsEngineer", "DevOps"},
      {"SecurityAnalyst", "SecAnal"},
      {"SvelteFrontendDeveloper", "SvelteDev"},
      {"BackendArchitect", "Backend"},
      {"MachineLearningEngineer", "MLEng"},
      {"QAEngineer", "QA"},
      {"TechnicalWriter", "TechWriter"},
      {"CloudArchitect", "Cloud"},
      {"WASMDeveloper", "WASM"},
      {"BusinessAnalyst", "BA"},
      {"ProductManager", "PM"},
      {"ResearchScientist", "Research"},
      {"Rust Engineer", "rust"},
      {"Terraphim Engineer", "TerraEng"},
  };
  auto list = book_of().list("");
  REQUIRE(list);
  REQUIRE(list->roles.size() == std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    CHECK(list->roles[i].name == expected[i].first);
    CHECK(list->roles[i].shortname == expected[i].second);
  }
  CHECK(list->default_role == "DevelopmentAgent");
  CHECK(list->selected_role == "DevelopmentAgent");
}

TEST_CASE("Every role that ships has a prompt of its own and settings that make sense") {
  auto list = book_of().list("");
  REQUIRE(list);
  for (const role_info& one : list->roles) {
    CAPTURE(one.name);
    std::set<std::string> mine = words_of(one.system_prompt);
    CHECK(mine.size() >= 60);
    CHECK(!one.description.empty());
    CHECK(!one.capabilities.empty());
    CHECK(one.context_window >= 8'192);
    CHECK(one.model.base_url == usual().models[0].base_url);
    CHECK(one.model.model == usual().models[0].model);
    CHECK(one.model.temperature.value_or(9) <= 1);
    CHECK(one.vm_execution == (one.acting != acting::none));
    CHECK((!one.vm_execution || !one.allowed_languages.empty()));
    CHECK((!one.vm_execution || settings{}.vm_types.contains(one.vm_type)));
    for (const role_info& other : list->roles) {
      if (&other == &one)
        continue;
      std::set<std::string> theirs = words_of(other.system_prompt);
      std::vector<std::string> both;
      std::ranges::set_intersection(mine, theirs, std::back_inserter(both));
      CAPTURE(other.name);
      CHECK(both.size() * 10 <= std::min(mine.size(), theirs.size()) * 6);
    }
  }
}

TEST_CASE("The roles that ran programs in production do, and go back after a failure") {
  role_book book = book_of();
  for (const char* name : {"OrchestratorAgent", "EvaluatorAgent", "DevelopmentAgent",
                           "GeneratorAgent", "ComplexTaskAgent"}) {
    CAPTURE(name);
    CHECK(role_of(book, name).vm_execution);
    CHECK(role_of(book, name).auto_rollback_on_failure);
  }
  for (const char* name : {"Default", "DataScientistAgent", "BusinessAnalyst", "ProductManager"})
    CHECK_FALSE(role_of(book, name).vm_execution);
  CHECK(role_of(book, "RustSystemDeveloper").allowed_languages
        == std::vector<std::string>{"bash", "rust"});
}

TEST_CASE("Every role that ships has all of the contract's vm_execution") {
  for (const auto& [name, role] : (*shipped())["roles"].items()) {
    CAPTURE(name);
    const ordered& vm = role["extra"]["vm_execution"];
    for (const char* member :
         {"enabled", "api_base_url", "vm_pool_size", "default_vm_type", "execution_timeout_ms",
          "allowed_languages", "auto_provision", "code_validation", "max_code_length"})
      CHECK(vm.contains(member));
    for (const char* member :
         {"enabled", "snapshot_on_execution", "snapshot_on_failure", "auto_rollback_on_failure",
          "max_history_entries", "persist_history", "integration_mode"})
      CHECK(vm["history"].contains(member));
    CHECK(vm["security_settings"]["resource_limits"].contains("max_memory_mb"));
    CHECK(role["extra"]["llm_system_prompt"].is_string());
  }
}

TEST_CASE("A role is found by name or short name in any case, and none is not found") {
  role_book book = book_of();
  CHECK(role_of(book, "developmentagent").name == "DevelopmentAgent");
  CHECK(role_of(book, "DEVAGENT").name == "DevelopmentAgent");
  CHECK(role_of(book, "llama rust engineer").name == "Llama Rust Engineer");
  CHECK(role_of(book, "rust").name == "Rust Engineer");
  CHECK(role_of(book, "").name == "DevelopmentAgent");
  auto none = book.find("Nobody");
  REQUIRE(!none);
  CHECK(none.error() == ec::not_found);
  CHECK(to_refusal(none.error()).detail == "Role 'Nobody' not found");
}

TEST_CASE("A setting is found in the role, in its extra, and in the extra of that") {
  CHECK(role_from(R"({"llm_model": "m1"})").model.model == "m1");
  CHECK(role_from(R"({"extra": {"llm_model": "m2"}})").model.model == "m2");
  role_info deep = role_from(R"({"extra": {"extra": {"ollama_model": "m3", "vm_execution": true,
    "system_prompt": "deep"}}})");
  CHECK(deep.model.model == "m3");
  CHECK(deep.vm_execution);
  CHECK(deep.system_prompt == "deep");
  CHECK(role_from(R"({"llm_model": "outer", "extra": {"llm_model": "inner"}})").model.model
        == "outer");
  CHECK(role_from(R"({"llm_model": "", "extra": {"llm_model": null, "ollama_model": "x"}})")
            .model.model
        == "x");
}

TEST_CASE("A prompt that was edited wins over the one that ships") {
  CHECK(role_from(R"({"extra": {"llm_system_prompt": "a", "system_prompt": "b"}})").system_prompt
        == "b");
  CHECK(
      role_from(R"({"llm_chat_system_prompt": "c", "extra": {"system_prompt": "b"}})").system_prompt
      == "c");
}

TEST_CASE("vm_execution is off unless it is said to be on, in every shape") {
  CHECK_FALSE(role_from("{}").vm_execution);
  CHECK(role_from("{}").acting == acting::none);
  CHECK_FALSE(role_from(R"({"vm_execution": false})").vm_execution);
  CHECK_FALSE(role_from(R"({"vm_execution": {}})").vm_execution);
  CHECK(role_from(R"({"vm_execution": true})").vm_execution);
  CHECK(role_from(R"({"vm_execution": true})").acting == acting::automatic);
  CHECK(role_from(R"({"vm_execution": {"enabled": true}, "acting": "text"})").acting
        == acting::text);
  settings closed = usual();
  closed.policy.enabled = false;
  CHECK_FALSE(role_from(R"({"vm_execution": true})", closed).vm_execution);
}

TEST_CASE("What a role leaves out comes from the settings") {
  settings values = usual();
  values.agents.rounds_max = 5;
  values.policy.allowed_languages = {"python", "go"};
  values.policy.execution_timeout_ms = 7'000;
  values.policy.history.auto_rollback_on_failure = true;
  role_info made = role_from(R"({"vm_execution": true})", values);
  CHECK(made.rounds_max == 5);
  CHECK(made.auto_execute_threshold == 0.5);
  CHECK(made.context_window == 32'768);
  CHECK(made.allowed_languages == std::vector<std::string>{"python", "go"});
  CHECK(made.execution_timeout_ms == 7'000);
  CHECK(made.max_code_length == values.policy.max_code_length);
  CHECK(made.vm_type == "focal-optimized");
  CHECK(made.auto_rollback_on_failure);
  CHECK(made.model.provider == "ollama");
}

TEST_CASE("A role can only narrow what the settings allow") {
  settings values = usual();
  values.policy.allowed_languages = {"python", "bash"};
  values.policy.max_code_length = 500;
  values.maxima.timeout_ms = 60'000;
  values.policy.security_settings.resource_limits.max_execution_time_seconds.emplace(20);
  role_info made = role_from(R"({"vm_execution": {"enabled": true,
    "allowed_languages": ["py", "rust"], "max_code_length": 9000,
    "execution_timeout_ms": 600000, "default_vm_type": "unheard-of"}})",
                             values);
  CHECK(made.allowed_languages == std::vector<std::string>{"python"});
  CHECK(made.max_code_length == 500);
  CHECK(made.execution_timeout_ms == 20'000);
  CHECK(made.vm_type.empty());
}

TEST_CASE("A role's endpoint is one of the settings', or stays what it is") {
  settings values = usual();
  values.models.push_back({.provider = "openai", .base_url = "https://models.test/v"});
  values.models[1].model = "big";
  CHECK(role_from(R"({"llm_provider": "openai"})", values).model.base_url
        == "https://models.test/v");
  CHECK(role_from(R"({"llm_provider": "openai"})", values).model.model == "big");
  CHECK(role_from(R"({"llm_base_url": "https://models.test/v/"})", values).model.provider
        == "openai");
  CHECK(role_from(R"({"ollama_base_url": "http://localhost:11434"})", values).model.base_url
        == "http://127.0.0.1:11434");
  CHECK(role_from(R"({"llm_base_url": "http://elsewhere:1"})", values).model.base_url
        == "http://elsewhere:1");
  values.models.clear();
  CHECK(role_from("{}", values).model.base_url.empty());
}

TEST_CASE("What is posted is what is got, unknown members and their order included") {
  role_book before = book_of();
  ordered config = config_of(before);
  config["roles"]["QAEngineer"]["extra"]["mine"] =
      ordered::parse(R"({"z": [1, 2.5, null, {"a": "ü\u0000"}], "b": 12345678901234567890})");
  config["roles"]["QAEngineer"]["llm_router_config"] = ordered::parse(R"({"x": 1})");
  config["roles"]["New"] = ordered::parse(R"({"name": "New", "extra": {"extra": {"deep": {}}}})");
  config["unknown"] = ordered::parse(R"({"kept": [true, -0.1e-7]})");
  config["roles"].erase("ProductManager");
  role_book after = posted(before, config.dump());
  CHECK(config_of(after).dump() == config.dump());
  CHECK(after.changes_text().size() < 8'000); // what differs, not 26 roles

  auto again = role_book::open(std::make_shared<const settings>(usual()), shipped(),
                               after.changes_text(), "x.json");
  REQUIRE(again);
  CHECK(again->public_text() == after.public_text());
  role_book back = posted(after, config_of(before).dump());
  CHECK(back.public_text() == before.public_text());
  CHECK(back.changes_text() == "{}\n");
}

TEST_CASE("Roles that were put in another order stay so") {
  role_book before = book_of();
  ordered config = config_of(before);
  ordered turned = ordered::object();
  std::vector<std::string> names;
  for (const auto& [name, role] : config["roles"].items())
    names.push_back(name);
  for (auto name = names.rbegin(); name != names.rend(); ++name)
    turned[*name] = config["roles"][*name];
  config["roles"] = turned;
  role_book after = posted(before, config.dump());
  CHECK(config_of(after).dump() == config.dump());
  CHECK(config_of(book_of(after.changes_text())).dump() == config.dump());
}

TEST_CASE("Changes of the operator add to what ships") {
  role_book book = book_of(R"({
    // a comment
    "roles": {"My Role": {"vm_execution": true}, "ProductManager": null},
    "selected_role": "my role"
  })");
  CHECK(role_of(book, "").name == "My Role");
  CHECK(!book.find("ProductManager"));
  CHECK(config_of(book)["selected_role"] == "My Role");
  CHECK(book.list("")->roles.size() == 26);
}

TEST_CASE("Selecting a role changes that alone") {
  auto chosen = book_of().selected("qa");
  REQUIRE(chosen);
  CHECK(role_of(*chosen, "").name == "QAEngineer");
  CHECK(ordered::parse(chosen->changes_text()) == ordered{{"selected_role", "QAEngineer"}});
  CHECK(fault_of(book_of().selected("nobody")) == "Role 'nobody' not found");
  CHECK(!book_of().selected(""));
}

TEST_CASE("Clients that change different things at once lose nothing") {
  role_book first = book_of();
  std::string one = edited(first, [](ordered& config) {
    config["roles"]["QAEngineer"]["extra"]["system_prompt"] = "one";
    config["roles"]["Mine"] = ordered{{"name", "Mine"}};
    config["roles"].erase("ProductManager");
  });
  std::string two = edited(first, [](ordered& config) {
    config["roles"]["QAEngineer"]["extra"]["rounds_max"] = 3;
    config["roles"]["TechnicalWriter"]["theme"] = "two";
    config["roles"].erase("BusinessAnalyst");
    config["selected_role"] = "CloudArchitect";
  });
  role_book both = posted(posted(first, one), two);
  CHECK(role_of(both, "QA").system_prompt == "one");
  CHECK(role_of(both, "QA").rounds_max == 3);
  CHECK(role_of(both, "TechnicalWriter").theme == "two");
  CHECK(role_of(both, "").name == "CloudArchitect");
  CHECK(both.find("Mine"));
  CHECK(!both.find("ProductManager"));
  CHECK(!both.find("BusinessAnalyst"));
  CHECK(config_of(posted(posted(first, two), one))["roles"].size() == 25);
}

TEST_CASE("Of a member that two clients changed at once the last holds") {
  role_book first = book_of();
  auto with_theme = [&](const char* theme) {
    return edited(first, [&](ordered& config) { config["roles"]["QAEngineer"]["theme"] = theme; });
  };
  role_book both = posted(posted(first, with_theme("a")), with_theme("b"));
  CHECK(role_of(both, "QA").theme == "b");
}

TEST_CASE("Changes that do not go together are refused") {
  role_book first = book_of();
  std::string chosen =
      edited(first, [](ordered& config) { config["selected_role"] = "CloudArchitect"; });
  std::string removed =
      edited(first, [](ordered& config) { config["roles"].erase("CloudArchitect"); });
  CHECK(fault_of(posted(first, chosen).replaced(removed))
        == "config with what others changed meanwhile: selected_role: there is no role of the "
           "name CloudArchitect");
}

TEST_CASE("What is posted without a revision, or with an unknown one, holds as it is") {
  role_book first = book_of();
  role_book other = posted(first, edited(first, [](ordered& config) {
                             config["roles"]["Mine"] = ordered{{"name", "Mine"}};
                           }));
  CHECK(!posted(other, config_of(first).dump()).find("Mine"));
  std::string stale =
      edited(first, [](ordered& config) { config["berth_revision"] = "0123456789abcdef"; });
  CHECK(!posted(other, stale).find("Mine"));
  CHECK(posted(other, first.public_text()).find("Mine"));
}

TEST_CASE("Secrets are kept, never given out, and survive a round trip") {
  role_book before = book_of();
  ordered config = config_of(before);
  ordered& role = config["roles"]["QAEngineer"];
  role["llm_api_key"] = "sk-first";
  role["haystacks"][0]["atomic_server_secret"] = "second";
  role["haystacks"][1]["extra_parameters"]["github_token"] = "third";
  role["extra"]["max_tokens"] = 100;
  role_book after = posted(before, config.dump());
  for (const char* secret : {"sk-first", "second\"", "third\""})
    CHECK(after.public_text().find(secret) == std::string::npos);
  CHECK(after.changes_text().find("sk-first") != std::string::npos);
  CHECK(config_of(after)["roles"]["QAEngineer"]["extra"]["max_tokens"] == 100);

  // As a client got it, with the haystacks turned round and the role copied.
  ordered got = config_of(after);
  ordered seen = got["roles"]["QAEngineer"];
  std::swap(seen["haystacks"][0], seen["haystacks"][1]);
  got["roles"]["QAEngineer"] = seen;
  got["roles"]["Copy"] = seen;
  got["roles"]["Copy"]["name"] = "Copy";
  role_book third = posted(after, got.dump());
  ordered kept = ordered::parse(third.changes_text())["roles"];
  for (const char* name : {"QAEngineer", "Copy"}) {
    CHECK(kept[name]["llm_api_key"] == "sk-first");
    CHECK(kept[name]["haystacks"][1]["atomic_server_secret"] == "second");
    CHECK(kept[name]["haystacks"][0]["extra_parameters"]["github_token"] == "third");
  }
  // A mark does not bring a secret to where it would be shown, and does not lead to what is none.
  got["roles"]["Copy"]["theme"] = seen["llm_api_key"];
  CHECK(posted(after, got.dump()).public_text().find("sk-first") == std::string::npos);
  got["roles"]["Copy"]["llm_api_key"] = "[kept secret /roles/QAEngineer/shortname]";
  CHECK(fault_of(after.replaced(got.dump())).find("stands for no secret") != std::string::npos);
  got["roles"]["Copy"]["llm_api_key"] = "[kept secret broken]";
  CHECK(fault_of(after.replaced(got.dump())).find("stands for no secret") != std::string::npos);
}

TEST_CASE("A configuration that cannot be is refused with the path of the member") {
  auto with = [](const std::string& role) {
    return R"({"roles": {"A": )" + role + R"(}, "default_role": "A"})";
  };
  CHECK(posted_fault("{\n  \"roles\": {,\n")
        == "config: line 2, column 13: syntax error while "
           "parsing object key - unexpected ','; expected "
           "string literal");
  CHECK(posted_fault("[]") == "config: must be an object, is a list");
  CHECK(posted_fault("{}") == "config: roles: is missing");
  CHECK(posted_fault(R"({"roles": {}, "default_role": "x"})")
        == "config: roles: must be 1 to 1000");
  CHECK(posted_fault(R"({"roles": {"A": {}}})") == "config: default_role: is missing");
  CHECK(posted_fault(R"({"roles": {"A": {}}, "default_role": "B"})")
        == "config: default_role: there is no role of the name B");
  CHECK(posted_fault(R"({"roles": {"A": {}}, "default_role": "A", "selected_role": "B"})")
        == "config: selected_role: there is no role of the name B");
  CHECK(posted_fault(R"({"roles": {"A": null}, "default_role": "A"})")
        == "config: roles.A: must be an object, is null");
  CHECK(posted_fault(R"({"roles": {"A": {}, "a": {}}, "default_role": "A"})")
        == "config: roles.a: another role has this name in other letters");
  CHECK(posted_fault(R"({"roles": {"": {}}, "default_role": ""})").find("1 to 256 bytes")
        != std::string::npos);
  CHECK(posted_fault(with(R"({"name": "B"})"))
        == "config: roles.A.name: must be the name it stands under");
  CHECK(posted_fault(with(R"({"extra": {"vm_execution": {"history": "yes"}}})"))
        == "config: roles.A.extra.vm_execution.history: must be an object, is text");
  CHECK(posted_fault(with(R"({"extra": {"extra": {"vm_execution": 1}}})"))
        == "config: roles.A.extra.extra.vm_execution: must be true, false or an object, is a "
           "number");
  CHECK(posted_fault(with(R"({"vm_execution": {"allowed_languages": ["py", "cobol"]}})"))
        == "config: roles.A.vm_execution.allowed_languages[1]: \"cobol\" is none of python, "
           "javascript, bash, rust, go");
  CHECK(posted_fault(with(R"({"relevance_function": "best"})"))
        == "config: roles.A.relevance_function: must be one of terraphim-graph, title-scorer, "
           "bm25, bm25f, bm25plus");
  CHECK(posted_fault(with(R"({"extra": {"temperature": 3}})"))
        == "config: roles.A.extra.temperature: must be 0 to 2");
  CHECK(posted_fault(with(R"({"haystacks": [{"location": "x"}]})"))
        == "config: roles.A.haystacks[0].service: is missing");
  CHECK(posted_fault(with(R"({"rounds_max": 2.5})"))
        == "config: roles.A.rounds_max: must be a whole number, is a fraction");
  CHECK(posted_fault(with(R"({"theme": "x", "theme": "y"})"))
        == "config: \"theme\" is given twice");
}

TEST_CASE("A configuration beyond a bound is refused") {
  CHECK(posted_fault(std::string(limits::roles_bytes_max + 1, ' ')).find("is larger than")
        != std::string::npos);
  CHECK(posted_fault(std::string(1'000'000, '[')) == "config: is nested deeper than 64");
  std::string wide = "{";
  for (int i = 0; i < 2'000; ++i)
    wide += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":{}";
  CHECK(posted_fault(wide + "}") == "config: has an object of more than 1024 members");
  std::string many = "[1";
  for (int i = 0; i < 200'000; ++i)
    many += ",1";
  CHECK(posted_fault(many + "]") == "config: has more than 100000 values");
  CHECK(posted_fault("{\"roles\": \"\xFF\"}").find("config: line 1") == 0);
  CHECK(posted_fault(R"({"roles": 1e999})").find("config: ") == 0);
}

TEST_CASE("Files of roles that are wrong are named, with line or member") {
  temp_dir dir;
  auto fault = [&] {
    auto read = config::read_role_files(dir.path() + "/roles");
    return read ? "" : to_refusal(read.error()).detail;
  };
  const std::string roles = dir.path() + "/roles";
  CHECK(fault().starts_with(roles + ": cannot be read"));
  std::filesystem::create_directory(roles);
  CHECK(fault() == roles + ": there is no role in it");
  write(roles + "/a.json", "{\n  \"name\": \"A\"\n  \"theme\": 1\n}\n");
  CHECK(fault().starts_with(roles + "/a.json: line 3, column 9"));
  write(roles + "/a.json", R"({"name": "A", "extra": {"rounds_max": "many"}})");
  CHECK(fault() == roles + "/a.json: extra.rounds_max: must be a whole number, is text");
  write(roles + "/a.json", R"({"theme": "x"})");
  CHECK(fault() == roles + "/a.json: name: is missing");
  write(roles + "/a.json", R"({"name": "A"})");
  write(roles + "/b.json", R"({"name": "A"})");
  CHECK(fault() == roles + "/b.json: name: another file has a role of the name A");
  write(roles + "/b.json", R"({"name": "B"})");
  CHECK(fault().empty());
  write(roles + ".json", R"({"order": ["B", "C"]})");
  CHECK(fault() == roles + ".json: order[1]: there is no role of the name C");
  write(roles + ".json", R"({"order": ["B"], "default_role": "C"})");
  CHECK(fault() == roles + ".json: default_role: there is no role of the name C");
  write(roles + ".json", R"({"order": ["B"], "default_role": "A"})");
  auto read = config::read_role_files(roles);
  REQUIRE(read);
  CHECK((*read)["roles"].begin().key() == "B");
  CHECK((*read)["selected_role"] == "A");
}

TEST_CASE("Changes on disk that are wrong are named, with line or member") {
  auto fault = [](const std::string& changes) {
    return fault_of(role_book::open(std::make_shared<const settings>(), shipped(), changes,
                                    "/d/roles_config.json"));
  };
  CHECK(fault("{\n\n  oops").starts_with("/d/roles_config.json: line 3, column 3"));
  CHECK(fault("[]") == "/d/roles_config.json: must be an object, is a list");
  CHECK(fault(R"({"selected_role": "X"})")
        == "/d/roles_config.json: selected_role: there is no role of the name X");
  CHECK(fault(R"({"roles": {"QAEngineer": {"kg": []}}})")
        == "/d/roles_config.json: roles.QAEngineer.kg: must be an object, is a list");
  CHECK(fault(R"({"roles": []})") == "/d/roles_config.json: roles: must be an object, is a list");
}

TEST_CASE("The schema describes what the check accepts") {
  ordered schema = config::role_config_schema();
  CHECK(schema["required"] == ordered::array({"roles", "default_role"}));
  const ordered& defined = schema["definitions"];
  for (const char* name : {"Role", "Extra", "VmExecutionConfig", "HistoryConfig", "Haystack",
                           "KnowledgeGraph", "ResourceLimits", "SecuritySettings"})
    CHECK(defined[name]["properties"].is_object());
  CHECK(schema["properties"]["roles"]["additionalProperties"]["$ref"] == "#/definitions/Role");
  CHECK(defined["Role"]["properties"]["relevance_function"]["enum"].size() == 6); // and null
  CHECK(defined["Role"]["properties"].contains("vm_execution"));
  CHECK(defined["Extra"]["properties"].contains("extra"));
  CHECK(schema.dump().size() < 64 * limits::kib);
}
