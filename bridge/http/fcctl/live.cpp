// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/live_runs.hpp"

namespace berth::http::fcctl {

namespace {

constexpr std::size_t queries_max = 16;

/// `/ws/{vm_id}`: many executions at once, their output as it comes. What still runs when the
/// client leaves is cancelled.
class live_socket : public socket,
                    public run_watcher,
                    public std::enable_shared_from_this<live_socket> {
public:
  live_socket(const shared_context& c, const std::shared_ptr<channel>& out, std::string vm_id)
    : c_(c)
    , out_(out)
    , vm_id_(std::move(vm_id))
    , runs_(std::make_shared<live_runs>(c->gateway, c->values, out, *this)) {}

  void on_text(std::string text) override;
  void on_binary() override { refuse("", ec::unsupported, "Binary messages not supported"); }
  void on_drained() override { runs_->resume(); }
  void on_closed() override;

  void on_output(const execution& e, const char* stream, const std::string& text) override;
  void on_ended(const execution& e, const outcome& ended) override;
  void on_failed(const execution& e, const error& why) override {
    refuse(e.asked.execution_id, why);
  }

private:
  using data_handler = void (live_socket::*)(const json&);

  void say(const char* type, json data);
  void refuse(const std::string& id, std::string_view code, const std::string& why, json more = {});
  void refuse(const std::string& id, ec code, const std::string& why) {
    refuse(id, name_of(code), why);
  }
  void refuse(const std::string& id, const error& why) {
    refusal told = to_refusal(why);
    refuse(id, told.name, told.detail);
  }

  void on_execute(const json& data);
  void on_parse_execute(const json& data);
  void on_query_history(const json& data);
  void on_cancel(const json& data);
  void on_create_snapshot(const json& data);
  void on_roll_back(const json& data);
  bool begin_query(const std::string& id);
  /// Asks what a message wishes for, and says the answer as a message of `type`.
  template <class Reply, class Request>
  void ask(const json& data, decoded<Request> wish, const char* type,
           json (*as_json)(const Reply&));
  void on_ping(const json&) { say("Pong", {{"timestamp", to_rfc3339(now_ms())}}); }

  json for_this_vm(json data) const;
  void run_parsed(const std::shared_ptr<parsed_text>& text, const json& results,
                  const std::string& id, std::size_t next);

  shared_context c_;
  std::shared_ptr<channel> out_;
  std::string vm_id_;
  std::shared_ptr<live_runs> runs_;
  std::size_t queries_ = 0;
  std::uint64_t unnamed_ = 0;
  bool closed_ = false;
};

void live_socket::say(const char* type, json data) {
  for (auto [snake, camel] : {std::pair{"execution_id", "executionId"}, std::pair{"vm_id", "vmId"}})
    if (auto member = data.find(snake); member != data.end())
      data[camel] = *member;
  if (!closed_)
    out_->send(json_text({{"message_type", type}, {"data", std::move(data)}}));
}

void live_socket::refuse(const std::string& id, std::string_view code, const std::string& why,
                         json more) {
  json data = error_body(code, why);
  data["execution_id"] = id;
  data["vm_id"] = vm_id_;
  if (more.is_object())
    data.update(more);
  say("LlmExecutionError", std::move(data));
}

void live_socket::on_text(std::string text) {
  auto message = parse_json(text);
  if (!message)
    return refuse("", ec::malformed, "message: " + message.why().reason);
  if (!message->is_object())
    return refuse("", ec::malformed, "message: must be a map");
  auto type = read_text_member(*message, "message_type");
  if (!type || type->empty())
    return refuse("", ec::malformed, "message_type: is missing or no text");
  json data = message->value("data", json(nullptr));
  if (data.is_null())
    data = json::object();
  if (!data.is_object())
    return refuse("", ec::malformed, "data: must be a map, is " + detail::kind_of(data));
  static const std::map<std::string, data_handler, std::less<>> handlers{
      {"LlmExecuteCode", &live_socket::on_execute},
      {"LlmParseExecute", &live_socket::on_parse_execute},
      {"QueryHistory", &live_socket::on_query_history},
      {"Cancel", &live_socket::on_cancel},
      {"LlmCancelExecution", &live_socket::on_cancel},
      {"CancelExecution", &live_socket::on_cancel},
      {"CreateSnapshot", &live_socket::on_create_snapshot},
      {"RollbackToSnapshot", &live_socket::on_roll_back},
      {"Ping", &live_socket::on_ping},
      {"ping", &live_socket::on_ping}};
  auto known = handlers.find(*type);
  if (known == handlers.end())
    return refuse("", ec::unsupported, "message_type: unknown: " + type->substr(0, 100));
  // Clients write ids in either case.
  for (auto [camel, snake] :
       {std::pair{"executionId", "execution_id"}, std::pair{"agentId", "agent_id"},
        std::pair{"snapshotId", "snapshot_id"}})
    if (data.contains(camel) && !data.contains(snake))
      data[snake] = data[camel];
  (this->*known->second)(data);
}

/// A socket belongs to one machine: that is where its programs run, whatever the data says.
json live_socket::for_this_vm(json data) const {
  data["vm_id"] = vm_id_;
  return data;
}

void live_socket::on_execute(const json& data) {
  auto id = read_text_member(data, "execution_id");
  auto asked = read_execute(for_this_vm(data), c_->values);
  if (!asked)
    return refuse(id ? *id : "", ec::malformed, asked.why().text());
  runs_->start(std::move(*asked));
}

void live_socket::on_output(const execution& e, const char* stream, const std::string& text) {
  say("LlmExecutionOutput", {{"execution_id", e.asked.execution_id},
                             {"vm_id", vm_id_},
                             {"job_id", e.job},
                             {"stream", stream},
                             {"content", text}});
}

void live_socket::on_ended(const execution& e, const outcome& ended) {
  if (ended.state == job_state::blocked)
    refuse(e.asked.execution_id, name_of(ec::rejected),
           blocked_text(ended.verdict.reasons, ended.detail),
           {{"blocked", true}, {"reasons", ended.verdict.reasons}});
  else
    say("LlmExecutionComplete", execute_response(ended, e.asked));
}

void live_socket::on_cancel(const json& data) {
  auto id = read_text_member(data, "execution_id");
  if (!id || id->empty())
    return refuse("", ec::malformed, "execution_id: is missing");
  if (!runs_->cancel(*id))
    refuse(*id, ec::not_found, "no such execution on this socket");
}

void live_socket::on_parse_execute(const json& data) {
  auto id = read_text_member(data, "execution_id");
  auto text = read_parse_execute(for_this_vm(data), c_->values);
  if (!text)
    return refuse(id ? *id : "", ec::malformed, text.why().text());
  std::string name = id && !id->empty() ? *id : "parse-" + std::to_string(++unnamed_);
  run_parsed(std::make_shared<parsed_text>(std::move(*text)), json::array(), name, 0);
}

/// Runs the programs of a text one after the other, each as an execution `<id>-<n>`.
void live_socket::run_parsed(const std::shared_ptr<parsed_text>& text, const json& results,
                             const std::string& id, std::size_t next) {
  if (next == text->jobs.size()) {
    json blocks = json::array();
    for (const auto& block : text->blocks)
      blocks.push_back(block_json(block));
    return say("LlmParseExecuteComplete", {{"execution_id", id},
                                           {"vm_id", vm_id_},
                                           {"code_blocks", blocks},
                                           {"execution_results", results},
                                           {"execution_intent", intent_json(text->intent)},
                                           {"errors", text->errors}});
  }
  execute_request asked = text->jobs[next];
  asked.execution_id = id + "-" + std::to_string(next + 1);
  auto then = [weak = weak_from_this(), text, results, id, next](const json& answer) {
    auto self = weak.lock();
    if (!self)
      return;
    json more = results;
    if (answer.contains("exit_code") && !answer.contains("blocked"))
      more.push_back(answer);
    else
      text->errors.push_back(answer.value("error", std::string{"Failed to execute"}));
    self->run_parsed(text, more, id, next + 1);
  };
  if (runs_->start(std::move(asked), std::move(then)))
    return;
  text->errors.push_back("Failed to execute " + text->jobs[next].job.language + " code");
  run_parsed(text, results, id, next + 1);
}

/// Counts one more question under way; false when there are too many.
bool live_socket::begin_query(const std::string& id) {
  if (queries_ >= queries_max)
    return refuse(id, ec::no_capacity, "too many requests at once"), false;
  ++queries_;
  return true;
}

void live_socket::on_query_history(const json& data) {
  std::map<std::string, std::string> members;
  for (const auto& [key, value] : data.items())
    if (!value.is_null())
      members[key] = value.is_string() ? value.get<std::string>() : json_text(value);
  auto wish = read_history_query(members, "");
  if (!wish)
    return refuse("", ec::malformed, wish.why().text());
  if (!begin_query(""))
    return;
  ask_history(c_, std::move(*wish), vm_id_,
              [self = shared_from_this()](const expected<json>& past, bool) {
                --self->queries_;
                if (!past)
                  return self->refuse("", past.error());
                self->say("HistoryResponse", *past);
              });
}

template <class Reply, class Request>
void live_socket::ask(const json& data, decoded<Request> wish, const char* type,
                      json (*as_json)(const Reply&)) {
  auto id = read_text_member(data, "execution_id");
  std::string name = id ? *id : "";
  if (!wish)
    return refuse(name, ec::malformed, wish.why().text());
  if (!begin_query(name))
    return;
  c_->gateway.ask<Reply>(std::move(*wish), [self = shared_from_this(), name, type,
                                            as_json](const expected<Reply>& answer) {
    --self->queries_;
    if (!answer)
      return self->refuse(name, answer.error());
    self->say(type, as_json(*answer));
  });
}

void live_socket::on_create_snapshot(const json& data) {
  ask(data, read_snapshot(data, vm_id_), "SnapshotCreated", snapshot_json);
}

void live_socket::on_roll_back(const json& data) {
  ask(data, read_rollback(data, vm_id_), "RollbackComplete", rolled_back_json);
}

void live_socket::on_closed() {
  closed_ = true;
  runs_->close();
}

} // namespace

void add_live_routes(router& routes, const shared_context& c) {
  routes.websocket("/ws/{vm_id}", [c](const request& what, std::shared_ptr<channel> out) {
    return std::make_shared<live_socket>(c, std::move(out), what.param("vm_id"));
  });
}

} // namespace berth::http::fcctl
