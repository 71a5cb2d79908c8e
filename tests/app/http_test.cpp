// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;
using nlohmann::json;

TEST_CASE("GET /health says that the server is healthy") {
  NEEDS_SERVER();
  auto [status, text] = shared_server().curl("/health");
  CHECK(status == 200);
  auto told = json::parse(text);
  CHECK(told["status"] == "healthy");
  CHECK(told["machine_kind"] == "namespace");
}

TEST_CASE("POST /api/llm/execute answers 200 with the program's exit code, whatever it is") {
  NEEDS_SERVER();
  auto [status, answer] = shared_server().post(
      "/api/llm/execute", {{"agent_id", "web"},
                           {"language", "python"},
                           {"code", "import sys; print(6 * 7); print('é', file=sys.stderr); "
                                    "sys.exit(3)"}});
  INFO(answer.dump());
  REQUIRE(status == 200);
  CHECK(answer["exit_code"] == 3);
  CHECK(answer["stdout"] == "42\n");
  CHECK(answer["stderr"] == "é\n");
  CHECK(answer["agent_id"] == "web");
  CHECK(answer["vm_id"].get<std::string>().rfind("vm-", 0) == 0);
  CHECK(answer["duration_ms"].is_number());
}

TEST_CASE("A program that runs out of time is HTTP 200 with exit code 124 and what it printed") {
  NEEDS_SERVER();
  auto [status, answer] =
      shared_server().post("/api/llm/execute", {{"agent_id", "web"},
                                                {"language", "bash"},
                                                {"code", "echo partial; sleep 100"},
                                                {"timeout_ms", 600}});
  INFO(answer.dump());
  REQUIRE(status == 200);
  CHECK(answer["exit_code"] == 124);
  CHECK(answer["state"] == "timed_out");
  CHECK(answer["stdout"] == "partial\n");
}

TEST_CASE("A VM is made, listed, used, and deleted over HTTP") {
  NEEDS_SERVER();
  auto& server = shared_server();
  auto [made, vm] = server.post("/api/vms", {{"vm_name", "webby"}, {"agent_id", "maker"}});
  INFO(vm.dump());
  REQUIRE(made == 201);
  std::string id = vm.contains("vm_id") ? vm["vm_id"] : vm["id"];
  CHECK(server.curl("/api/vms").second.find(id) != std::string::npos);
  CHECK(server.curl("/api/vms/" + id).first == 200);
  CHECK(server.curl("/api/vms/webby").first == 200);
  auto [ran, answer] = server.post(
      "/api/llm/execute",
      {{"agent_id", "maker"}, {"vm_id", id}, {"language", "bash"}, {"code", "echo in $PWD"}});
  CHECK(ran == 200);
  CHECK(answer["stdout"] == "in /work\n");
  CHECK(answer["vm_id"] == id);
  auto history = server.curl("/api/vms/" + id + "/history");
  CHECK(history.first == 200);
  CHECK(history.second.find("echo in $PWD") != std::string::npos);
  CHECK(server.curl("/api/vms/" + id + "/metrics").first == 200);
  CHECK(server.curl("/api/vms/" + id, {"-X", "DELETE"}).first == 200);
  CHECK(server.curl("/api/vms/" + id).first == 404);
}

TEST_CASE("A file goes up by curl as bytes or as a form, and comes down unchanged") {
  NEEDS_SERVER();
  auto& server = shared_server();
  auto [made, vm] = server.post("/api/vms", {{"vm_name", "courier"}});
  INFO(vm.dump());
  REQUIRE(made == 201);
  server_home files;
  std::string sent;
  for (unsigned i = 0; i < 300'000; ++i)
    sent += static_cast<char>((i * 7919U >> 3) & 0xff);
  write_file(files.path() + "/sent", sent);
  auto raw = server.curl("/api/vms/courier/upload?path=a/raw.bin",
                         {"-H", "content-type: application/octet-stream", "--data-binary",
                          "@" + files.path() + "/sent"});
  INFO(raw.second);
  CHECK(raw.first == 200);
  auto form = server.curl("/api/vms/courier/upload",
                          {"-F", "path=a/form.bin", "-F", "file=@" + files.path() + "/sent"});
  INFO(form.second);
  CHECK(form.first == 200);
  for (const char* path : {"a/raw.bin", "a/form.bin"}) {
    CAPTURE(path);
    std::string to = files.path() + "/received";
    auto down = server.curl(std::string{"/api/vms/courier/download?path="} + path, {"-o", to});
    CHECK(down.first == 200);
    CHECK((content_of(to) == sent));
  }
  CHECK(server.curl("/api/vms/courier/download?path=none").first == 404);
  CHECK(server.curl("/api/vms/courier", {"-X", "DELETE"}).first == 200);
}

TEST_CASE("A bad body is 400 and names the member; unknown paths and methods are told apart") {
  NEEDS_SERVER();
  auto& server = shared_server();
  json good{{"agent_id", "web"}, {"language", "python"}, {"code", "print(1)"}};
  const std::vector<std::pair<std::string, json>> wrong{
      {"code", 5}, {"language", 5}, {"timeout_ms", -1}, {"args", "text"}};
  for (const auto& [member, value] : wrong) {
    json body = good;
    body[member] = value;
    auto [status, answer] = server.post("/api/llm/execute", body);
    INFO(answer.dump());
    CHECK(status == 400);
    CHECK(answer["message"].get<std::string>().find(member) != std::string::npos);
    CHECK(answer["code"] == "malformed");
  }
  json body = good;
  body.erase("code");
  auto [missing, told] = server.post("/api/llm/execute", body);
  CHECK(missing == 400);
  CHECK(told["message"].get<std::string>().find("code") != std::string::npos);
  for (const char* text : {"", "{", "[1]", "{\"code\": \"\xff\"}", "nul"}) {
    CAPTURE(text);
    CHECK(
        server.curl("/api/llm/execute", {"-H", "content-type: application/json", "-d", text}).first
        == 400);
  }
  CHECK(server.curl("/no/such/path").first == 404);
  CHECK(server.curl("/api/llm/execute").first == 405);
  CHECK(server.curl("/health").first == 200);
}
