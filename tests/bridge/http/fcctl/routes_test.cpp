// SPDX-License-Identifier: Apache-2.0
#include "tests/bridge/http/support.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::test;

namespace {

answer execute(http_house& house, const json& body) {
  return ask(house.port(), "POST", "/api/llm/execute", body.dump());
}

run last_run(http_house& house) {
  return house.answers.with([](script& s) { return s.runs.back(); });
}

} // namespace

TEST_CASE("Every client's execute request is understood", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a")};
  json agent{{"agent_id", "a"},        {"language", "python"},   {"code", "print(1)"},
             {"vm_id", nullptr},       {"requirements", {"x"}},  {"timeout_seconds", 30},
             {"working_dir", nullptr}, {"metadata", {{"k", 1}}}, {"unknown", {1}}};
  answer got = execute(house, agent);
  REQUIRE(got.status == 200);
  json body = got.tree();
  CHECK(body["execution_id"] == "3f2c");
  CHECK(body["vm_id"] == "vm-9");
  CHECK(body["exit_code"] == 0);
  CHECK(body["stdout"] == "out");
  CHECK(body["stderr"] == "err");
  CHECK(body["duration_ms"] == 12);
  CHECK(body["execution_time_ms"] == 12);
  CHECK(body["started_at"] == "2023-11-14T22:13:20.123Z");
  CHECK(body["completed_at"] == "2023-11-14T22:13:20.456Z");
  CHECK(body["error"].is_null());
  CHECK(body["agent_id"] == "a");
  CHECK(body["language"] == "python");
  CHECK(body["metadata"] == json{{"k", 1}});
  CHECK(body["warnings"].size() == 1);
  CHECK(*last_run(house).timeout_ms == 29'500);
  CHECK(!last_run(house).one_shot);
  CHECK(last_run(house).metadata.at("k") == "1");

  CHECK(execute(house, {{"code", "x"},
                        {"language", "bash"},
                        {"agent_id", "tui-user"},
                        {"vm_id", "vm-1"},
                        {"timeout_ms", 15'000},
                        {"working_dir", "/w"}})
            .status
        == 200);
  CHECK(last_run(house).session == "vm-1");
  CHECK(last_run(house).cwd == "/w");
  CHECK(*last_run(house).timeout_ms == 14'700);
  CHECK(execute(house,
                {{"code", "x"}, {"language", "bash"}, {"timeout_ms", 1}, {"timeout_seconds", 2}})
            .status
        == 200);
  CHECK(*last_run(house).timeout_ms == 1'960);
  CHECK(last_run(house).one_shot);
}

TEST_CASE("A request that cannot be understood names the member", "[http][fcctl]") {
  http_house house;
  auto refused = [&](const json& body) {
    answer got = execute(house, body);
    CHECK(got.status == 400);
    CHECK(got.tree()["error"] == got.tree()["message"]);
    return got.tree()["error"].get<std::string>();
  };
  CHECK(refused({{"language", "python"}}) == "code: is missing");
  CHECK(refused({{"code", nullptr}, {"language", "python"}}) == "code: is missing");
  CHECK(refused({{"code", "x"}, {"language", "python"}, {"timeout_ms", -1}})
        == "timeout_ms: must not be negative");
  CHECK(refused({{"code", "x"}, {"language", "python"}, {"vm_id", 7}})
        == "vm_id: must be text, is a whole number");
  answer got = ask(house.port(), "POST", "/api/llm/execute", "{\"code\":");
  CHECK(got.status == 400);
  CHECK(got.tree()["code"] == "malformed");
  CHECK(ask(house.port(), "POST", "/api/llm/execute", std::string(100'000, '[')).status == 400);
  CHECK(execute(house, {{"code", "x"}, {"language", "python"}, {"vm_id", "vm-unknown"}}).status
        == 404);
}

TEST_CASE("Each end of a job is told as its clients expect", "[http][fcctl]") {
  http_house house;
  auto end = [&](job_state state, maybe<std::int32_t> code = {}, maybe<std::uint32_t> signal = {}) {
    house.answers.with([&](script& s) {
      s.on_run = [=](const run& x) -> expected<outcome> {
        outcome made = make_outcome(x);
        made.state = state;
        made.exit_code = code;
        made.signal = signal;
        if (state == job_state::blocked)
          made.verdict = {.decision = decision::block,
                          .reasons = {"Code contains potentially dangerous pattern: rm\\s+-rf"}};
        return made;
      };
    });
    answer got = execute(house, {{"code", "x"}, {"language", "python"}});
    CHECK(got.status == (state == job_state::blocked ? 400 : 200));
    return got.tree();
  };
  CHECK(end(job_state::exited, 3)["exit_code"] == 3);
  CHECK(end(job_state::signalled, {}, 11)["exit_code"] == 139);
  json late = end(job_state::timed_out);
  CHECK(late["exit_code"] == 124);
  CHECK(late["stdout"] == "out");
  CHECK(late["error"] == "Execution timeout after 12ms");
  CHECK(end(job_state::out_of_memory)["exit_code"] == 137);
  CHECK(end(job_state::machine_lost)["exit_code"] == 255);
  json blocked = end(job_state::blocked);
  CHECK(blocked["blocked"] == true);
  CHECK(blocked["error"]
        == "Code validation failed: Code contains potentially dangerous pattern: rm\\s+-rf");
  CHECK(blocked["status"] == "error");
}

TEST_CASE("Every refusal of the gateway has its status", "[http][fcctl]") {
  http_house house;
  for (auto [code, status] : {std::pair{ec::malformed, 400},
                              {ec::unsupported, 400},
                              {ec::rejected, 400},
                              {ec::unauthorized, 401},
                              {ec::not_found, 404},
                              {ec::conflict, 409},
                              {ec::already_exists, 409},
                              {ec::too_large, 413},
                              {ec::no_capacity, 429},
                              {ec::store_failed, 500},
                              {ec::internal, 500},
                              {ec::machine_failed, 503},
                              {ec::shutting_down, 503},
                              {ec::isolation_unavailable, 503},
                              {ec::deadline, 504}}) {
    house.answers.with([c = code](script& s) {
      s.on_run = [c](const run&) -> expected<outcome> { return fail(c, "why"); };
    });
    answer got = execute(house, {{"code", "x"}, {"language", "python"}});
    CHECK(got.status == status);
    CHECK(got.tree()["code"] == std::string{name_of(code)});
    CHECK(got.headers.count("Retry-After") == (status == 429 || status == 503 ? 1U : 0U));
  }
}

TEST_CASE("Output that is not UTF-8 is text with marks, and whole beside it", "[http][fcctl]") {
  http_house house;
  house.answers.on_run = [](const run& x) -> expected<outcome> {
    outcome made = make_outcome(x);
    made.stdout_data = {'a', '\xFF'};
    return made;
  };
  json body = execute(house, {{"code", "x"}, {"language", "python"}}).tree();
  CHECK(body["stdout"] == "a\xEF\xBF\xBD");
  CHECK(body["stdout_base64"] == "Yf8=");
}

TEST_CASE("A model's answer is parsed, and run only when asked and likely", "[http][fcctl]") {
  http_house house;
  json body{{"agent_id", "a"},
            {"llm_response",
             "Run this:\n```py\nimport os\nprint(1)\n```\nand\n```java\nclass A {}\n```\n"},
            {"auto_execute", false},
            {"auto_execute_threshold", 0.3},
            {"vm_config", nullptr}};
  json quiet = ask(house.port(), "POST", "/api/llm/parse-execute", body.dump()).tree();
  REQUIRE(quiet["code_blocks"].size() == 2);
  CHECK(quiet["code_blocks"][0]["language"] == "python");
  CHECK(quiet["execution_results"].empty());
  CHECK(quiet["execution_intent"]["confidence"].is_number());
  body["auto_execute"] = true;
  json ran = ask(house.port(), "POST", "/api/llm/parse-execute", body.dump()).tree();
  REQUIRE(ran["execution_results"].size() == 1);
  CHECK(ran["execution_results"][0]["stdout"] == "out");
  CHECK(ran["errors"][0] == "Language not supported: java");
  CHECK(last_run(house).code == "import os\nprint(1)");
  CHECK(ask(house.port(), "POST", "/api/llm/parse-execute", "{}").status == 400);
}

TEST_CASE("Machines are made, found, measured and deleted", "[http][fcctl]") {
  http_house house;
  auto port = house.port();
  answer made = ask(port, "POST", "/api/vms", R"({"vm_type":"focal","vm_name":"agent-7-vm"})");
  CHECK(made.status == 201);
  std::string id = made.tree()["id"];
  CHECK(made.tree()["name"] == "agent-7-vm");
  CHECK(house.answers.with([](script& s) { return s.opened.back().agent_id; }) == "7");
  answer again = ask(port, "POST", "/api/vms", R"({"vm_type":"focal","vm_name":"agent-7-vm"})");
  CHECK(again.status == 201);
  json one = ask(port, "GET", "/api/vms/" + id).tree();
  CHECK(one["status"] == "running");
  CHECK(one["ip_address"].get<std::string>().rfind("172.26.0.", 0) == 0);
  CHECK(one["vm_id"] == id);
  json all = ask(port, "GET", "/api/vms").tree();
  CHECK(all["total"] == 2);
  CHECK(json::parse(all["vms"][0]["config"].get<std::string>())["memory_mb"] == 512);
  json measured = ask(port, "GET", "/api/vms/" + id + "/metrics").tree();
  CHECK(measured["cpu_usage_percent"] == 50.0);
  CHECK(measured["memory_usage_mb"] == 64);
  CHECK(measured["disk_usage_percent"] == 10.0);
  CHECK(ask(port, "GET", "/api/vms/metrics").tree().size() == 2);
  CHECK(ask(port, "GET", "/api/vms/" + id + "/tasks").tree()["total"] == 2);
  json past = ask(port, "GET", "/api/vms/" + id + "/history?limit=5&failures_only=false").tree();
  CHECK(past["history"] == past["entries"]);
  for (const char* member :
       {"id", "vm_id", "agent_id", "command", "language", "success", "exit_code", "stdout",
        "stderr", "executed_at", "duration_ms", "timestamp", "snapshotId"})
    CHECK(past["history"][0].contains(member));
  CHECK(ask(port, "GET", "/api/vms/" + id + "/history?limit=x").status == 400);
  CHECK(ask(port, "GET", "/api/vms/no/history").status == 404);
  CHECK(ask(port, "DELETE", "/api/vms/" + id).status == 200);
  CHECK(ask(port, "DELETE", "/api/vms/" + id).status == 404);
  CHECK(ask(port, "GET", "/api/vms/" + id).status == 404);
}

TEST_CASE("The pool is told with the whole configuration in force", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a"), make_session("2", "b")};
  auto port = house.port();
  json pool = ask(port, "GET", "/api/llm/vm-pool/a").tree();
  CHECK(pool["available_vms"].size() == 1);
  CHECK(pool["in_use_vms"].empty());
  CHECK(pool["auto_provision"] == true);
  for (const char* member :
       {"enabled", "api_base_url", "vm_pool_size", "default_vm_type", "execution_timeout_ms",
        "allowed_languages", "auto_provision", "code_validation", "max_code_length", "history"})
    CHECK(pool["pool_config"].contains(member));
  CHECK(ask(port, "POST", "/api/llm/provision/a").tree()["id"] == "vm-1");
  CHECK(ask(port, "POST", "/api/llm/provision/c").status == 201);
  for (const char* path : {"/api/vm-pool", "/api/vm-pool/list"})
    CHECK(ask(port, "GET", path).tree()["vms"].size() == 3);
  json stats = ask(port, "GET", "/api/vm-pool/stats").tree();
  CHECK(stats["total_ips"] == 253);
  CHECK(stats["utilization_percent"].is_number_unsigned());
  json given = ask(port, "POST", "/api/vm-pool/allocate", R"({"vm_id":"vm-2"})").tree();
  CHECK(given["ip_address"].is_string());
  CHECK(ask(port, "POST", "/api/vm-pool/allocate", "{}").status == 400);
  CHECK(ask(port, "POST", "/api/vm-pool/release/vm-2").status == 200);
}

TEST_CASE("An agent's task runs its fences, else itself as a command", "[http][fcctl]") {
  http_house house;
  json done = ask(house.port(), "POST", "/api/vm/agent/execute",
                  R"({"agent_id":"a","task":"ls -l","timeout_ms":60000})")
                  .tree();
  CHECK(done["status"] == "completed");
  CHECK(done["result"] == "outerr");
  CHECK(last_run(house).language == "bash");
  ask(house.port(), "POST", "/api/vm/agent/execute",
      R"({"agent_id":"a","task":"```js\nlet a\n```"})");
  CHECK(last_run(house).language == "javascript");
}

TEST_CASE("Files go in in three forms and come out whole", "[http][fcctl]") {
  http_house house;
  auto port = house.port();
  CHECK(ask(port, "POST", "/api/vms/vm-1/upload?path=a&mode=755", "raw\xFF").status == 200);
  CHECK(house.answers.with([](script& s) { return s.puts.back().files[0].mode; }) == 0755);
  CHECK(ask(port, "POST", "/api/vms/vm-1/upload", R"({"path":"b","content_base64":"_w=="})").status
        == 200);
  answer form = ask(port, "POST", "/api/vms/vm-1/upload",
                    "--X\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\nd/\r\n"
                    "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"c\"\r\n\r\n"
                    "1\r\n2\r\n--X--\r\n",
                    "Content-Type: multipart/form-data; boundary=X\r\n");
  CHECK(form.status == 200);
  CHECK(form.tree()["path"] == "d/c");
  house.answers.with([](script& s) {
    CHECK(s.files["a"] == "raw\xFF");
    CHECK(s.files["b"] == "\xFF");
    CHECK(s.files["d/c"] == "1\r\n2");
    s.files["large"] = std::string(2'500'000, 'x') + "end";
  });
  CHECK(ask(port, "GET", "/api/vms/vm-1/download?path=a").body == "raw\xFF");
  answer large = ask(port, "GET", "/api/vms/vm-1/download?path=large");
  CHECK(large.headers["Transfer-Encoding"] == "chunked");
  CHECK(large.body == std::string(2'500'000, 'x') + "end");
  CHECK(ask(port, "GET", "/api/vms/vm-1/download?path=no").status == 404);
  CHECK(ask(port, "GET", "/api/vms/vm-1/download").status == 400);
  CHECK(ask(port, "POST", "/api/vms/vm-1/upload", "x").status == 400);
}

TEST_CASE("A machine is saved and taken back by the clients' own calls", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a")};
  auto port = house.port();
  std::string asked = R"({"name":"agent-a-17","description":"Auto-created snapshot for agent a"})";
  answer made = ask(port, "POST", "/api/vms/vm-1/snapshots", asked);
  CHECK(made.status == 201);
  json one = made.tree();
  std::string id = one["snapshot_id"];
  CHECK(one["id"] == id);
  CHECK(one["snapshotId"] == id);
  CHECK(one["vm_id"] == "vm-1");
  CHECK(one["name"] == "agent-a-17");
  CHECK(one["description"] == "Auto-created snapshot for agent a");
  CHECK(one["size_mb"] == 1.5);
  CHECK(one["created_at"] == "2023-11-14T22:13:20.789Z");
  CHECK(ask(port, "POST", "/api/vms/vm-1/snapshots").status == 201);
  CHECK(ask(port, "GET", "/api/vms/vm-1/snapshots").tree()["snapshots"].size() == 2);
  // No body, and so no content type either.
  answer back = ask(port, "POST", "/api/vms/vm-1/rollback/" + id);
  CHECK(back.status == 200);
  CHECK(back.tree()["message"] == "VM rolled back successfully");
  CHECK(back.tree()["snapshot_id"] == id);
  CHECK(back.tree()["vm_id"] == "vm-1");
  json past = ask(port, "GET", "/api/vms/vm-1/history").tree();
  CHECK(past["history"][0]["snapshot_id"] == id);
  CHECK(past["entries"][0]["snapshotId"] == id);
  CHECK(ask(port, "DELETE", "/api/vms/vm-1/snapshots/" + id).status == 200);
  for (const char* path :
       {"/api/vms/vm-1/rollback/none", "/api/vms/vm-9/rollback/none", "/api/vms/vm-9/snapshots"}) {
    CAPTURE(path);
    answer refused = ask(port, "POST", path);
    CHECK(refused.status == 404);
    CHECK(refused.tree()["error"] == refused.tree()["message"]);
  }
  CHECK(ask(port, "GET", "/api/vms/vm-9/snapshots").status == 404);
  CHECK(ask(port, "POST", "/api/vms/vm-1/snapshots", R"({"name":1})").status == 400);
}

TEST_CASE("A closed machine's snapshots can still be listed", "[http][fcctl]") {
  http_house house;
  house.answers.snapshots = {make_snapshot(make_session("1", "a"), "kept")};
  json all = ask(house.port(), "GET", "/api/vms/vm-1/snapshots").tree();
  CHECK(all["snapshots"][0]["snapshot_id"] == "kept");
}

TEST_CASE("A session lives from its making to its end under its client's name", "[http][fcctl]") {
  http_house house;
  house.answers.on_run = [](const run& job) -> expected<outcome> {
    outcome ended = make_outcome(job);
    ended.exit_code = job.code == "no-such-command" ? 127 : 0;
    return ended;
  };
  auto port = house.port();
  std::string wish =
      R"({"name":"agent-a-17","vm_type":"focal-optimized","memory_mb":2048,"vcpus":2})";
  CHECK(ask(port, "POST", "/sessions", wish).status == 201);
  CHECK(ask(port, "POST", "/sessions", wish).status == 200);
  CHECK(house.answers.with([](script& s) { return s.sessions.size(); }) == 1);
  json ran = ask(port, "POST", "/sessions/agent-a-17/execute", R"({"command":"echo hi"})").tree();
  CHECK(ran["output"] == "outerr");
  CHECK(ran["exit_code"] == 0);
  CHECK(last_run(house).language == "bash");
  CHECK(last_run(house).session == "agent-a-17");
  ran =
      ask(port, "POST", "/sessions/agent-a-17/execute", R"({"command":"no-such-command"})").tree();
  CHECK(ran["exit_code"] == 127);
  json saved =
      ask(port, "POST", "/sessions/agent-a-17/snapshots", R"({"name":"test-snapshot"})").tree();
  std::string id = saved["snapshot_id"];
  CHECK(id.find("test-snapshot") != std::string::npos);
  std::string back = R"({"snapshot_id":")" + id + R"("})";
  CHECK(ask(port, "POST", "/sessions/agent-a-17/rollback", back).status == 200);
  CHECK(ask(port, "POST", "/sessions/agent-a-17/rollback", "{}").status == 400);
  CHECK(ask(port, "POST", "/sessions/agent-a-17/rollback", R"({"snapshot_id":"x"})").status == 404);
  CHECK(!ask(port, "GET", "/sessions/agent-a-17/info").body.empty());
  CHECK(ask(port, "DELETE", "/sessions/agent-a-17").status == 200);
  CHECK(ask(port, "GET", "/sessions/agent-a-17/info").status == 404);
  CHECK(ask(port, "POST", "/sessions/agent-a-17/execute", R"({"command":"x"})").status == 404);
  CHECK(ask(port, "POST", "/sessions", "{}").status == 400);
}

TEST_CASE("A socket saves its machine and takes it back", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a")};
  raw_socket socket{house.port(), "/ws/vm-1"};
  auto asked = [&](const json& message) {
    socket.text(message.dump());
    return socket.message();
  };
  json made = asked({{"message_type", "CreateSnapshot"},
                     {"data", {{"name", "s"}, {"description", "d"}, {"agent_id", "a"}}}});
  CHECK(made["message_type"] == "SnapshotCreated");
  std::string id = made["data"]["snapshot_id"];
  json back = asked(
      {{"message_type", "RollbackToSnapshot"},
       {"data", {{"snapshot_id", id}, {"agent_id", "a"}, {"create_pre_rollback_snapshot", true}}}});
  CHECK(back["message_type"] == "RollbackComplete");
  CHECK(back["data"]["pre_rollback_snapshot_id"] == "before-1");
  CHECK(back["data"]["snapshotId"] == id);
  json past = asked({{"message_type", "QueryHistory"},
                     {"data", {{"agent_id", "a"}, {"limit", 5}, {"failures_only", false}}}});
  CHECK(past["message_type"] == "HistoryResponse");
  CHECK(past["data"]["history"][0]["snapshot_id"] == id);
  json no = asked({{"message_type", "RollbackToSnapshot"}, {"data", {{"snapshot_id", "none"}}}});
  CHECK(no["message_type"] == "LlmExecutionError");
  CHECK(no["data"]["code"] == "not_found");
  CHECK(asked({{"message_type", "RollbackToSnapshot"}})["data"]["error"]
        == "snapshot_id: is missing");
}

TEST_CASE("A socket runs many programs and sends their output as it comes", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a")};
  house.answers.pieces = {{'a', '\xE2'}, {'\x82'}, {'\xAC', 'b'}};
  raw_socket socket{house.port(), "/ws/vm-1"};
  std::string ask_run =
      R"({"message_type":"LlmExecuteCode","data":{"agent_id":"a","language":"python","code":"x","execution_id":"e1"}})";
  socket.frame(1, false, ask_run.substr(0, 30));
  socket.frame(9, true, "are you there");
  socket.frame(0, true, ask_run.substr(30));
  CHECK(socket.next() == std::pair{10, std::string{"are you there"}});
  std::string text;
  json last;
  while ((last = socket.message())["message_type"] == "LlmExecutionOutput") {
    CHECK(last["data"]["execution_id"] == "e1");
    text += last["data"]["content"];
  }
  CHECK(text
        == "a\xE2\x82\xAC"
           "b");
  CHECK(last["message_type"] == "LlmExecutionComplete");
  CHECK(last["data"]["stdout"] == text);
  CHECK(last["data"]["exit_code"] == 0);
  CHECK(last["data"]["executionId"] == "e1");
}

TEST_CASE("A socket cancels what it is asked to, and all when it closes", "[http][fcctl]") {
  http_house house;
  house.answers.sessions = {make_session("1", "a")};
  house.answers.endless = true;
  raw_socket socket{house.port(), "/ws/vm-1"};
  socket.text(
      R"({"message_type":"LlmExecuteCode","data":{"language":"python","code":"x","execution_id":"e"}})");
  socket.text(R"({"message_type":"Cancel","data":{"execution_id":"e"}})");
  json ended = socket.message();
  CHECK(ended["message_type"] == "LlmExecutionComplete");
  CHECK(ended["data"]["state"] == "cancelled");
  CHECK(ended["data"]["exit_code"] == 130);
}

TEST_CASE("A socket answers what it cannot do", "[http][fcctl]") {
  http_house house;
  raw_socket socket{house.port(), "/ws/vm-1"};
  auto refused = [&](const std::string& message) {
    socket.text(message);
    json got = socket.message();
    CHECK(got["message_type"] == "LlmExecutionError");
    return got["data"]["error"].get<std::string>();
  };
  CHECK(refused("{").find("not JSON") != std::string::npos);
  CHECK(refused("[]") == "message: must be a map");
  CHECK(refused("{}") == "message_type: is missing or no text");
  CHECK(refused(R"({"message_type":"X"})") == "message_type: unknown: X");
  CHECK(refused(R"({"message_type":"LlmExecuteCode","data":{}})") == "code: is missing");
  CHECK(refused(R"({"message_type":"LlmExecuteCode","data":{"code":"x","language":"python"}})")
            .find("no session")
        != std::string::npos);
  CHECK(refused(R"({"message_type":"CreateSnapshot","data":{"name":"x"}})").find("session: ") == 0);
  CHECK(refused(R"({"message_type":"Cancel","data":{"execution_id":"x"}})").find("no such") == 0);
  socket.frame(2, true, "x");
  CHECK(socket.message()["data"]["message"] == "Binary messages not supported");
  socket.text(
      R"({"message_type":"QueryHistory","data":{"agent_id":"a","limit":3,"failures_only":false}})");
  CHECK(socket.message()["message_type"] == "HistoryResponse");
}

TEST_CASE("A message larger than the limit ends the socket", "[http][fcctl]") {
  http_house house{{.socket_message_bytes_max = 1000}};
  raw_socket socket{house.port(), "/ws/vm-1"};
  socket.text(std::string(1001, 'x'));
  auto [opcode, data] = socket.next();
  CHECK((opcode == 8 || opcode == -1));
}
