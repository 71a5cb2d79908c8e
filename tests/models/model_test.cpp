// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/model.hpp"
#include "actors/agents/progress.hpp"
#include "tests/support/model_server.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <catch2/catch.hpp>

#include "models/limits.hpp"
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

using namespace berth;
using namespace berth::test;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr auto hang_limit = 60s;

bool eventually(const std::function<bool()>& is_so) {
  for (auto end = std::chrono::steady_clock::now() + hang_limit;
       std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(5ms))
    if (is_so())
      return true;
  return false;
}

model_endpoint endpoint(const model_server& at, const char* provider = "ollama") {
  return {.provider = provider, .base_url = at.url(), .model = "usual"};
}

/// A MODEL and a PROGRESS of their own, on real time.
class house {
public:
  explicit house(std::vector<model_endpoint> endpoints)
    : system_(config_) {
    auto values = std::make_shared<settings>();
    values->models = std::move(endpoints);
    progress_ = spawn_progress(system_, nullptr);
    model_ = spawn_model(system_, values, progress_);
  }
  ~house() {
    caf::anon_send_exit(model_, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(progress_, caf::exit_reason::user_shutdown);
  }

  template <class Reply, class Handle, class Request>
  expected<Reply> request(const Handle& who, const Request& what) {
    caf::scoped_actor self{system_};
    expected<Reply> got{error{}};
    self->request(who, hang_limit, what)
        .receive([&](Reply& reply) { got = std::move(reply); },
                 [&](error& why) { got = std::move(why); });
    return got;
  }

  expected<model_answer> ask(const ask_model& what) { return request<model_answer>(model_, what); }
  std::future<expected<model_answer>> ask_later(ask_model what) {
    return std::async(std::launch::async, [this, what = std::move(what)] { return ask(what); });
  }
  refusal refused(const ask_model& what) {
    auto got = ask(what);
    REQUIRE_FALSE(got);
    return to_refusal(got.error());
  }
  void cancel(const std::string& call) { caf::anon_send(model_, cancel_model{call}); }
  model_list list() { return *request<model_list>(model_, list_models{}); }

  /// The tokens that PROGRESS was told, one text each.
  std::vector<std::string> tokens(const std::string& id) {
    auto page = request<progress_page>(progress_, read_progress{.id = id});
    std::vector<std::string> all;
    if (page)
      for (const progress_event& each : page->events)
        if (each.kind == progress_kind::token)
          all.push_back(each.text);
    return all;
  }
  std::string told(const std::string& id) {
    std::string all;
    for (const std::string& each : tokens(id))
      all += each;
    return all;
  }

private:
  struct house_config : caf::actor_system_config {
    house_config() {
      add_message_types<caf::id_block::berth_errors>();
      add_message_types<caf::id_block::berth_messages>();
      add_message_types<caf::id_block::berth_actors>();
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::size_t{2});
    }
  } config_;
  caf::actor_system system_;
  progress_actor progress_;
  model_actor model_;
};

ask_model question(std::string call = "a", std::string progress = {}) {
  return {.call = std::move(call),
          .messages = {{.role = speaker::user, .content = "hello"}},
          .progress = std::move(progress)};
}

json replies(std::initializer_list<json> all) {
  json rules = json::array();
  for (const json& each : all)
    rules.push_back({{"times", 1}, {"reply", each}});
  return {{"rules", rules}};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("A model of either dialect answers, with what it used and what that cost") {
  for (const char* provider : {"ollama", "openai"}) {
    CAPTURE(provider);
    model_server models{{{"rules",
                          {{{"reply",
                             {{"text", "you said {{last}}"},
                              {"usage", {{"input", 1'000'000}, {"output", 500'000}}}}}}}}}};
    model_endpoint at = endpoint(models, provider);
    at.prices["usual"] = {.input_usd = 2, .output_usd = 10};
    at.prices["*"] = {.input_usd = 100, .output_usd = 100};
    house home{{at}};
    for (const char* stream : {"", "chat-1"}) {
      auto got = home.ask(question("a", stream));
      REQUIRE(got);
      CHECK(got->text == "you said hello");
      CHECK(got->finish == "stop");
      CHECK(got->model == "usual");
      CHECK(got->attempts == 1);
      CHECK(got->usage
            == model_usage{
                .input_tokens = 1'000'000, .output_tokens = 500'000, .cost_usd = 7, .calls = 1});
    }
    CHECK(home.told("chat-1") == "you said hello");
    json asked = models.requests();
    CHECK(asked[0]["refused"].is_null());
    CHECK(asked[0]["body"].value("stream", false) == false);
    CHECK(asked[1]["body"]["stream"] == true);
    CHECK(asked[0]["connection"] == asked[1]["connection"]);
  }
}

TEST_CASE("Tools are offered, called, and their results understood, by both dialects") {
  for (const char* provider : {"ollama", "openai"}) {
    for (const char* stream : {"", "chat-1"}) {
      CAPTURE(provider, stream);
      model_server models{
          {{"rules",
            {{{"when", {{"round", 1}, {"tools", true}}},
              {"reply",
               {{"text", "Let me see."},
                {"tool_calls",
                 {{{"name", "execute_code"}, {"arguments", {{"code", "print(6*7)"}}}},
                  {{"name", "execute_code"}, {"arguments", "{\"code\": \"bro"}}}}}}},
             {{"when", {{"tool", "execute_code"}}}, {"reply", {{"text", "It is {{tool}}"}}}}}}}};
      house home{{endpoint(models, provider)}};
      ask_model asked = question("a", stream);
      asked.tools = R"([{"type": "function", "function": {"name": "execute_code"}}])";
      auto first = home.ask(asked);
      REQUIRE(first);
      CHECK(first->text == "Let me see.");
      CHECK(first->finish == "tool_calls");
      REQUIRE(first->tool_calls.size() == 2);
      CHECK(json::parse(first->tool_calls[0].arguments) == json{{"code", "print(6*7)"}});
      CHECK(first->tool_calls[1].arguments == "{\"code\": \"bro");
      CHECK_FALSE(first->tool_calls[0].id.empty());
      CHECK(first->tool_calls[0].id != first->tool_calls[1].id);
      asked.messages.push_back(
          {.role = speaker::assistant, .content = first->text, .tool_calls = first->tool_calls});
      for (const char* result : {"42", "broken"})
        asked.messages.push_back({.role = speaker::tool,
                                  .content = result,
                                  .tool_call_id = first->tool_calls[*result == 'b' ? 1 : 0].id,
                                  .tool_name = "execute_code"});
      auto second = home.ask(asked);
      REQUIRE(second);
      CHECK(second->text == "It is broken");
      CHECK(models.requests()[1]["refused"].is_null());
    }
  }
}

TEST_CASE("Tokens come to PROGRESS one by one, before the answer is whole") {
  for (const char* provider : {"ollama", "openai"}) {
    CAPTURE(provider);
    json rules = json::array();
    rules.push_back(
        {{"reply", {{"pieces", {"one ", "two ", "three"}}, {"hold", "more"}, {"hold_after", 1}}}});
    model_server models{{{"rules", rules}}};
    house home{{endpoint(models, provider)}};
    ask_model asked = question("a", "workflow_1");
    asked.step = "step-2";
    auto later = home.ask_later(asked);
    REQUIRE(eventually([&] { return home.told("workflow_1") == "one "; }));
    models.release("more");
    auto got = later.get();
    REQUIRE(got);
    CHECK(got->text == "one two three");
    // All of them are there when the answer is.
    CHECK(home.told("workflow_1") == "one two three");
  }
}

TEST_CASE("What passes by itself is tried again, and the answer says how often") {
  for (const char* stream : {"", "chat-1"}) {
    model_server models{
        replies({{{"cut", true}}, {{"status", 503}, {"error", "loading"}}, {{"text", "at last"}}})};
    house home{{endpoint(models)}};
    auto got = home.ask(question("a", stream));
    REQUIRE(got);
    CHECK(got->text == "at last");
    CHECK(got->attempts == 3);
    CHECK(home.told("chat-1") == (*stream == '\0' ? "" : "at last"));
    json asked = models.requests();
    REQUIRE(asked.size() == 3);
    CHECK(asked[1]["at_ms"].get<double>() - asked[0]["at_ms"].get<double>()
          >= double(limits::model_retry_delay_min.count()) / 2);
  }
}

TEST_CASE("A stream that is cut before its first piece is tried again, after it never") {
  model_server models{replies({{{"text", "one two"}, {"pieces", 4}, {"cut_after", 0}},
                               {{"text", "one two"}, {"pieces", 4}, {"cut_after", 1}},
                               {{"text", "never"}}})};
  house home{{endpoint(models)}};
  refusal why = home.refused(question("a", "chat-1"));
  CHECK(why.name == "machine_failed");
  CHECK(contains(why.detail, models.url()));
  CHECK(contains(why.detail, "HTTP 200"));
  CHECK(contains(why.detail, "2 attempts"));
  CHECK(home.told("chat-1") == "one ");
  CHECK(models.requests().size() == 2);
}

TEST_CASE("Nothing that a client did wrong is tried again") {
  for (auto [status, name] : {std::pair{400, "malformed"},
                              {401, "unauthorized"},
                              {404, "not_found"},
                              {422, "malformed"},
                              {302, "rejected"}}) {
    CAPTURE(status);
    model_server models{replies({{{"status", status}, {"error", "no, and the reason"}}})};
    house home{{endpoint(models)}};
    refusal why = home.refused(question());
    CHECK(why.name == name);
    CHECK(contains(why.detail, "HTTP " + std::to_string(status)));
    CHECK(models.requests().size() == 1);
  }
}

TEST_CASE("Too many requests are waited for as the endpoint asks, unless it asks too much") {
  model_server models{replies({{{"status", 429}, {"retry_after", 1}},
                               {{"text", "in"}},
                               {{"status", 429}, {"retry_after", 3600}, {"error", "slow down"}}})};
  house home{{endpoint(models)}};
  auto got = home.ask(question());
  REQUIRE(got);
  CHECK(got->attempts == 2);
  json asked = models.requests();
  CHECK(asked[1]["at_ms"].get<double>() - asked[0]["at_ms"].get<double>() >= 1000);
  refusal why = home.refused(question("b"));
  CHECK(why.name == "no_capacity");
  CHECK(why.retry_after_ms.value_or(0) == 3'600'000);
  CHECK(contains(why.detail, "slow down"));
}

TEST_CASE("Attempts end at the settings' bound, and the error says so") {
  model_server models{{{"rules", {{{"reply", {{"status", 500}, {"error", "broken"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.attempts_max = 2;
  house home{{at}};
  refusal why = home.refused(question());
  CHECK(why.name == "machine_failed");
  CHECK(why.detail == "model endpoint " + models.url() + ": HTTP 500: broken (2 attempts)");
  CHECK(models.requests().size() == 2);
  CHECK(home.list().endpoints[0].failures_total == 1);
}

TEST_CASE("Broken and empty answers, and errors inside them, end a call with their reason") {
  for (const char* provider : {"ollama", "openai"}) {
    CAPTURE(provider);
    model_server models{replies(
        {{{"text", "one two"}, {"pieces", 4}, {"malformed_after", 1}},
         {{"text", "one two"}, {"pieces", 4}, {"error_after", 1}, {"error", "out of memory"}},
         {{"empty", true}},
         {{"text", "in"}}})};
    house home{{endpoint(models, provider)}};
    CHECK(home.refused(question("a", "chat-1")).name == "malformed");
    refusal why = home.refused(question("b", "chat-2"));
    CHECK(why.name == "machine_failed");
    CHECK(contains(why.detail, "out of memory"));
    // Nothing at all is a network's fault, and may pass.
    auto got = home.ask(question("c", "chat-3"));
    REQUIRE(got);
    CHECK(got->attempts == 2);
  }
}

TEST_CASE("An endless answer is cut off at the bound, and so is its connection") {
  model_server models{
      {{"rules", {{{"reply", {{"text", "0123456789"}, {"pieces", 10}, {"endless", true}}}}}}}};
  model_endpoint at = endpoint(models);
  at.answer_bytes_max = 4'096;
  house home{{at}};
  auto got = home.ask(question("a", "chat-1"));
  REQUIRE(got);
  CHECK(got->text.size() == 4'096);
  CHECK(got->finish == "length");
  CHECK(home.told("chat-1") == got->text);
  CHECK(eventually([&] { return models.requests()[0]["state"] == "gone"; }));
}

TEST_CASE("A huge answer within the bound comes whole") {
  for (const char* provider : {"ollama", "openai"})
    for (const char* stream : {"", "chat-1"}) {
      model_server models{{{"rules", {{{"reply", {{"huge_bytes", 2'000'000}}}}}}}};
      house home{{endpoint(models, provider)}};
      auto got = home.ask(question("a", stream));
      REQUIRE(got);
      CHECK(got->text == std::string(2'000'000, 'x'));
    }
}

TEST_CASE("Silence, and a call that takes too long, end with deadline") {
  model_server models{
      {{"rules", {{{"reply", {{"text", "one two"}, {"pieces", 4}, {"stall_after", 1}}}}}}}};
  model_endpoint at = endpoint(models);
  at.silence_timeout_ms = 100;
  house home{{at}};
  refusal why = home.refused(question("a", "chat-1"));
  CHECK(why.name == "deadline");
  CHECK(contains(why.detail, "silence_timeout_ms"));
  CHECK(eventually([&] { return models.requests()[0]["state"] == "gone"; }));
  ask_model hurried = question("b");
  hurried.timeout_ms = 100;
  CHECK(home.refused(hurried).name == "deadline");
}

TEST_CASE("A cancelled call answers at once, closes its connection and says nothing more") {
  model_server models{
      {{"rules", {{{"reply", {{"text", "x"}, {"endless", true}, {"delay_ms", 1}}}}}}}};
  house home{{endpoint(models)}};
  auto later = home.ask_later(question("a", "chat-1"));
  REQUIRE(eventually([&] { return !home.tokens("chat-1").empty(); }));
  home.cancel("a");
  auto got = later.get();
  REQUIRE_FALSE(got);
  CHECK(to_refusal(got.error()).name == "conflict");
  auto said = home.tokens("chat-1").size();
  CHECK(eventually([&] { return models.requests()[0]["state"] == "gone"; }));
  CHECK(home.tokens("chat-1").size() == said);
  home.cancel("a");
  home.cancel("nobody");
}

TEST_CASE("A call that waits, and one that rests, can be cancelled too") {
  model_server models{{{"rules",
                        {{{"times", 1}, {"reply", {{"status", 429}, {"retry_after", 25}}}},
                         {{"reply", {{"text", "in"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 1;
  house home{{at}};
  auto rests = home.ask_later(question("rests"));
  REQUIRE(eventually(
      [&] { return models.requests().size() == 1 && models.requests()[0]["state"] == "done"; }));
  auto waits = home.ask_later(question("waits"));
  REQUIRE(eventually([&] { return home.list().endpoints[0].calls_waiting == 1; }));
  home.cancel("waits");
  CHECK_FALSE(waits.get());
  home.cancel("rests");
  CHECK_FALSE(rests.get());
  CHECK(home.ask(question("next"))->text == "in");
}

TEST_CASE("An endpoint has so many calls at once, and those that wait take turns") {
  model_server models{{{"rules", {{{"reply", {{"text", "{{last}}"}, {"hold", "all"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 4;
  at.waiting_max = 50;
  house home{{at}};
  std::vector<std::future<expected<model_answer>>> all;
  for (int i = 0; i < 30; ++i)
    all.push_back(home.ask_later(question("w." + std::to_string(i), "workflow_1")));
  REQUIRE(eventually([&] { return models.state()["held"] == 4; }));
  ask_model chat = question("c.1", "chat-1");
  chat.messages[0].content = "the chat";
  REQUIRE(eventually([&] { return home.list().endpoints[0].calls_waiting == 26; }));
  auto chatting = home.ask_later(chat);
  REQUIRE(eventually([&] { return home.list().endpoints[0].calls_waiting == 27; }));
  models.release("all");
  CHECK(chatting.get()->text == "the chat");
  for (auto& each : all)
    CHECK(each.get());
  CHECK(models.state()["held_max"] == 4);
  json asked = models.requests();
  std::size_t place = 0;
  while (asked[place]["body"]["messages"][0]["content"] != "the chat")
    ++place;
  CHECK(place < 10);
}

TEST_CASE("One call more than may wait is refused with a hint") {
  model_server models{{{"rules", {{{"reply", {{"text", "x"}, {"hold", "all"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 1;
  at.waiting_max = 0;
  house home{{at}};
  auto first = home.ask_later(question("a"));
  REQUIRE(eventually([&] { return models.state()["held"] == 1; }));
  refusal why = home.refused(question("b"));
  CHECK(why.name == "no_capacity");
  CHECK(why.retry_after_ms.has_value());
  CHECK(contains(why.detail, "waiting_max"));
  CHECK(home.refused(question("a")).name != "internal");
  models.release("all");
  CHECK(first.get());
}

TEST_CASE("A call that waits for a place ends at its deadline") {
  model_server models{{{"rules", {{{"reply", {{"text", "x"}, {"hold", "all"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 1;
  house home{{at}};
  auto first = home.ask_later(question("a"));
  REQUIRE(eventually([&] { return models.state()["held"] == 1; }));
  ask_model hurried = question("b");
  hurried.timeout_ms = 50;
  CHECK(home.refused(hurried).name == "deadline");
  models.release("all");
  CHECK(first.get());
  CHECK(models.requests().size() == 1);
}

TEST_CASE("No endpoint but the configured ones is ever reached") {
  model_server models;
  model_server other;
  house home{{endpoint(models)}};
  ask_model asked = question();
  asked.model.base_url = other.url();
  refusal why = home.refused(asked);
  CHECK(why.name == "rejected");
  CHECK(contains(why.detail, "llm_base_url"));
  asked.model.base_url.clear();
  asked.model.provider = "openai";
  CHECK(home.refused(asked).name == "rejected");
  CHECK(other.requests().empty());
  asked.model.provider.clear();
  asked.model.base_url = "http://localhost:" + std::to_string(models.port()) + "/v1/";
  CHECK(home.ask(asked));
}

TEST_CASE("A key comes from the environment, is sent, and is shown nowhere") {
  model_server models{
      {{"key", "sk-very-secret"},
       {"rules", {{{"reply", {{"status", 400}, {"error", "I know sk-very-secret"}}}}}}}};
  model_endpoint at = endpoint(models, "openai");
  at.api_key_env = "BERTH_TEST_MODEL_KEY";
  ::setenv("BERTH_TEST_MODEL_KEY", "sk-very-secret", 1);
  {
    house home{{at}};
    refusal why = home.refused(question());
    CHECK(contains(why.detail, "I know [key]"));
    CHECK(models.requests()[0]["headers"]["authorization"] == "Bearer sk-very-secret");
    CHECK_FALSE(contains(home.list().endpoints[0].detail, "secret"));
  }
  ::setenv("BERTH_TEST_MODEL_KEY", "two\r\nX-Other: 1", 1);
  CHECK(house{{at}}.refused(question()).name == "unauthorized");
  ::unsetenv("BERTH_TEST_MODEL_KEY");
  house home{{at}};
  refusal why = home.refused(question());
  CHECK(why.name == "unauthorized");
  CHECK(contains(why.detail, "BERTH_TEST_MODEL_KEY"));
  CHECK(contains(home.list().endpoints[0].detail, "BERTH_TEST_MODEL_KEY"));
  CHECK(models.requests().size() == 2); // the call and the list, both of the first
}

TEST_CASE("An endpoint whose path is not /v1 is reached where it is") {
  model_server models{{{"openai_path", "/v1beta/openai"}}};
  for (const char* path : {"/v1beta/openai", "/v1beta/openai/"}) {
    model_endpoint at = endpoint(models, "openai");
    at.base_url += path;
    house home{{at}};
    CHECK(home.ask(question())->text == "hello");
    CHECK(home.list().endpoints[0].reachable);
  }
  CHECK(house{{endpoint(models, "openai")}}.refused(question()).name == "not_found");
}

TEST_CASE("An endpoint with an api_version gets it, and its key in a header of its own") {
  model_server models{{{"openai_path", "/openai/deployments/d"},
                       {"api_version", "2024-10-21"},
                       {"key", "azure-secret"}}};
  model_endpoint at = endpoint(models, "openai");
  at.base_url += "/openai/deployments/d";
  at.api_version = "2024-10-21";
  at.api_key_env = "BERTH_TEST_AZURE_KEY";
  ::setenv("BERTH_TEST_AZURE_KEY", "azure-secret", 1);
  house home{{at}};
  CHECK(home.ask(question())->text == "hello");
  ::unsetenv("BERTH_TEST_AZURE_KEY"); // read by now
  endpoint_info told = home.list().endpoints[0];
  CHECK(told.reachable);
  CHECK(told.key_variable == "BERTH_TEST_AZURE_KEY");
  CHECK(told.has_key);
  CHECK_FALSE(models.requests()[0]["headers"].contains("authorization"));
}

TEST_CASE("A model that refuses a temperature is asked once more without, and remembered") {
  for (const char* provider : {"ollama", "openai"}) {
    CAPTURE(provider);
    model_server models{{{"refuses_temperature", {"thinker"}}}};
    model_endpoint at = endpoint(models, provider);
    at.attempts_max = 1;
    house home{{at}};
    ask_model asked = question();
    asked.model.temperature = 0.2;
    asked.model.model = "thinker";
    CHECK(home.ask(asked)->attempts == 2);
    CHECK(home.ask(asked)->attempts == 1);
    asked.model.model = "usual";
    CHECK(home.ask(asked)->attempts == 1);
    json last = models.requests().back()["body"];
    CHECK(last.value("options", last).contains("temperature"));
  }
}

TEST_CASE("A model without tools is told from other refusals") {
  model_server models{{{"no_tools", {"gemma"}}, {"rules", {{{"reply", {{"text", "x"}}}}}}}};
  house home{{endpoint(models)}};
  ask_model asked = question();
  asked.model.model = "gemma3:270m";
  asked.tools = R"([{"type": "function", "function": {"name": "execute_code"}}])";
  CHECK(home.refused(asked).name == "unsupported");
  asked.tools = "{";
  CHECK(home.refused(asked).name == "malformed");
  asked.tools.clear();
  CHECK(home.ask(asked));
}

TEST_CASE("Endpoints tell their models, and why when they do not") {
  model_server models{{{"models", {"llama3.2:3b", "gemma3:270m"}}}};
  model_endpoint gone = endpoint(models);
  gone.base_url = "http://127.0.0.1:1";
  house home{{endpoint(models), endpoint(models, "openai"), gone}};
  model_list all = home.list();
  REQUIRE(all.endpoints.size() == 3);
  for (int i : {0, 1}) {
    CHECK(all.endpoints[std::size_t(i)].reachable);
    CHECK(all.endpoints[std::size_t(i)].models.size() == 2);
    CHECK(all.endpoints[std::size_t(i)].detail.empty());
  }
  CHECK_FALSE(all.endpoints[2].reachable);
  CHECK(contains(all.endpoints[2].detail, "http://127.0.0.1:1"));
  auto looks = models.requests().size();
  home.list();
  CHECK(models.requests().size() == looks);
  CHECK(house{{}}.list().endpoints.empty());
}

TEST_CASE("A MODEL that ends answers everybody") {
  model_server models{{{"rules", {{{"reply", {{"text", "x"}, {"hold", "never"}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 1;
  std::vector<std::future<expected<model_answer>>> all;
  auto home = std::make_unique<house>(std::vector{at});
  for (int i = 0; i < 3; ++i)
    all.push_back(home->ask_later(question(std::to_string(i))));
  REQUIRE(eventually([&] { return models.state()["held"] == 1; }));
  REQUIRE(eventually([&] { return home->list().endpoints[0].calls_waiting == 2; }));
  home.reset();
  for (auto& each : all) {
    auto got = each.get();
    REQUIRE_FALSE(got);
    CHECK(to_refusal(got.error()).name == "shutting_down");
  }
}

TEST_CASE("Two hundred calls in fifty streams come back, each with its own answer") {
  model_server models{{{"rules", {{{"reply", {{"text", "{{last}}"}, {"pieces", 2}}}}}}}};
  model_endpoint at = endpoint(models);
  at.calls_max = 50;
  house home{{at}};
  std::vector<std::future<expected<model_answer>>> all;
  for (int i = 0; i < 200; ++i) {
    ask_model asked = question("c" + std::to_string(i), "chat-" + std::to_string(i % 50));
    asked.messages[0].content = "number " + std::to_string(i);
    all.push_back(home.ask_later(asked));
  }
  for (int i = 0; i < 200; ++i) {
    auto got = all[std::size_t(i)].get();
    REQUIRE(got);
    CHECK(got->text == "number " + std::to_string(i));
  }
}
