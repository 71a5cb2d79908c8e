// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/model_server.hpp"
#include "tests/support/skip.hpp"

#include <csignal>
#include <cstdlib>
#include <set>

using namespace berth::test;

namespace {

/// A program in a file of its own, for `berth run`.
std::string program_file(const std::string& name, std::string_view code) {
  static server_home files;
  std::string path = files.path() + "/" + name;
  write_file(path, code);
  return path;
}

} // namespace

TEST_CASE("Five languages run by the ending of their file, with their output and exit codes") {
  NEEDS_SERVER();
  struct sample {
    std::string name;
    std::string code;
  };
  auto one = GENERATE(
      sample{"hello.py", "import sys; print('hello', sys.argv[1]); sys.exit(41)"},
      sample{"hello.js", "console.log('hello', process.argv[2]); process.exit(41)"},
      sample{"hello.sh", "echo hello $1; exit 41"},
      sample{"hello.rs", "fn main() { println!(\"hello {}\", std::env::args().nth(1).unwrap()); "
                         "std::process::exit(41) }"},
      sample{"hello.go", "package main\nimport (\"fmt\"; \"os\")\n"
                         "func main() { fmt.Println(\"hello\", os.Args[1]); os.Exit(41) }"});
  CAPTURE(one.name);
  auto done =
      shared_server().cli({"run", "--timeout", "60", program_file(one.name, one.code), "agent"});
  INFO(done.err);
  CHECK(done.out == "hello agent\n");
  CHECK(done.code == 41);
}

TEST_CASE("A program that is piped in runs in the language that is named, or that its first line "
          "names") {
  NEEDS_SERVER();
  auto named = shared_server().cli({"run", "-l", "bash", "-"}, "echo $((6 * 7)); exit 3");
  CHECK(named.out == "42\n");
  CHECK(named.code == 3);
  auto by_line = shared_server().cli({"run", "-"}, "#!/usr/bin/env python3\nprint(6 * 7)");
  CHECK(by_line.out == "42\n");
  auto neither = shared_server().cli({"run", "-"}, "print(6 * 7)");
  CHECK(neither.code != 0);
  CHECK(neither.err.find("language") != std::string::npos);
}

TEST_CASE("What is piped into berth run reaches the program, and the end of it too") {
  NEEDS_SERVER();
  auto done = shared_server().cli(
      {"run", program_file("upper.py", "import sys\nprint(sys.stdin.read().upper(), end='')")},
      "one\ntwo\n");
  INFO(done.err);
  CHECK(done.out == "ONE\nTWO\n");
  CHECK(done.code == 0);
}

TEST_CASE("A program's signal and its standard error pass through berth run") {
  NEEDS_SERVER();
  auto done = shared_server().cli({"run", "-l", "bash", "-"}, "echo wrong >&2; kill -SEGV $$");
  CHECK(done.code == 128 + SIGSEGV);
  CHECK(done.err.find("wrong\n") != std::string::npos);
}

TEST_CASE("Ctrl-C in berth run cancels the job") {
  NEEDS_SERVER();
  auto& server = shared_server();
  auto path = program_file("sleep.sh", "echo ready; sleep 600");
  auto running = server.cli_process({"run", "--agent", "impatient", path});
  REQUIRE(eventually([&] { return running->out().find("ready") != std::string::npos; }));
  running->signal(SIGINT);
  CHECK(running->wait() == 130);
  auto past = server.cli({"history", "--json", "--agent", "impatient"});
  INFO(past.out << past.err);
  CHECK(past.out.find("\"cancelled\"") != std::string::npos);
}

TEST_CASE(
    "logs -f follows a job that runs to its end, ps and pool show it, logs shows it afterwards") {
  NEEDS_SERVER();
  auto& server = shared_server();
  auto path = program_file("count.py", "import sys\nprint('one', flush=True)\nsys.stdin.read()\n"
                                       "print('two', file=sys.stderr)\nsys.exit(5)");
  auto running = server.cli_process({"run", "-i", "--session", "followed", path});
  REQUIRE(eventually([&] { return running->out() == "one\n"; }));
  auto jobs = nlohmann::json::parse(server.cli({"ps", "--json", "--session", "followed"}).out);
  REQUIRE(jobs["jobs"].size() == 1);
  std::string job = jobs["jobs"][0]["job"];
  CHECK(jobs["jobs"][0]["state"] == "running");
  auto table = server.cli({"ps"}).out;
  CHECK(table.find(job) != std::string::npos);
  CHECK(table.find("running") != std::string::npos);
  auto pool = nlohmann::json::parse(server.cli({"pool", "--json"}).out);
  CHECK(pool["sessions"] >= 1);
  CHECK(server.cli({"pool"}).out.find(std::string{jobs["jobs"][0]["machine"]})
        != std::string::npos);
  CHECK(server.cli({"sessions"}).out.find("followed") != std::string::npos);
  CHECK(server.cli({"logs", job}).out == "one\n");
  auto following = server.cli_process({"logs", "-f", job});
  REQUIRE(eventually([&] { return following->out() == "one\n"; }));
  running->close_stdin();
  CHECK(running->wait() == 5);
  CHECK(running->err() == "two\n");
  CHECK(following->wait() == 0);
  CHECK(following->out() == "one\n");
  CHECK(following->err() == "two\n");
  auto past = server.cli({"logs", job});
  CHECK(past.out == "one\n");
  CHECK(past.err == "two\n");
  auto entry = nlohmann::json::parse(server.cli({"history", "--json", "--job", job}).out);
  CHECK(entry["entries"][0]["result"]["exit_code"] == 5);
}

TEST_CASE("What does not exist is told on standard error, with an exit code of its own") {
  NEEDS_SERVER();
  auto& server = shared_server();
  for (const auto& command : {std::vector<std::string>{"logs", "no-such-job"},
                              {"cancel", "no-such-job"},
                              {"run", "/no/such/file.py"}}) {
    CAPTURE(command[0]);
    auto done = server.cli(command);
    CHECK(done.code == 125);
    CHECK(done.out.empty());
    CHECK(done.err.find("berth: ") == 0);
    CHECK(done.err.find("no") != std::string::npos);
  }
  CHECK(server.cli({"no-such-command"}).code != 0);
  auto nobody =
      execute({BERTH_BUILD_DIR "/berth", "ps", "--endpoint", "ipc:///nonexistent/socket"});
  CHECK(nobody.code == 125);
  CHECK(nobody.err.find("no server answers") != std::string::npos);
}

TEST_CASE("A single setting is given by the name that errors give it") {
  auto serve = [](const std::string& setting) {
    return execute({BERTH_BUILD_DIR "/berth", "serve", "--set", setting});
  };
  for (const auto& [setting, told] : std::map<std::string, std::string>{
           {"pool.slots_max=0", "pool.slots_max: must be 1 to"},
           {"pool.slots=7", "pool.slots: is not a setting"},
           {"kind.name=x", "kind: must be text"},
           {"vm_types.mine={\"memory_mib\": 1}", "vm_types.mine.memory_mib"}}) {
    auto [code, out, err] = serve(setting);
    INFO(setting << ": " << err);
    CHECK(code != 0);
    CHECK(err.find(told) != std::string::npos);
  }
}

TEST_CASE("doctor says that this host can, and names each thing once") {
  NEEDS_SERVER();
  auto text = execute({BERTH_BUILD_DIR "/berth", "doctor"});
  INFO(text.out);
  CHECK(text.code == 0);
  auto all = nlohmann::json::parse(execute({BERTH_BUILD_DIR "/berth", "doctor", "--json"}).out);
  CHECK(all["ok"] == true);
  std::set<std::string> names;
  for (const auto& fact : all["facts"]) {
    CHECK(names.insert(fact["name"]).second);
    CHECK(fact["ok"].get<bool>() == fact["mend"].get<std::string>().empty());
  }
}

TEST_CASE("doctor looks at the endpoints of models and never shows a key") {
  NEEDS_SERVER();
  model_server models{{{"models", {"llama3.2:3b"}}}};
  nlohmann::json there{{"provider", "ollama"}, {"base_url", models.url()}};
  nlohmann::json locked{
      {"provider", "openai"}, {"base_url", models.url()}, {"api_key_env", "BERTH_TEST_DOCTOR_KEY"}};
  nlohmann::json gone{{"provider", "openai"}, {"base_url", "http://127.0.0.1:1"}};
  std::string config =
      program_file("models.json", nlohmann::json{{"models", {there, locked, gone}}}.dump());
  auto look = [&] {
    auto told = execute({BERTH_BUILD_DIR "/berth", "doctor", "--json", "-c", config});
    CHECK(told.code == 0);
    CHECK(told.out.find("sk-secret") == std::string::npos);
    std::vector<std::pair<bool, std::string>> found;
    auto all = nlohmann::json::parse(told.out);
    for (const auto& fact : all["facts"])
      if (fact["name"].get<std::string>().starts_with("model endpoint"))
        found.emplace_back(fact["ok"], fact["found"]);
    REQUIRE(found.size() == 3);
    return found;
  };
  auto found = look();
  CHECK(found[0].first);
  CHECK(found[0].second.find("llama3.2:3b; no key is sent") != std::string::npos);
  CHECK(!found[1].first);
  CHECK(found[1].second.find("BERTH_TEST_DOCTOR_KEY is missing") != std::string::npos);
  CHECK(!found[2].first);
  ::setenv("BERTH_TEST_DOCTOR_KEY", "sk-secret", 1);
  found = look();
  ::unsetenv("BERTH_TEST_DOCTOR_KEY");
  CHECK(found[1].first);
  CHECK(found[1].second.find("BERTH_TEST_DOCTOR_KEY is set") != std::string::npos);
}

TEST_CASE("health, pool, sessions, ps and describe answer on the command line, in JSON too") {
  NEEDS_SERVER();
  for (const char* command : {"health", "pool", "sessions", "ps", "describe"}) {
    CAPTURE(command);
    auto text = shared_server().cli({command});
    INFO(text.err);
    CHECK(text.code == 0);
    auto json = shared_server().cli({command, "--json"});
    CHECK(json.code == 0);
    CHECK(nlohmann::json::accept(json.out));
  }
}
