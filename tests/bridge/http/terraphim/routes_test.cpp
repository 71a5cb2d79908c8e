// SPDX-License-Identifier: Apache-2.0
#include "tests/bridge/http/support.hpp"

#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <chrono>
#include <netinet/in.h>
#include <thread>
#include <unistd.h>

using namespace berth;
using namespace berth::test;

namespace {

const std::string accept_json = "Accept: application/json\r\n";
const std::string accept_any = "Accept: */*\r\n";
const std::string accept_stream = "Accept: text/event-stream\r\n";

/// A port that nobody listens on now.
std::uint16_t free_port() {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0);
  ::close(fd);
  return ntohs(at.sin_port);
}

template <class F>
bool eventually(F is_so) {
  auto limit = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > limit)
      return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
  }
  return true;
}

answer post(http_house& house, const std::string& target, const json& body,
            const std::string& headers = "") {
  return ask(house.port(), "POST", target, body.dump(), headers);
}

expected<chat_reply> echo(const chat& x) {
  return chat_reply{.conversation = x.conversation,
                    .role = x.role,
                    .text = "heard " + x.messages.back().content,
                    .results = "Executed python code (exit code: 0):\n42",
                    .model = "m",
                    .session = "s-1"};
}

/// Names of the events of a stream, in order, with the data of the last.
std::pair<std::vector<std::string>, json> events_of(const std::string& body) {
  std::vector<std::string> names;
  json last;
  for (std::size_t at = 0; (at = body.find("event: ", at)) != std::string::npos;) {
    std::size_t end = body.find('\n', at);
    names.push_back(body.substr(at + 7, end - at - 7));
    std::size_t data = body.find("data: ", end);
    last = json::parse(body.substr(data + 6, body.find('\n', data) - data - 6));
    at = data;
  }
  return {names, last};
}

progress_event event(const std::string& id, progress_kind kind, const std::string& text = "",
                     const std::string& step = "") {
  progress_event made{.id = id, .kind = kind};
  made.text = text;
  made.step = step;
  made.name = step;
  return made;
}

/// The event as one of the turn of a chat.
progress_event of_turn(const chat& of, progress_event made) {
  made.turn = of.turn;
  return made;
}

workflow_info completed(const std::string& id, workflow_pattern pattern) {
  workflow_info info{.workflow = id, .pattern = pattern};
  info.status = workflow_status::completed;
  info.progress = 100;
  info.result = "all done";
  return info;
}

/// Reads messages until one of a type comes, and gives it.
json until(raw_socket& socket, const std::string& type) {
  for (;;) {
    json message = socket.message();
    INFO(message.dump());
    REQUIRE(message.is_object());
    if (message["response_type"] == type)
      return message;
  }
}

} // namespace

TEST_CASE("Health is told by port and by what the client accepts", "[http][terraphim]") {
  std::uint16_t second = free_port();
  http_house house{{.terraphim_port = second}};
  CHECK(house.terraphim_port() == second);
  answer word = ask(second, "GET", "/health", "", accept_any);
  CHECK(word.status == 200);
  CHECK(word.body == "OK");
  CHECK(ask(second, "GET", "/health").body == "OK");
  json told = ask(second, "GET", "/health", "", accept_json).tree();
  CHECK(told["status"] == "ok");
  CHECK(told["version"].is_string());
  CHECK(told["capabilities"].is_array());
  json first = ask(house.port(), "GET", "/health", "", accept_any).tree();
  CHECK(first["status"] == "healthy");
  CHECK(first["service"] == "fcctl-web");
  CHECK(first["capabilities"].is_array());
  CHECK(first["models"].is_array());
  // Everything is served on both.
  CHECK(ask(second, "GET", "/api/vm-pool/stats").tree()["total_ips"] == 253);
  CHECK(ask(house.port(), "GET", "/config").status == 200);
}

TEST_CASE("A taken second port is an error that names its setting", "[http][terraphim]") {
  std::uint16_t second = free_port();
  http_house house{{.terraphim_port = second}};
  auto again = house.start_another({.terraphim_port = second});
  CHECK(to_refusal(again).detail.find("http_terraphim_port") != std::string::npos);
  CHECK(to_refusal(again).detail.find(std::to_string(second)) != std::string::npos);
}

TEST_CASE("Preflights are answered everywhere, with and without a trailing slash",
          "[http][terraphim]") {
  http_house house;
  for (const char* path : {"/chat", "/config", "/config/selected_role", "/workflows/prompt-chain",
                           "/workflows/parallel/", "/api/workflows/routing", "/nowhere"}) {
    answer got = ask(house.port(), "OPTIONS", path, "",
                     "Origin: http://elsewhere\r\nAccess-Control-Request-Method: POST\r\n"
                     "Access-Control-Request-Headers: content-type\r\n");
    CHECK(got.status == 204);
    CHECK(got.headers["Access-Control-Allow-Origin"] == "*");
    CHECK(got.headers["Access-Control-Allow-Methods"].find("POST") != std::string::npos);
    CHECK(got.headers["Access-Control-Allow-Headers"] == "content-type");
  }
  CHECK(ask(house.port(), "GET", "/config/").status == 200);
  CHECK(ask(house.port(), "GET", "/workflows/").status == 200);
}

TEST_CASE("The configuration is read, replaced whole, and refused whole", "[http][terraphim]") {
  http_house house;
  json got = ask(house.port(), "GET", "/config").tree();
  CHECK(got["status"] == "success");
  CHECK(got["config"]["roles"]["Default"]["name"] == "Default");
  json wish = got["config"];
  wish["roles"]["Default"]["extra"]["extra"]["kept"] = 1;
  CHECK(post(house, "/config", wish).tree()["config"] == wish);
  wish["roles"]["broken"] = 1;
  answer refused = post(house, "/config", wish);
  CHECK(refused.status == 400);
  CHECK(refused.tree()["status"] == "error");
  CHECK(refused.tree()["category"] == "validation");
  CHECK(refused.tree()["recoverable"] == false);
  CHECK(refused.tree()["message"] == "roles.broken: cannot be");
  CHECK(post(house, "/config/selected_role", {{"selected_role", "Default"}})
            .tree()["config"]["selected_role"]
        == "Default");
  CHECK(post(house, "/config/selected_role", {{"selected_role", "Nobody"}}).status == 404);
  CHECK(post(house, "/config/selected_role", json::object()).status == 400);
  CHECK(ask(house.port(), "GET", "/config/schema").tree()["properties"]["roles"].is_object());
  CHECK(ask(house.port(), "GET", "/roles").tree()["roles"][0]["name"] == "Default");
  CHECK(ask(house.port(), "GET", "/models").tree()["endpoints"].is_array());
}

TEST_CASE("A chat is 200 whatever comes of it, and names its conversation", "[http][terraphim]") {
  http_house house;
  house.answers.on_chat = echo;
  json messages{{{"role", "user"}, {"content", "hi"}}};
  answer got = post(house, "/chat", {{"messages", messages}});
  CHECK(got.status == 200);
  CHECK(got.tree()["message"]
        == "heard hi\n\n--- VM Execution Results ---\n"
           "Executed python code (exit code: 0):\n42");
  std::string id = got.tree()["conversation_id"];
  CHECK(id.find("chat-") == 0);
  CHECK(post(house, "/chat", {{"messages", messages}, {"conversation_id", id}})
            .tree()["conversation_id"]
        == id);
  house.answers.with([](script& s) {
    s.on_chat = [](const chat&) -> expected<chat_reply> {
      return fail(ec::not_found, "Role 'Nobody' not found");
    };
  });
  answer nobody = post(house, "/chat", {{"messages", messages}, {"role", "Nobody"}});
  CHECK(nobody.status == 200);
  CHECK(nobody.tree()["status"] == "error");
  CHECK(nobody.tree()["error"] == "Role 'Nobody' not found");
  CHECK(ask(house.port(), "POST", "/chat", "{\"messages\":").status == 400);
  CHECK(ask(house.port(), "POST", "/chat", std::string(200'000, '[')).status == 400);
  CHECK(post(house, "/chat", {{"messages", 7}}).tree()["message"]
        == "messages: must be a list, is a whole number");
  CHECK(ask(house.port(), "GET", "/conversations").tree()["conversations"].size() == 1);
  CHECK(ask(house.port(), "GET", "/conversations/chat-1").tree()["role"] == "Default");
  CHECK(ask(house.port(), "GET", "/conversations/other").status == 404);
  CHECK(ask(house.port(), "DELETE", "/conversations/chat-1").tree()["conversation_id"] == "chat-1");
  CHECK(post(house, "/conversations/chat-1/cancel", json::object()).tree()["was_busy"] == false);
}

TEST_CASE("A chat is streamed: what happens as events, the reply at the end", "[http][terraphim]") {
  http_house house;
  // Of an earlier turn: not told again.
  house.note(event("c-1", progress_kind::token, "old"));
  house.note(event("c-1", progress_kind::ended));
  house.answers.on_chat = [&](const chat& x) {
    for (auto kind : {progress_kind::started, progress_kind::token, progress_kind::tool_call,
                      progress_kind::code, progress_kind::output, progress_kind::code_ended,
                      progress_kind::tool_result, progress_kind::token, progress_kind::ended})
      house.note(of_turn(x, event(x.conversation, kind, "new")));
    // What another chat of the conversation tells is not this client's.
    house.note(event(x.conversation, progress_kind::started, "later"));
    house.note(event(x.conversation, progress_kind::token, "later"));
    return echo(x);
  };
  bool by_path = GENERATE(true, false);
  answer got =
      post(house, by_path ? "/chat/stream" : "/chat",
           {{"message", "hi"}, {"conversation_id", "c-1"}}, by_path ? accept_any : accept_stream);
  CHECK(got.status == 200);
  CHECK(got.headers["Content-Type"] == "text/event-stream");
  auto [names, last] = events_of(got.body);
  CHECK(names
        == std::vector<std::string>{"started", "token", "tool_call", "code", "output", "code_ended",
                                    "tool_result", "token", "ended"});
  CHECK(got.body.find("\"old\"") == std::string::npos);
  CHECK(got.body.find("\"later\"") == std::string::npos);
  CHECK(last["status"] == "success");
  CHECK(last["text"] == "heard hi");
  CHECK(last["conversation_id"] == "c-1");
}

TEST_CASE("A stream of a refused chat ends with the refusal, at once", "[http][terraphim]") {
  http_house house;
  house.answers.on_chat = [](const chat&) -> expected<chat_reply> {
    return fail(ec::no_capacity, "too many turns");
  };
  auto [names, last] = events_of(post(house, "/chat/stream", {{"message", "hi"}}).body);
  CHECK(names == std::vector<std::string>{"ended"});
  CHECK(last["error"] == "Chat failed: too many turns");
}

TEST_CASE("A stream for whose reader there is no place waits for one", "[http][terraphim]") {
  http_house house;
  house.answers.readers_refused = 1;
  house.answers.workflows["workflow_1"] = {.workflow = "workflow_1"};
  raw_client client{house.port()};
  client.send("GET /workflows/workflow_1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  REQUIRE(eventually(
      [&] { return house.answers.with([](script& s) { return s.readers_refused; }) == 0; }));
  house.note(event("workflow_1", progress_kind::step_started, "", "one"));
  house.note(event("workflow_1", progress_kind::ended));
  auto [names, last] = events_of(client.receive().body);
  CHECK(names == std::vector<std::string>{"step_started", "ended"});
  CHECK(last["workflow_id"] == "workflow_1");
}

TEST_CASE("A client that goes away cancels its turn, streamed or not", "[http][terraphim]") {
  http_house house;
  std::string path = GENERATE("/chat", "/chat/stream");
  {
    raw_client client{house.port()};
    std::string body = R"({"message":"hi","conversation_id":"c-9"})";
    client.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: "
                + std::to_string(body.size()) + "\r\n\r\n" + body);
    REQUIRE(
        eventually([&] { return house.answers.with([](script& s) { return !s.chats.empty(); }); }));
  }
  CHECK(eventually([&] {
    return house.answers.with(
        [](script& s) { return s.cancelled_chats == std::vector<std::string>{"c-9"}; });
  }));
  // By its name: another chat of the conversation goes on.
  house.answers.with([](script& s) {
    CHECK_FALSE(s.chats.at(0).turn.empty());
    CHECK(s.cancelled_turns == std::vector<std::string>{s.chats.at(0).turn});
  });
}

TEST_CASE("A client that has its answer and leaves cancels nothing", "[http][terraphim]") {
  http_house house;
  house.answers.on_chat = echo;
  {
    raw_client client{house.port()};
    for (int i = 0; i < 3; ++i) {
      std::string body = R"({"message":"hi"})";
      client.send("POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size())
                  + "\r\n\r\n" + body);
      CHECK(client.receive().status == 200);
    }
  }
  CHECK(post(house, "/chat", {{"message", "hi"}}).status == 200);
  CHECK(house.answers.with([](script& s) { return s.cancelled_chats.empty(); }));
}

TEST_CASE("Every route of a workflow leads to its pattern", "[http][terraphim]") {
  http_house house;
  house.answers.on_workflow = [](const run_workflow& x) -> expected<workflow_info> {
    return completed(x.workflow, x.pattern);
  };
  for (auto [name, pattern] : {std::pair{"prompt-chain", "prompt_chaining"},
                               {"prompt_chain", "prompt_chaining"},
                               {"route", "routing"},
                               {"routing", "routing"},
                               {"parallel", "Parallelization"},
                               {"orchestrate", "Orchestration"},
                               {"orchestration", "Orchestration"},
                               {"optimize", "Optimization"},
                               {"optimization", "Optimization"},
                               {"vm-execution-demo", "vm_execution"}})
    for (std::string base : {"/workflows/", "/api/workflows/"}) {
      answer got = post(house, base + name, {{"prompt", "x"}, {"overall_role", "any"}});
      CHECK(got.status == 200);
      CHECK(got.tree()["success"] == true);
      CHECK(got.tree()["metadata"]["pattern"] == pattern);
      CHECK(got.tree()["metadata"]["overall_role"] == "any");
      CHECK(got.tree()["workflow_id"].get<std::string>().find("workflow_") == 0);
    }
  answer unknown = post(house, "/workflows/dance", {{"prompt", "x"}});
  CHECK(unknown.status == 404);
  CHECK(unknown.tree()["status"] == "error");
  CHECK(post(house, "/workflows/parallel", json::object()).status == 400);
  CHECK(ask(house.port(), "POST", "/workflows/parallel", "}").status == 400);
}

TEST_CASE("A workflow that fails is 200 and success: false, in every pattern",
          "[http][terraphim]") {
  http_house house;
  for (const char* name : {"prompt-chain", "route", "parallel", "orchestrate", "optimize"}) {
    house.answers.with([](script& s) {
      s.on_workflow = [](const run_workflow& x) -> expected<workflow_info> {
        workflow_info info{.workflow = x.workflow, .pattern = x.pattern};
        info.status = workflow_status::failed;
        info.error = "the model is gone";
        return info;
      };
    });
    answer got = post(house, std::string{"/workflows/"} + name, {{"prompt", "x"}});
    CHECK(got.status == 200);
    CHECK(got.tree()["success"] == false);
    CHECK(got.tree()["error"] == "the model is gone");
    CHECK(got.tree()["result"].is_null());
    house.answers.with([](script& s) {
      s.on_workflow = [](const run_workflow&) -> expected<workflow_info> {
        return fail(ec::not_found, "role: there is no role test_role");
      };
    });
    got = post(house, std::string{"/workflows/"} + name, {{"prompt", "x"}, {"role", "test_role"}});
    CHECK(got.status == 200);
    CHECK(got.tree()["success"] == false);
    CHECK(got.tree()["metadata"]["role"] == "test_role");
  }
  house.answers.with([](script& s) {
    s.on_workflow = [](const run_workflow&) -> expected<workflow_info> {
      return fail(ec::no_capacity, "too many workflows");
    };
  });
  CHECK(post(house, "/workflows/route", {{"prompt", "x"}}).status == 429);
}

TEST_CASE("A workflow is looked at, listed, paused, resumed and cancelled", "[http][terraphim]") {
  http_house house;
  answer begun = post(house, "/workflows/route", {{"prompt", "x"}, {"async", true}});
  CHECK(begun.status == 202);
  std::string at = "/workflows/" + begun.tree()["workflow_id"].get<std::string>();
  for (const std::string& base : {at, "/api" + at}) {
    CHECK(ask(house.port(), "GET", base + "/status").tree()["status"] == "running");
    CHECK(ask(house.port(), "GET", base + "/trace").tree()["timeline"].is_object());
    CHECK(post(house, base + "/pause", json::object()).tree()["status"] == "paused");
    CHECK(ask(house.port(), "POST", base + "/resume").tree()["status"] == "running");
  }
  CHECK(ask(house.port(), "GET", "/workflows").tree().size() == 1);
  CHECK(ask(house.port(), "GET", "/workflows/sessions").tree()["total"] == 1);
  CHECK(ask(house.port(), "POST", at + "/cancel/").tree()["success"] == true);
  CHECK(ask(house.port(), "GET", at).tree()["status"] == "cancelled");
  for (const char* word : {"/status", "/trace", "/events"}) {
    answer missing = ask(house.port(), "GET", std::string{"/workflows/none"} + word);
    CHECK(missing.status == 404);
    CHECK(missing.tree()["status"] == "error");
  }
  CHECK(ask(house.port(), "POST", "/workflows/none/cancel").status == 404);
}

TEST_CASE("Events of a workflow are streamed from any number to its end", "[http][terraphim]") {
  http_house house;
  std::string id =
      post(house, "/workflows/route", {{"prompt", "x"}, {"async", true}}).tree()["workflow_id"];
  house.note(event(id, progress_kind::started));
  house.note(event(id, progress_kind::step_started, "", "one"));
  house.note(event(id, progress_kind::step_ended, "text", "one"));
  house.answers.with(
      [&](script& s) { s.workflows[id] = completed(id, workflow_pattern::routing); });
  house.note(event(id, progress_kind::ended));
  std::string at = "/workflows/" + id + "/events";
  auto [names, last] = events_of(ask(house.port(), "GET", at).body);
  CHECK(names == std::vector<std::string>{"started", "step_started", "step_ended", "ended"});
  CHECK(last["success"] == true);
  CHECK(last["result"]["result"] == "all done");
  auto [later, unused] = events_of(ask(house.port(), "GET", at, "", "Last-Event-ID: 2\r\n").body);
  CHECK(later == std::vector<std::string>{"step_ended", "ended"});
  CHECK(events_of(ask(house.port(), "GET", at + "?after=3").body).first
        == std::vector<std::string>{"ended"});
  CHECK(ask(house.port(), "GET", at + "?after=x").status == 400);
  // One whose events are long gone ends as well.
  house.answers.with([&](script& s) {
    s.workflows["workflow_old"] = completed("workflow_old", workflow_pattern::routing);
  });
  CHECK(events_of(ask(house.port(), "GET", "/workflows/workflow_old/events").body).first
        == std::vector<std::string>{"ended"});
}

TEST_CASE("The socket greets, and every command has its answer", "[http][terraphim]") {
  http_house house;
  raw_socket socket{house.port(), "/ws"};
  json hello = socket.message();
  CHECK(hello["response_type"] == "connection_established");
  CHECK(hello["type"] == "connection_established");
  CHECK(hello["message_type"] == "connection_established");
  CHECK(hello["session_id"] == hello["sessionId"]);
  CHECK(hello["data"]["capabilities"].size() == 4);
  CHECK(hello["success"] == true);
  CHECK(hello["error"].is_null());
  auto say = [&](const json& message) {
    socket.text(message.dump());
    return socket.message();
  };
  json pong = say({{"command_type", "ping"}, {"data", {{"timestamp", "then"}}}});
  CHECK(pong["response_type"] == "pong");
  CHECK(pong["data"]["server_time"].is_string());
  CHECK(pong["data"]["client_time"] == "then");
  CHECK(say({{"type", "heartbeat"}})["response_type"] == "pong");
  CHECK(say({{"command_type", "get_session_info"}})["data"]["session_id"] == hello["session_id"]);
  CHECK(say({{"command_type", "list_active_workflows"}})["data"]["total_count"] == 0);
  CHECK(say({{"command_type", "dance"}})["error"] == "Unknown command type: dance");
  json bad = say("just text");
  CHECK(bad["error"] == "Invalid JSON format");
  socket.text("{\"command_type\":");
  bad = socket.message();
  CHECK(bad["response_type"] == "error");
  CHECK(bad["error"] == "Invalid JSON format");
  CHECK(bad["data"]["received_text"] == "{\"command_type\":");
  CHECK(bad["data"]["parse_error"].is_string());
  socket.text(std::string(100'000, '['));
  CHECK(socket.message()["error"] == "Invalid JSON format");
  socket.frame(2, true, "bytes");
  CHECK(socket.message()["error"] == "Binary messages not supported");
  CHECK(say({{"command_type", "subscribe_workflow"}, {"workflow_id", "none"}})["success"] == false);
  CHECK(say({{"command_type", "subscribe_workflow"}})["error"] == "workflow_id: is missing");
  CHECK(say({{"command_type", "update_config"}, {"workflow_id", "w"}})["response_type"] == "error");
  CHECK(say({{"command_type", "execute_workflow"}, {"data", {{"type", "dance"}}}})["error"]
        == "Unknown workflow type: dance");
  CHECK(say({{"command_type", "chat"}, {"data", json::object()}})["error"]
        == "messages: is missing");
}

TEST_CASE("A workflow started over the socket tells its progress, under the client's own session",
          "[http][terraphim]") {
  http_house house;
  raw_socket socket{house.port(), "/ws"};
  socket.message();
  // As the first JavaScript client said it, without command_type.
  socket.text(json{{"type", "start_workflow"},
                   {"workflowType", "prompt-chain"},
                   {"sessionId", "session_mine"},
                   {"config", {{"input", {{"prompt", "build"}}}, {"role", "QAEngineer"}}}}
                  .dump());
  json started = until(socket, "workflow_started");
  CHECK(started["sessionId"] == "session_mine");
  std::string id = started["workflow_id"];
  CHECK(started["workflowId"] == id);
  CHECK(house.answers.with([](script& s) { return s.asked_workflows.at(0).prompt; }) == "build");
  CHECK(house.answers.with([](script& s) { return s.asked_workflows.at(0).role; }) == "QAEngineer");
  house.note(event(id, progress_kind::started));
  house.note(event(id, progress_kind::step_started, "", "one"));
  json progress = until(socket, "workflow_progress");
  CHECK(progress["data"]["currentStep"] == 1);
  CHECK(progress["data"]["current_step"] == "one");
  CHECK(progress["sessionId"] == "session_mine");
  CHECK(until(socket, "agent_update")["data"]["agentId"] == "one");
  house.note(event(id, progress_kind::token, "t", "one"));
  house.note(event(id, progress_kind::step_ended, "the text", "one"));
  CHECK(until(socket, "workflow_progress")["data"]["output"] == "the text");
  socket.text(R"({"type":"pause_workflow","sessionId":"session_mine"})");
  CHECK(until(socket, "workflow_paused")["workflow_id"] == id);
  socket.text(R"({"command_type":"resume_workflow","workflow_id":")" + id + "\"}");
  CHECK(until(socket, "workflow_resumed")["data"]["status"] == "running");
  house.answers.with(
      [&](script& s) { s.workflows[id] = completed(id, workflow_pattern::prompt_chaining); });
  house.note(event(id, progress_kind::ended));
  json ended = until(socket, "workflow_completed");
  CHECK(ended["sessionId"] == "session_mine");
  CHECK(ended["data"]["result"]["final_result"] == "all done");
  CHECK(ended["data"]["executionTime"].is_number());
  CHECK(ended["event"] == "workflow_completed");
  CHECK(ended["payload"] == ended["data"]);
}

TEST_CASE("A socket takes any number of sessions, and knows those of late", "[http][terraphim]") {
  http_house house;
  raw_socket socket{house.port(), "/ws"};
  socket.message();
  std::string session;
  for (int i = 0; i < 1'030; ++i) {
    session = "session_" + std::to_string(i);
    socket.text(json{{"type", "start_workflow"},
                     {"workflowType", "routing"},
                     {"sessionId", session},
                     {"config", {{"input", {{"prompt", "build"}}}}}}
                    .dump());
    json started = until(socket, "workflow_started");
    REQUIRE(started["sessionId"] == session);
    socket.text(json{{"type", "unsubscribe_workflow"}, {"sessionId", session}}.dump());
    until(socket, "workflow_unsubscribed");
  }
  socket.text(json{{"type", "pause_workflow"}, {"sessionId", session}}.dump());
  CHECK(until(socket, "workflow_paused")["sessionId"] == session);
}

TEST_CASE("A socket hears of a workflow that a POST started, and of its end after the answer",
          "[http][terraphim]") {
  http_house house;
  raw_socket socket{house.port(), "/ws"};
  socket.message();
  house.answers.with([&](script& s) {
    s.on_workflow = [&](const run_workflow& x) -> expected<workflow_info> {
      house.note(event(x.workflow, progress_kind::started));
      house.note(event(x.workflow, progress_kind::step_started, "", "one"));
      workflow_info info = completed(x.workflow, x.pattern);
      info.status = workflow_status::failed;
      info.error = "no";
      house.note(event(x.workflow, progress_kind::ended));
      return info;
    };
  });
  std::string id = post(house, "/workflows/parallel", {{"prompt", "x"}}).tree()["workflow_id"];
  CHECK(until(socket, "workflow_started")["sessionId"] == id);
  CHECK(until(socket, "workflow_progress")["workflowId"] == id);
  json ended = until(socket, "workflow_error");
  CHECK(ended["sessionId"] == id);
  CHECK(ended["error"] == "no");
  CHECK(ended["data"]["error"] == "no");
  CHECK(ended["success"] == false);
}

TEST_CASE("A late subscriber is told all that happened; every event only when it asks",
          "[http][terraphim]") {
  http_house house;
  std::string id =
      post(house, "/workflows/route", {{"prompt", "x"}, {"async", true}}).tree()["workflow_id"];
  house.note(event(id, progress_kind::started));
  house.note(event(id, progress_kind::token, "t", "one"));
  house.answers.with(
      [&](script& s) { s.workflows[id] = completed(id, workflow_pattern::routing); });
  house.note(event(id, progress_kind::ended));
  raw_socket socket{house.port(), "/ws"};
  socket.message();
  bool tokens = GENERATE(true, false);
  socket.text(json{
      {"command_type", "subscribe_workflow"}, {"workflowId", id}, {"data", {{"tokens", tokens}}}}
                  .dump());
  CHECK(socket.message()["response_type"] == "workflow_subscribed");
  CHECK(socket.message()["response_type"] == "workflow_started");
  if (tokens)
    CHECK(socket.message()["data"]["text"] == "t");
  CHECK(socket.message()["response_type"] == "workflow_completed");
  socket.text(json{{"command_type", "unsubscribe_workflow"}, {"workflow_id", id}}.dump());
  CHECK(socket.message()["data"]["remaining_subscriptions"] == 0);
}

TEST_CASE("A chat over the socket streams and answers; leaving cancels it", "[http][terraphim]") {
  http_house house;
  house.answers.on_chat = [&](const chat& x) {
    for (auto kind : {progress_kind::started, progress_kind::token, progress_kind::ended})
      house.note(of_turn(x, event(x.conversation, kind, "he")));
    return echo(x);
  };
  {
    raw_socket socket{house.port(), "/ws"};
    socket.message();
    socket.text(
        R"({"command_type":"chat","data":{"message":"hi","conversation_id":"workflow_1"}})");
    CHECK(until(socket, "error")["data"]["code"] == "malformed");
    socket.text(R"({"command_type":"chat","data":{"message":"hi","conversation_id":"c-1"}})");
    CHECK(socket.message()["response_type"] == "chat_started");
    json token = socket.message();
    CHECK(token["response_type"] == "token");
    CHECK(token["data"]["text"] == "he");
    CHECK(token["data"]["conversationId"] == "c-1");
    json reply = socket.message();
    CHECK(reply["response_type"] == "chat_response");
    CHECK(reply["data"]["text"] == "heard hi");
    house.answers.with([](script& s) { s.on_chat = nullptr; });
    socket.text(R"({"command_type":"chat","data":{"message":"hi","conversation_id":"c-2"}})");
    until(socket, "chat_started");
    REQUIRE(eventually([&] {
      return house.answers.with([](script& s) { return s.held_chats.contains("c-2"); });
    }));
    socket.text(R"({"command_type":"chat","data":{"message":"hi","conversation_id":"c-2"}})");
    CHECK(until(socket, "error")["data"]["code"] == "conflict");
  }
  CHECK(eventually([&] {
    return house.answers.with(
        [](script& s) { return s.cancelled_chats == std::vector<std::string>{"c-2"}; });
  }));
}

TEST_CASE("A program runs over the socket and its output comes as it is written",
          "[http][terraphim]") {
  http_house house;
  house.answers.pieces = {{'o', 'n', 'e'}, {'t', 'w', 'o'}};
  raw_socket socket{house.port(), "/ws"};
  socket.message();
  socket.text(json{{"command_type", "execute_code"},
                   {"session_id", "session_9"},
                   {"workflow_id", "exec-1"},
                   {"data", {{"language", "python"}, {"code", "print(1)"}}}}
                  .dump());
  json output = socket.message();
  CHECK(output["response_type"] == "execution_output");
  CHECK(output["data"]["stdout"] == "one");
  CHECK(output["data"]["execution_id"] == "exec-1");
  CHECK(socket.message()["data"]["stdout"] == "two");
  json ended = socket.message();
  CHECK(ended["response_type"] == "execution_complete");
  CHECK(ended["data"]["stdout"] == "onetwo");
  CHECK(ended["data"]["exit_code"] == 0);
  CHECK(house.answers.with([](script& s) { return s.submits.at(0).agent_id; }) == "session_9");
  socket.text(R"({"command_type":"cancel_execution","data":{"execution_id":"none"}})");
  CHECK(until(socket, "error")["data"]["code"] == "not_found");
  socket.text(R"({"command_type":"cancel_execution"})");
  CHECK(until(socket, "error")["error"] == "execution_id: is missing");
  // fcctl's socket is beside it.
  raw_socket machine{house.port(), "/ws/vm-1"};
  machine.text(R"({"message_type":"Ping"})");
  CHECK(machine.message()["message_type"] == "Pong");
}
