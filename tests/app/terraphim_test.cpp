// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/model_server.hpp"
#include "tests/support/skip.hpp"

#include <filesystem>

using namespace berth::test;
using nlohmann::json;

namespace {

/// A server whose only model is a scripted one.
class agency {
public:
  explicit agency(const char* script)
    : model(json::parse(script))
    , serving(home_, {{"models", json::array({{{"provider", "ollama"},
                                               {"base_url", model.url()},
                                               {"model", "scripted"}}})}}) {}

private:
  server_home home_;

public:
  model_server model;
  server serving;

  json chat(const json& body) const {
    auto [status, answer] = serving.post("/chat", body);
    INFO(answer.dump());
    REQUIRE(status == 200);
    return answer;
  }

  json say(const std::string& text, const std::string& role = "DevelopmentAgent") const {
    return chat(
        {{"role", role}, {"messages", json::array({{{"role", "user"}, {"content", text}}})}});
  }
};

/// Fails the test where a script of web_client.py failed, and shows what it said.
void require_script(const server& serving, const std::string& script) {
  auto done = execute({"/usr/bin/python3", "-c", "from web_client import *\n" + script}, {},
                      {{"BERTH_HTTP", serving.http()},
                       {"PYTHONPATH", BERTH_SOURCE_DIR "/tests/app"},
                       {"PYTHONDONTWRITEBYTECODE", "1"}});
  INFO(done.out << done.err);
  REQUIRE(done.code == 0);
}

bool contains(const json& text, const std::string& part) {
  return text.is_string() && text.get<std::string>().find(part) != std::string::npos;
}

/// A model that runs a program once and says what it gave.
constexpr const char* one_call = R"json({
  "rules": [
    {"when": {"role": "tool"}, "reply": {"text": "It gave {{tool}}"}},
    {"when": {"tools": true},
     "reply": {"tool_calls": [{"name": "execute_code",
                               "arguments": {"language": "python",
                                             "code": "print(6 * 7, flush=True)"}}]}}],
  "default": {"text": "{{last}}"}
})json";

} // namespace

TEST_CASE("The upstream script for chat with VM execution finds what it looks for") {
  NEEDS_SERVER();
  agency all{R"({"default": {"text": "Certainly. Here is what I think of it."}})"};
  json hello = all.say("Execute this Python code:\n\n```python\nprint('Hello from VM!')\n"
                       "print('2 + 2 =', 2 + 2)\n```");
  INFO(hello.dump());
  CHECK(contains(hello["message"], "--- VM Execution Results ---"));
  CHECK(contains(hello["message"], "Hello from VM!\n2 + 2 = 4"));
  CHECK(hello["status"] == "success");
  CHECK(contains(hello["model_used"], "scripted"));
  json failed = all.say("Run this:\n\n```python\nraise ValueError('Test error')\n```");
  INFO(failed.dump());
  CHECK(contains(failed["message"], "VM Execution"));
  CHECK(contains(failed["message"], "ValueError: Test error"));
  CHECK(contains(failed["message"], "error"));
  json bash = all.say("Execute:\n\n```bash\necho 'Test from bash'\ndate\n```");
  CHECK(contains(bash["message"], "VM Execution Results"));
  CHECK(contains(bash["message"], "Test from bash"));
  json other =
      all.say("Execute:\n\n```python\nprint('Should not execute')\n```", "DataScientistAgent");
  INFO(other.dump());
  CHECK(other["status"] == "success");
  CHECK(!contains(other["message"], "VM Execution Results"));
  CHECK(all.say("hello", "Nobody")["error"] == "Role 'Nobody' not found");
}

TEST_CASE("A conversation keeps its machine from chat to chat, over HTTP") {
  NEEDS_SERVER();
  agency all{R"({"default": {"text": "{{last}}"}})"};
  auto turn = [&](const std::string& text) {
    return all.chat({{"conversation_id", "mine"},
                     {"messages", json::array({{{"role", "user"}, {"content", text}}})}});
  };
  json first = turn("Run this:\n```bash\necho Turn 1 data > /tmp/state.txt\n```");
  json second =
      turn("Run this:\n```bash\necho Turn 2 data >> /tmp/state.txt; cat /tmp/state.txt\n```");
  INFO(first.dump() << second.dump());
  CHECK(contains(second["results"], "Turn 1 data\nTurn 2 data"));
  CHECK(first["session_id"] == second["session_id"]);
  CHECK(second["conversation_id"] == "mine");
  auto [status, text] = all.serving.curl("/conversations/mine");
  CHECK(status == 200);
  CHECK(json::parse(text)["turns"] == 2);
  CHECK(all.serving.curl("/conversations/mine", {"-X", "DELETE"}).first == 200);
  CHECK(all.serving.curl("/conversations/mine").first == 404);
}

TEST_CASE("curl sees tokens, tool calls and program output of a chat as they happen") {
  NEEDS_SERVER();
  agency all{one_call};
  require_script(all.serving, R"py(
events = Events("/chat/stream", {"role": "DevelopmentAgent", "message": "What is 6 times 7?"})
assert events.status == 200 and events.headers["content-type"] == "text/event-stream"
seen = list(events)
names = [name for name, _ in seen]
wanted = ["tool_call", "code", "output", "code_ended", "tool_result", "token", "ended"]
places = [names.index(name) for name in wanted]
assert places == sorted(places), names
assert any("42" in data["text"] for name, data in seen if name == "output"), seen
reply = seen[-1][1]
assert reply["status"] == "success" and "It gave" in reply["text"], reply
assert "42" in reply["message"], reply
said = "".join(data["text"] for name, data in seen if name == "token")
assert said.endswith(reply["text"]), (said, reply)
)py");
  auto streamed = all.serving.curl(
      "/chat", {"-N", "-H", "Accept: text/event-stream", "-d", R"({"message": "And 6 times 7?"})"});
  CHECK(streamed.first == 200);
  CHECK(streamed.second.find("event: ended\ndata: {") != std::string::npos);
}

TEST_CASE("A client that leaves its stream ends the turn and the call of the model") {
  NEEDS_SERVER();
  agency all{R"({"default": {"text": "on and on ", "endless": true, "delay_ms": 5}})"};
  require_script(all.serving, R"py(
for path, start in (("/chat/stream", None), ("/ws", "chat")):
    turn = {"message": "Tell me all", "conversation_id": "left-" + path[1:].replace("/", "-")}
    if start is None:
        events = Events(path, turn)
        for name, data in events:
            if name == "token":
                break
        events.close()
    else:
        socket = WebSocket(path)
        socket.send({"command_type": "chat", "data": turn})
        socket.until("token")
        socket.close()
    at = "/conversations/" + turn["conversation_id"]
    until(lambda: not get(at)["busy"], "the turn is over")
)py");
  CHECK(eventually([&] { return all.model.state()["open"] == 0; }));
}

TEST_CASE("A client that leaves while its chat waits ends nobody else's turn") {
  NEEDS_SERVER();
  agency all{R"({"default": {"text": "Still here.", "first_delay_ms": 1500}})"};
  require_script(all.serving, R"py(
mine = Events("/chat/stream", {"message": "Mine", "conversation_id": "shared", "turn_id": "a"})
for name, data in mine:
    if name == "started":
        break
other = Events("/chat/stream", {"message": "Other", "conversation_id": "shared", "turn_id": "b"})
other.close()
name, reply = list(mine)[-1]
assert name == "ended" and reply["text"] == "Still here.", reply
assert reply["turn_id"] == "a" and reply["error"] is None, reply
until(lambda: not get("/conversations/shared")["busy"], "the other one's chat is over")
)py");
}

TEST_CASE("Each workflow runs by its routes, with status, trace and events") {
  NEEDS_SERVER();
  agency all{R"({"default": {"text": "A good answer. Score: 9/10"}})"};
  require_script(all.serving, R"py(
patterns = {"prompt-chain": "prompt_chaining", "routing": "routing",
            "parallel": "parallelization", "orchestration": "orchestration",
            "optimize": "optimization", "vm-execution-demo": "vm_execution"}
for name, pattern in patterns.items():
    answer = post("/api/workflows/" + name + "/",
                  {"prompt": "a task", "overall_role": "engineering_agent"})
    assert answer["success"], answer
    assert answer["result"]["pattern"] == pattern, answer
    at = "/workflows/" + answer["workflow_id"]
    status = get(at + "/status")
    assert status["status"] == "completed" and status["progress"] == 100, status
    assert get(at + "/trace")["steps"], at
    seen = list(Events(at + "/events"))
    names = [kind for kind, _ in seen]
    assert names[0] == "started" and names[-1] == "ended", names
    assert names.count("step_started") == names.count("step_ended") > 0, names
    assert seen[-1][1]["result"] == answer["result"], seen[-1]
listed = get("/workflows")
assert len(listed) == len(patterns), listed
status, _, answer = call("/workflows/parallel", {"prompt": "a task", "role": "test_role"}, "POST")
assert status == 200, answer
status, _, answer = call("/workflows/none/status")
assert status == 404 and answer["status"] == "error", answer
)py");
}

TEST_CASE("A socket starts, follows, pauses, resumes and stops a workflow, and runs a program") {
  NEEDS_SERVER();
  agency all{R"({
    "rules": [{"when": {"any": "held task"}, "reply": {"text": "late", "hold": "gate"}}],
    "default": {"text": "at once"}})"};
  require_script(all.serving, R"py(
socket = WebSocket()
hello = socket.receive()
assert hello["response_type"] == "connection_established", hello
steps = [{"id": "one", "prompt": "first"}, {"id": "two", "prompt": "second"}]
socket.send({"command_type": "execute_workflow",
             "data": {"type": "prompt-chain", "prompt": "a task", "steps": steps}})
seen = socket.until("workflow_completed")
kinds = [each["response_type"] for each in seen]
assert kinds[0] == "workflow_started" and kinds.count("agent_update") == 4, kinds
progress = [each["data"]["progress"] for each in seen
            if each["response_type"] == "workflow_progress"]
assert progress == sorted(progress), progress
assert any(each["data"].get("output") == "at once" for each in seen), seen
ids = {each[name] for each in seen for name in ("workflowId", "workflow_id", "sessionId")}
assert len(ids) == 1, ids

socket.send({"command_type": "execute_workflow",
             "data": {"type": "prompt-chain", "prompt": "held task"}})
held = socket.until("workflow_started")[-1]["workflow_id"]
for command, told in (("pause_workflow", "workflow_paused"),
                      ("resume_workflow", "workflow_resumed"),
                      ("get_workflow_status", "workflow_status")):
    socket.send({"command_type": command, "workflow_id": held})
    answer = socket.until(told)[-1]
    assert answer["success"] and answer["workflow_id"] == held, answer
socket.send({"command_type": "list_active_workflows"})
active = socket.until("active_workflows_list")[-1]["data"]
assert [each["id"] for each in active["active_workflows"]] == [held], active
socket.send({"command_type": "stop_workflow", "session_id": held})
ended = socket.until("workflow_error")[-1]
assert ended["data"]["status"] == "cancelled", ended

socket.send({"command_type": "execute_code", "session_id": "s", "workflow_id": "x1",
             "data": {"language": "python", "code": "print('one'); print('two')"
}
})
seen = socket.until("execution_complete")
assert "".join(each["data"].get("stdout", "") for each in seen[:-1]) == "one\ntwo\n", seen
assert seen[-1]["data"]["exit_code"] == 0 and seen[-1]["data"]["execution_id"] == "x1", seen
)py");
}

TEST_CASE("The configuration of roles is read, edited and kept whole over HTTP") {
  NEEDS_SERVER();
  agency all{"{}"};
  require_script(all.serving, R"py(
config = get("/config")["config"]
assert len(config["roles"]) == 26, list(config["roles"])
assert get("/config/schema")["properties"], "schema"
name = next(each for each, role in config["roles"].items() if role["name"] == "QAEngineer")
config["roles"][name]["extra"]["system_prompt"] = "Look twice."
config["roles"][name]["extra"]["of_ours"] = {"kept": [1]}
assert post("/config", config)["status"] == "success"
again = get("/config")["config"]["roles"][name]
assert again["extra"]["system_prompt"] == "Look twice.", again
assert again["extra"]["of_ours"] == {"kept": [1]}, again
config["roles"][name]["relevance_function"] = "astrology"
status, _, told = call("/config", config, "POST")
assert status == 400 and told["category"] == "validation", told
assert "relevance_function" in told["message"], told
assert post("/config/selected_role", {"selected_role": "QAEngineer"})["status"] == "success"
assert get("/roles")["selected_role"] == "QAEngineer"
status, _, told = call("/config/selected_role", {"selected_role": "Nobody"}, "POST")
assert status == 404, told
)py");
}

TEST_CASE("The calls of the web applications' JavaScript client are all served") {
  NEEDS_SERVER();
  std::vector<std::string> node{"/usr/bin/node"};
  auto has_client = [](std::vector<std::string> command) {
    command.insert(command.end(), {"-e", "process.exit(globalThis.WebSocket ? 0 : 1)"});
    return execute(std::move(command)).code == 0;
  };
  if (!has_client(node))
    node.push_back("--experimental-websocket");
  if (!has_client(node))
    return skip("no node with a WebSocket of its own");
  agency all{R"({
    "models": ["scripted"],
    "rules": [{"when": {"any": "Hold on"}, "reply": {"text": "late", "first_delay_ms": 300}}],
    "default": {"text": "A good answer. Score: 9/10"}})"};
  node.insert(node.end(), {BERTH_SOURCE_DIR "/tests/app/web_app.mjs", all.serving.http()});
  auto done = execute(std::move(node));
  INFO(done.err << done.out);
  CHECK(done.code == 0);
  CHECK(done.out == "all done\n");
}

TEST_CASE("The web applications' client works in a browser, from a page of another origin") {
  NEEDS_SERVER();
  std::string browser = "/usr/bin/chromium";
  if (!std::filesystem::exists(browser))
    return skip("no chromium");
  agency all{R"({
    "rules": [{"when": {"any": "Hold on"}, "reply": {"text": "late", "first_delay_ms": 300}}],
    "default": {"text": "A good answer. Score: 9/10"}})"};
  auto done = execute({"/usr/bin/python3", BERTH_SOURCE_DIR "/tests/app/in_browser.py", browser,
                       BERTH_SOURCE_DIR "/tests/app/web_app.mjs", all.serving.http()});
  INFO(done.err << done.out);
  CHECK(done.code == 0);
  CHECK(done.out == "all done\n");
}

TEST_CASE("The Terraphim port says OK, and is told at the start") {
  NEEDS_SERVER();
  // A port that was free a moment ago.
  server_home first_home;
  std::string port;
  {
    server first{first_home};
    port = first.http().substr(first.http().rfind(':') + 1);
  }
  server_home home;
  server serving{home, {{"http_terraphim_port", std::stoi(port)}}};
  std::string at = "http://127.0.0.1:" + port;
  CHECK(serving.program().out().find("terraphim " + at) != std::string::npos);
  CHECK(execute({"curl", "-s", at + "/health"}).out == "OK");
  auto told = execute({"curl", "-s", "-H", "Accept: application/json", at + "/health"}).out;
  CHECK(json::parse(told)["status"] == "ok");
  server_home other_home;
  write_file(other_home.path() + "/berth.json", json{{"data_dir", other_home.path() + "/data"},
                                                     {"runtime_dir", other_home.runtime_dir()},
                                                     {"zmq_router", "tcp://127.0.0.1:*"},
                                                     {"zmq_events", "tcp://127.0.0.1:*"},
                                                     {"http_port", 0},
                                                     {"http_terraphim_port", std::stoi(port)},
                                                     {"pool", {{"slots_max", 32}}}}
                                                    .dump());
  auto refused =
      execute({BERTH_BUILD_DIR "/berth", "serve", "--config", other_home.path() + "/berth.json"});
  CHECK(refused.code == 1);
  CHECK(refused.err.find("http_terraphim_port") != std::string::npos);
}
