// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/live_socket.hpp"

#include "actors/ids.hpp"

#include <map>

namespace berth::http::terraphim {

namespace {

constexpr std::size_t followed_max = 64;
constexpr std::size_t turns_max = 16;
constexpr std::size_t sessions_max = 1'024;
constexpr std::size_t questions_max = 64;
constexpr std::size_t shown_bytes_max = 1'000;

/// A member of the message itself or of its data, in either case.
json member_of(const json& message, const json& data, const char* snake, const char* camel) {
  for (const json* from : {&data, &message})
    for (const char* name : {snake, camel})
      if (auto member = from->find(name); member != from->end() && !member->is_null())
        return *member;
  return nullptr;
}

std::string text_member(const json& message, const json& data, const char* snake,
                        const char* camel) {
  json member = member_of(message, data, snake, camel);
  return member.is_string() ? member.get<std::string>() : std::string{};
}

/// A workflow request from a message: its members may be in `data`, or where older clients put
/// them, in `config` and the `input` of either.
json workflow_members(const json& message, const json& data) {
  json all = json::object();
  auto take = [&](const json& from) {
    if (!from.is_object())
      return;
    if (auto input = from.find("input"); input != from.end() && input->is_object())
      all.update(*input);
    all.update(from);
  };
  take(message.value("config", json(nullptr)));
  if (!data.contains("prompt"))
    take(data.value("config", json(nullptr)));
  take(data);
  for (const char* ours : {"type", "session_id", "sessionId", "workflow_id", "workflowId"})
    all.erase(ours);
  return all;
}

} // namespace

live_socket::live_socket(const shared_context& c, const request& what,
                         const std::shared_ptr<channel>& out)
  : c_(c)
  , out_(out)
  , runs_(std::make_shared<fcctl::live_runs>(c->gateway, c->values, out, *this))
  , id_("session_" + new_hex_id())
  , client_(to_utf8(what.header("user-agent")))
  , connected_ms_(now_ms()) {
  c_->audience.insert(this);
}

live_socket::~live_socket() {
  c_->audience.erase(this);
}

void live_socket::greet() {
  say("connection_established", {.data = {{"message", "Connected to Berth"},
                                          {"session_id", id_},
                                          {"sessionId", id_},
                                          {"server_time", to_rfc3339(now_ms())},
                                          {"capabilities",
                                           {"workflow_monitoring", "real_time_updates",
                                            "command_execution", "session_management"}}}});
}

void live_socket::say(const char* type, told what) {
  if (closed_)
    return;
  // A workflow's client knows it by the id under which it asked for it.
  std::string session = id_;
  if (!what.workflow.empty()) {
    auto alias = alias_of_.find(what.workflow);
    session = alias == alias_of_.end() ? what.workflow : alias->second;
  }
  if (what.data.is_null())
    what.data = json::object();
  json message{{"response_type", type},
               {"type", type},
               {"message_type", type},
               {"event", type},
               {"timestamp", to_rfc3339(now_ms())},
               {"success", what.error.empty()},
               {"error", or_null(what.error)}};
  put_twice(message, "session_id", session);
  put_twice(message, "workflow_id", or_null(what.workflow));
  message["payload"] = what.data;
  message["data"] = std::move(what.data);
  out_->send(json_text(message));
}

void live_socket::refuse(const std::string& why, json data, std::string workflow) {
  if (!data.is_object())
    data = json::object();
  data["error"] = why;
  data["message"] = why;
  say("error", {.data = std::move(data), .workflow = std::move(workflow), .error = why});
}

void live_socket::refuse(const error& why, std::string workflow) {
  refusal said = to_refusal(why);
  json data{{"code", said.name}};
  if (said.retry_after_ms)
    data["retry_after_ms"] = *said.retry_after_ms;
  refuse(said.detail, std::move(data), std::move(workflow));
}

void live_socket::on_text(std::string text) {
  auto message = parse_json(text);
  if (!message || !message->is_object()) {
    std::string why = message ? "a message must be a map" : message.why().reason;
    return refuse(
        "Invalid JSON format",
        {{"parse_error", why}, {"received_text", to_utf8(text.substr(0, shown_bytes_max))}});
  }
  json data = message->value("data", json(nullptr));
  if (!data.is_object())
    data = json::object();
  std::string command;
  for (const char* name : {"command_type", "type", "message_type"})
    if (auto member = message->find(name);
        command.empty() && member != message->end() && member->is_string())
      command = member->get<std::string>();
  if (command.empty())
    return refuse("command_type: is missing");
  static const std::map<std::string, handler_type, std::less<>> handlers{
      {"ping", &live_socket::on_ping},
      {"heartbeat", &live_socket::on_ping},
      {"heartbeat_response", &live_socket::on_nothing},
      {"pong", &live_socket::on_nothing},
      {"subscribe_workflow", &live_socket::on_subscribe},
      {"unsubscribe_workflow", &live_socket::on_unsubscribe},
      {"get_workflow_status", &live_socket::on_status},
      {"list_active_workflows", &live_socket::on_list},
      {"get_session_info", &live_socket::on_session_info},
      {"execute_workflow", &live_socket::on_start},
      {"start_workflow", &live_socket::on_start},
      {"pause_workflow", &live_socket::on_pause},
      {"resume_workflow", &live_socket::on_resume},
      {"stop_workflow", &live_socket::on_stop},
      {"cancel_workflow", &live_socket::on_stop},
      {"update_config", &live_socket::on_update_config},
      {"chat", &live_socket::on_chat},
      {"cancel_chat", &live_socket::on_cancel_chat},
      {"execute_code", &live_socket::on_execute},
      {"cancel_execution", &live_socket::on_cancel_execution}};
  auto known = handlers.find(command);
  if (known == handlers.end())
    return refuse("Unknown command type: " + to_utf8(command.substr(0, 100)));
  (this->*known->second)(*message, data);
}

// --- questions -----------------------------------------------------------------------------------

template <class Reply, class Request>
void live_socket::ask(Request what, std::string workflow, std::function<void(const Reply&)> then) {
  if (questions_ >= questions_max)
    return refuse(fail(ec::no_capacity, "too many requests at once"), std::move(workflow));
  ++questions_;
  c_->gateway.ask<Reply>(std::move(what),
                         [self = shared_from_this(), workflow = std::move(workflow),
                          then = std::move(then)](const expected<Reply>& answer) {
                           --self->questions_;
                           if (self->closed_)
                             return;
                           if (!answer)
                             return self->refuse(answer.error(), workflow);
                           then(*answer);
                         });
}

void live_socket::on_ping(const json&, const json& data) {
  json answer{{"message", "pong"}, {"server_time", to_rfc3339(now_ms())}, {"latency_test", true}};
  if (auto sent = data.find("timestamp"); sent != data.end())
    answer["client_time"] = *sent;
  say("pong", {.data = std::move(answer)});
}

void live_socket::on_session_info(const json&, const json&) {
  json names = json::array();
  for (const auto& [id, f] : followed_)
    if (!f->is_chat)
      names.push_back(id);
  json data{{"connected_at", to_rfc3339(connected_ms_)},
            {"subscribed_workflows", std::move(names)},
            {"client_info", {{"user_agent", client_}}},
            {"connection_duration", (now_ms() - connected_ms_) / 1000}};
  put_twice(data, "session_id", id_);
  say("session_info", {.data = std::move(data)});
}

/// The workflow that a message is about: by its id, or by the session it was started in.
std::string live_socket::workflow_of(const json& message, const json& data) const {
  for (auto [snake, camel] :
       {std::pair{"workflow_id", "workflowId"}, std::pair{"session_id", "sessionId"}}) {
    std::string id = text_member(message, data, snake, camel);
    if (auto known = workflow_of_.find(id); known != workflow_of_.end())
      return known->second;
    if (!id.empty() && id != id_)
      return id;
  }
  return {};
}

bool live_socket::needs_workflow(const json& message, const json& data, std::string& to) {
  to = workflow_of(message, data);
  if (to.empty())
    refuse("workflow_id: is missing");
  return !to.empty();
}

void live_socket::on_status(const json& message, const json& data) {
  std::string id;
  if (needs_workflow(message, data, id))
    ask<workflow_info>(get_workflow{id}, id, [this, id](const workflow_info& info) {
      say("workflow_status", {.data = status_json(info), .workflow = id});
    });
}

void live_socket::on_list(const json&, const json&) {
  ask<workflow_list>(list_workflows{.alive_only = true}, {}, [this](const workflow_list& all) {
    json list = json::array();
    for (const auto& info : all.workflows)
      list.push_back(status_json(info));
    std::size_t count = list.size();
    say("active_workflows_list", {.data = {{"active_workflows", std::move(list)},
                                           {"total_count", count},
                                           {"timestamp", to_rfc3339(now_ms())}}});
  });
}

template <class Request>
void live_socket::change(const json& message, const json& data, const char* type) {
  std::string id;
  if (needs_workflow(message, data, id))
    ask<workflow_info>(Request{id}, id, [this, id, type](const workflow_info& info) {
      say(type, {.data = status_json(info), .workflow = id});
    });
}

void live_socket::on_pause(const json& message, const json& data) {
  change<pause_workflow>(message, data, "workflow_paused");
}

void live_socket::on_resume(const json& message, const json& data) {
  change<resume_workflow>(message, data, "workflow_resumed");
}

void live_socket::on_stop(const json& message, const json& data) {
  change<cancel_workflow>(message, data, "workflow_stopped");
}

/// What a workflow began with is what it is resumed with after a restart: it does not change.
void live_socket::on_update_config(const json& message, const json& data) {
  refuse("a workflow keeps the configuration it was started with; start another one",
         {{"code", name_of(ec::unsupported)}}, workflow_of(message, data));
}

// --- workflows -----------------------------------------------------------------------------------

/// From now on the client's session stands for the workflow, and the other way round.
void live_socket::name_session(const std::string& alias, const std::string& workflow) {
  if (alias_of_.size() >= sessions_max) {
    // Those of workflows that have ended.
    std::erase_if(alias_of_, [&](const auto& each) { return !followed_.contains(each.first); });
    std::erase_if(workflow_of_, [&](const auto& each) { return !alias_of_.contains(each.second); });
  }
  workflow_of_[alias] = workflow;
  alias_of_[workflow] = alias;
}

void live_socket::on_start(const json& message, const json& data) {
  std::string name;
  for (auto [snake, camel] : {std::pair{"workflow_type", "workflowType"},
                              std::pair{"pattern", "pattern"}, std::pair{"type", "type"}}) {
    // The message's own `type` may be the command.
    json of_message = std::string_view{snake} == "type" ? json::object() : message;
    if (name.empty())
      name = text_member(of_message, data, snake, camel);
  }
  auto pattern = pattern_of(name);
  if (!pattern)
    return refuse("Unknown workflow type: " + to_utf8(name.substr(0, 100)));
  auto asked = read_workflow(workflow_members(message, data), *pattern, c_->values);
  if (!asked)
    return refuse(fail(ec::malformed, asked.why().text()));
  if (followed_.size() >= followed_max)
    return refuse(fail(ec::no_capacity, "too many workflows on one socket"));
  std::string alias = text_member(message, data, "session_id", "sessionId");
  std::string id = new_workflow_id();
  if (!alias.empty() && alias != id_)
    name_session(alias, id);
  asked->what.workflow = id;
  submit_workflow wish;
  static_cast<run_workflow&>(wish) = asked->what;
  ask<workflow_info>(std::move(wish), id, [this, id, name](const workflow_info& info) {
    json begun = status_json(info);
    begun["type"] = name;
    begun["status"] = "started";
    begun["message"] = "the workflow has begun";
    say("workflow_started", {.data = std::move(begun), .workflow = id});
    follow(id, {.tell_start = false});
  });
}

void live_socket::on_subscribe(const json& message, const json& data) {
  std::string id;
  if (!needs_workflow(message, data, id))
    return;
  if (followed_.size() >= followed_max && !followed_.contains(id))
    return refuse(fail(ec::no_capacity, "too many workflows on one socket"), id);
  json after = member_of(message, data, "after", "after");
  json tokens = member_of(message, data, "tokens", "tokens");
  following how{.after = after.is_number_unsigned() ? after.get<std::uint64_t>() : 0,
                .every_event = tokens.is_boolean() && tokens.get<bool>()};
  ask<workflow_info>(get_workflow{id}, id, [this, id, how](const workflow_info& info) {
    following wish = how;
    wish.ended = is_terminal(info.status);
    followed_.erase(id);
    follow(id, wish);
    say("workflow_subscribed", {.data = {{"message", "subscribed"},
                                         {"workflow_id", id},
                                         {"workflowId", id},
                                         {"total_subscriptions", followed_.size()}},
                                .workflow = id});
  });
}

void live_socket::on_unsubscribe(const json& message, const json& data) {
  std::string id;
  if (!needs_workflow(message, data, id))
    return;
  if (auto known = followed_.find(id); known != followed_.end() && !known->second->is_chat)
    followed_.erase(known);
  say("workflow_unsubscribed",
      {.data = {{"remaining_subscriptions", followed_.size()}}, .workflow = id});
}

void live_socket::on_started(const std::string& workflow) {
  if (followed_.size() < followed_max)
    follow(workflow, {.uninvited = true});
}

// --- programs ------------------------------------------------------------------------------------

void live_socket::on_execute(const json& message, const json& data) {
  json wish = data;
  for (const char* name : {"language", "code", "execution_id", "agent_id", "vm_id"})
    if (!wish.contains(name) && message.contains(name))
      wish[name] = message[name];
  // The sessions of a socket are agents of their own: their programs share a machine.
  if (!wish.contains("agent_id") && !wish.contains("vm_id"))
    wish["agent_id"] = text_member(message, data, "session_id", "sessionId");
  if (wish["agent_id"].is_string() && wish["agent_id"].get_ref<const std::string&>().empty())
    wish["agent_id"] = id_;
  if (!wish.contains("execution_id"))
    wish["execution_id"] = text_member(message, data, "workflow_id", "workflowId");
  auto asked = fcctl::read_execute(wish, c_->values);
  if (!asked)
    return refuse(fail(ec::malformed, asked.why().text()));
  runs_->start(std::move(*asked));
}

void live_socket::on_cancel_execution(const json& message, const json& data) {
  std::string id = text_member(message, data, "execution_id", "executionId");
  if (id.empty())
    return refuse("execution_id: is missing");
  if (!runs_->cancel(id))
    refuse(fail(ec::not_found, "no such execution on this socket"));
}

void live_socket::on_output(const fcctl::execution& e, const char* stream,
                            const std::string& text) {
  json data{{stream, text}, {"stream", stream}, {"content", text}, {"job_id", e.job}};
  put_twice(data, "execution_id", e.asked.execution_id);
  say("execution_output", {.data = std::move(data)});
}

void live_socket::on_ended(const fcctl::execution& e, const outcome& ended) {
  json data = fcctl::execute_response(ended, e.asked);
  bool blocked = ended.state == job_state::blocked;
  std::string why =
      blocked ? fcctl::blocked_text(ended.verdict.reasons, ended.detail) : std::string{};
  say(blocked ? "execution_error" : "execution_complete",
      {.data = std::move(data), .error = std::move(why)});
}

void live_socket::on_failed(const fcctl::execution& e, const error& why) {
  refusal said = to_refusal(why);
  json data = error_body(said.name, said.detail);
  put_twice(data, "execution_id", e.asked.execution_id);
  say("execution_error", {.data = std::move(data), .error = said.detail});
}

// --- chat ----------------------------------------------------------------------------------------

void live_socket::on_chat(const json&, const json& data) {
  auto turn = read_chat(data);
  if (!turn)
    return refuse(fail(ec::malformed, turn.why().text()));
  if (turns_.size() >= turns_max)
    return refuse(fail(ec::no_capacity, "too many chats on one socket"));
  if (turn->conversation.empty())
    turn->conversation = new_conversation_id();
  if (turn->turn.empty())
    turn->turn = new_turn_id();
  std::string id = turn->conversation;
  if (turns_.contains(id))
    return refuse(fail(ec::conflict, "conversation_id: a turn of it is under way on this socket"));
  turns_.emplace(id, turn->turn);
  c_->gateway.ask<progress_page>(read_progress{.id = id, .after = UINT64_MAX},
                                 [self = shared_from_this(), id, turn = std::move(*turn)](
                                     const expected<progress_page>& page) mutable {
                                   if (!self->closed_)
                                     self->take_turn(std::move(turn), page ? page->last_seq : 0);
                                 });
}

void live_socket::take_turn(chat turn, std::uint64_t after) {
  std::string id = turn.conversation;
  json data{{"status", "started"}};
  put_twice(data, "conversation_id", id);
  put_twice(data, "turn_id", turn.turn);
  say("chat_started", {.data = std::move(data)});
  follow(id, {.after = after, .every_event = true, .is_chat = true, .turn = own_turn{turn.turn}});
  chat asked = turn;
  c_->gateway.ask<chat_reply>(std::move(asked), [self = shared_from_this(), turn = std::move(turn)](
                                                    const expected<chat_reply>& answer) {
    if (self->closed_)
      return;
    json ended = answer ? chat_json(*answer) : chat_failed_json(answer.error(), turn);
    self->end_chat(turn.conversation, std::move(ended));
  });
}

void live_socket::on_cancel_chat(const json&, const json& data) {
  std::string id = text_member(data, data, "conversation_id", "conversationId");
  if (id.empty())
    return refuse("conversation_id: is missing");
  cancel_chat wish{id, text_member(data, data, "turn_id", "turnId")};
  ask<chat_cancelled>(std::move(wish), {}, [this](const chat_cancelled& answer) {
    json done{{"was_busy", answer.was_busy}};
    put_twice(done, "conversation_id", answer.conversation);
    put_twice(done, "turn_id", or_null(answer.turn));
    say("chat_cancelled", {.data = std::move(done)});
  });
}

void live_socket::on_closed() {
  closed_ = true;
  c_->audience.erase(this);
  runs_->close();
  for (const auto& [id, turn] : turns_)
    if (auto f = followed_.find(id); f == followed_.end() || !f->second->ended)
      c_->gateway.ask<chat_cancelled>(cancel_chat{id, turn},
                                      [](const expected<chat_cancelled>&) {});
  turns_.clear();
  followed_.clear();
}

void add_live_routes(router& routes, const shared_context& c) {
  routes.websocket("/ws", [c](const request& what, const std::shared_ptr<channel>& out) {
    auto made = std::make_shared<live_socket>(c, what, out);
    made->greet();
    return made;
  });
}

} // namespace berth::http::terraphim
