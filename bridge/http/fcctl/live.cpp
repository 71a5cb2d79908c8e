// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"
#include "config/languages.hpp"

#include <deque>
#include <optional>

namespace berth::http::fcctl {

namespace {

constexpr std::size_t executions_max = 64;
constexpr std::size_t queries_max = 16;
constexpr std::uint32_t read_wait_ms = 20'000;
constexpr std::uint32_t read_bytes = 64 * 1024;

/// Makes text of a stream that arrives in pieces: a character that is split waits for its rest.
class text_stream {
public:
  std::string take(const bytes& data, bool last) {
    waiting_.append(data.begin(), data.end());
    std::size_t whole = last ? waiting_.size() : whole_characters(waiting_);
    std::string text = to_utf8(std::string_view{waiting_}.substr(0, whole));
    waiting_.erase(0, whole);
    return text;
  }

private:
  /// Bytes up to the last character when that one is incomplete.
  static std::size_t whole_characters(std::string_view text) {
    for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
      auto c = static_cast<unsigned char>(text[text.size() - back]);
      if ((c & 0xC0) == 0x80)
        continue;
      std::size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 1;
      return length > back ? text.size() - back : text.size();
    }
    return text.size();
  }

  std::string waiting_;
};

/// One program that runs for a socket.
struct execution {
  execute_request asked;
  std::string id;
  std::string job;
  bool cancel_wanted = false;
  std::uint64_t stdout_offset = 0;
  std::uint64_t stderr_offset = 0;
  text_stream stdout_text;
  text_stream stderr_text;
  bytes stdout_kept;
  bytes stderr_kept;
  bool finished = false;
  /// Set while the execution waits for a slow reader of the socket.
  bool paused = false;
  std::function<void(const json& answer)> ended;
};

/// `/ws/{vm_id}`: many executions at once, their output as it comes. Reads a job's output only as
/// fast as the client takes it. What still runs when the client leaves is cancelled.
class live_socket : public socket, public std::enable_shared_from_this<live_socket> {
public:
  live_socket(shared_context c, std::shared_ptr<channel> out, std::string vm_id)
    : c_(std::move(c))
    , out_(std::move(out))
    , vm_id_(std::move(vm_id)) {}

  void on_text(std::string text) override;
  void on_binary() override { refuse("", ec::unsupported, "Binary messages not supported"); }
  void on_drained() override;
  void on_closed() override;

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
  std::shared_ptr<execution> start(execute_request asked);
  void on_accepted(const std::shared_ptr<execution>& e, const expected<accepted>& answer);
  void follow(const std::shared_ptr<execution>& e);
  void on_slice(const std::shared_ptr<execution>& e, const output_slice& slice);
  void put_output(execution& e, const char* stream, const std::string& text);
  void finish(const std::shared_ptr<execution>& e, outcome ended);
  void fail_execution(const std::shared_ptr<execution>& e, const error& why);
  void forget(const std::shared_ptr<execution>& e, const json& answer);
  void stop(execution& e);
  void run_parsed(const std::shared_ptr<parsed_text>& text, const json& results,
                  const std::string& id, std::size_t next);

  shared_context c_;
  std::shared_ptr<channel> out_;
  std::string vm_id_;
  std::map<std::string, std::shared_ptr<execution>> executions_;
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
  start(std::move(*asked));
}

std::shared_ptr<execution> live_socket::start(execute_request asked) {
  auto e = std::make_shared<execution>();
  bool named = !asked.execution_id.empty();
  e->id = named ? asked.execution_id : "unnamed-" + std::to_string(++unnamed_);
  if (executions_.size() >= executions_max) {
    refuse(asked.execution_id, ec::no_capacity,
           "more than " + std::to_string(executions_max) + " executions on one socket");
    return nullptr;
  }
  if (!executions_.emplace(e->id, e).second) {
    refuse(e->id, ec::already_exists, "execution_id: is in use on this socket");
    return nullptr;
  }
  e->asked = std::move(asked);
  submit job;
  static_cast<run&>(job) = e->asked.job;
  c_->gateway.ask<accepted>(std::move(job),
                            [self = shared_from_this(), e](const expected<accepted>& answer) {
                              self->on_accepted(e, answer);
                            });
  return e;
}

void live_socket::on_accepted(const std::shared_ptr<execution>& e,
                              const expected<accepted>& answer) {
  if (!answer)
    return fail_execution(e, answer.error());
  e->job = answer->job;
  if (e->asked.execution_id.empty())
    e->asked.execution_id = answer->job;
  if (e->cancel_wanted || closed_)
    stop(*e);
  if (!closed_)
    follow(e);
}

void live_socket::follow(const std::shared_ptr<execution>& e) {
  if (out_->queued_bytes() >= queued_bytes_high) {
    e->paused = true;
    return;
  }
  e->paused = false;
  c_->gateway.ask<output_slice>(read{.job = e->job,
                                     .stdout_offset = e->stdout_offset,
                                     .stderr_offset = e->stderr_offset,
                                     .wait_ms = read_wait_ms,
                                     .bytes_max = read_bytes},
                                [self = shared_from_this(), e](expected<output_slice> answer) {
                                  if (self->closed_)
                                    return;
                                  if (!answer)
                                    return self->fail_execution(e, answer.error());
                                  self->on_slice(e, *answer);
                                });
}

void live_socket::on_slice(const std::shared_ptr<execution>& e, const output_slice& slice) {
  std::size_t most = c_->values.reply_output_bytes;
  auto keep = [&](bytes& to, const bytes& data) {
    std::size_t room = most - std::min(most, to.size());
    to.insert(to.end(), data.begin(),
              data.begin() + static_cast<std::ptrdiff_t>(std::min(room, data.size())));
  };
  keep(e->stdout_kept, slice.stdout_data);
  keep(e->stderr_kept, slice.stderr_data);
  e->stdout_offset = slice.stdout_offset + slice.stdout_data.size();
  e->stderr_offset = slice.stderr_offset + slice.stderr_data.size();
  bool last = slice.ended.has_value();
  put_output(*e, "stdout", e->stdout_text.take(slice.stdout_data, last));
  put_output(*e, "stderr", e->stderr_text.take(slice.stderr_data, last));
  if (!last)
    return follow(e);
  finish(e, *slice.ended);
}

void live_socket::put_output(execution& e, const char* stream, const std::string& text) {
  if (text.empty())
    return;
  say("LlmExecutionOutput", {{"execution_id", e.asked.execution_id},
                             {"vm_id", vm_id_},
                             {"job_id", e.job},
                             {"stream", stream},
                             {"content", text}});
}

void live_socket::finish(const std::shared_ptr<execution>& e, outcome ended) {
  ended.stdout_data = std::move(e->stdout_kept);
  ended.stderr_data = std::move(e->stderr_kept);
  ended.stdout_truncated = ended.stdout_bytes > ended.stdout_data.size();
  ended.stderr_truncated = ended.stderr_bytes > ended.stderr_data.size();
  json answer = execute_response(ended, e->asked);
  if (ended.state == job_state::blocked)
    refuse(e->asked.execution_id, name_of(ec::rejected),
           blocked_text(ended.verdict.reasons, ended.detail),
           {{"blocked", true}, {"reasons", ended.verdict.reasons}});
  else
    say("LlmExecutionComplete", answer);
  forget(e, answer);
}

void live_socket::fail_execution(const std::shared_ptr<execution>& e, const error& why) {
  refuse(e->asked.execution_id, why);
  forget(e, {{"error", to_refusal(why).detail}});
}

void live_socket::forget(const std::shared_ptr<execution>& e, const json& answer) {
  e->finished = true;
  executions_.erase(e->id);
  if (auto ended = std::exchange(e->ended, nullptr))
    ended(answer);
}

void live_socket::stop(execution& e) {
  c_->gateway.ask<cancelled>(cancel{e.job}, [](const expected<cancelled>&) {});
}

void live_socket::on_cancel(const json& data) {
  auto id = read_text_member(data, "execution_id");
  if (!id || id->empty())
    return refuse("", ec::malformed, "execution_id: is missing");
  bool found = false;
  for (auto& [unused, e] : executions_) {
    if (e->asked.execution_id != *id && e->job != *id)
      continue;
    found = true;
    e->cancel_wanted = true;
    if (!e->job.empty())
      stop(*e);
  }
  if (!found)
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
  auto e = start(std::move(asked));
  if (!e) {
    text->errors.push_back("Failed to execute " + text->jobs[next].job.language + " code");
    return run_parsed(text, results, id, next + 1);
  }
  std::weak_ptr<live_socket> weak = weak_from_this();
  e->ended = [weak, text, results, id, next](const json& answer) {
    auto self = weak.lock();
    if (!self || self->closed_)
      return;
    json more = results;
    if (answer.contains("exit_code") && !answer.contains("blocked"))
      more.push_back(answer);
    else
      text->errors.push_back(answer.value("error", std::string{"Failed to execute"}));
    self->run_parsed(text, more, id, next + 1);
  };
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

void live_socket::on_drained() {
  auto all = executions_;
  for (auto& [unused, e] : all)
    if (e->paused && !e->finished)
      follow(e);
}

void live_socket::on_closed() {
  closed_ = true;
  for (auto& [unused, e] : executions_)
    if (!e->job.empty())
      stop(*e);
  executions_.clear();
}

} // namespace

void add_live_routes(router& routes, const shared_context& c) {
  routes.websocket("/ws/{vm_id}", [c](const request& what, std::shared_ptr<channel> out) {
    return std::make_shared<live_socket>(c, std::move(out), what.param("vm_id"));
  });
}

} // namespace berth::http::fcctl
