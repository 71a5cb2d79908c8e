// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/live_socket.hpp"

/// How a WebSocket follows workflows and conversations.
namespace berth::http::terraphim {

namespace {

constexpr std::uint32_t news_wait_ms = 20'000;
/// Who started a workflow by POST listens for its end only once it has the answer.
constexpr std::chrono::milliseconds uninvited_wait{500};

} // namespace

void live_socket::follow(const std::string& id, following how) {
  auto f = std::make_shared<following>(std::move(how));
  followed_[id] = f;
  read_on(id, f);
}

void live_socket::forget(const std::string& id) {
  followed_.erase(id);
}

bool live_socket::follows(const std::string& id, const followed& f) const {
  auto known = followed_.find(id);
  return !closed_ && known != followed_.end() && known->second == f;
}

void live_socket::read_on(const std::string& id, const followed& f) {
  if (!follows(id, f))
    return;
  f->paused = out_->queued_bytes() >= queued_bytes_high;
  if (f->paused)
    return;
  std::uint64_t question = ++f->question;
  c_->gateway.ask<progress_page>(
      read_progress{.id = id, .after = f->after, .wait_ms = f->ended ? 0 : news_wait_ms},
      [self = shared_from_this(), id, f, question](const expected<progress_page>& answer) {
        if (question == f->question && self->follows(id, f))
          self->on_page(id, f, answer);
      });
}

void live_socket::read_later(const std::string& id, const followed& f,
                             std::chrono::milliseconds wait) {
  c_->gateway.after(wait, [self = shared_from_this(), id, f, question = f->question] {
    if (question == f->question)
      self->read_on(id, f);
  });
}

void live_socket::on_page(const std::string& id, const followed& f,
                          const expected<progress_page>& answer) {
  progress_page page;
  if (answer)
    page = *answer;
  else if (answer.error() == ec::no_capacity)
    return read_later(id, f, place_wait);
  else if (answer.error() != ec::not_found) {
    if (f->is_chat && f->ended)
      return end_chat(id, std::move(f->reply));
    refuse(answer.error(), f->is_chat ? "" : id);
    return forget(id);
  }
  if (page.lost > 0)
    say("events_lost", {.data = {{"events", page.lost}}, .workflow = f->is_chat ? "" : id});
  if (page.lost > 0)
    f->turn.on_gap();
  f->after += page.lost;
  for (const auto& event : page.events) {
    f->after = event.seq;
    tell_event(id, *f, event);
  }
  if (!f->is_chat && page.ended)
    return end_workflow(id, f);
  if (!page.events.empty())
    return read_on(id, f);
  if (f->ended && f->is_chat)
    return end_chat(id, std::move(f->reply));
  if (f->ended)
    return end_workflow(id, f);
  if (page.ended)
    return read_later(id, f, again_wait);
  look_after(id, f);
}

/// Long silence: a workflow that never began, or ended under another server, tells nothing.
void live_socket::look_after(const std::string& id, const followed& f) {
  if (f->is_chat)
    return read_on(id, f);
  c_->gateway.ask<workflow_info>(
      get_workflow{id}, [self = shared_from_this(), id, f](const expected<workflow_info>& info) {
        if (!self->follows(id, f))
          return;
        if (!info)
          return self->forget(id);
        f->ended = is_terminal(info->status);
        self->read_on(id, f);
      });
}

void live_socket::tell_event(const std::string& id, following& f, const progress_event& event) {
  if (!f.turn.has(event) || event.kind == progress_kind::ended)
    return;
  if (f.is_chat) {
    if (event.kind == progress_kind::started)
      return;
    json data = event_json(event);
    put_twice(data, "conversation_id", id);
    return say(std::string{name_of(event.kind)}.c_str(), {.data = std::move(data)});
  }
  switch (event.kind) {
  case progress_kind::started:
    if (f.tell_start)
      say("workflow_started", {.data = {{"workflow_id", id},
                                        {"workflowId", id},
                                        {"pattern", event.name},
                                        {"status", "running"},
                                        {"steps", json::array()},
                                        {"started_at", to_rfc3339(event.at_ms)}},
                               .workflow = id});
    return;
  case progress_kind::step_started:
  case progress_kind::step_ended:
    return tell_step(id, f, event);
  case progress_kind::paused:
    return tell_progress(id, f, event, {{"status", "paused"}});
  case progress_kind::resumed:
    return tell_progress(id, f, event, {{"status", "running"}});
  case progress_kind::decision:
    return tell_progress(id, f, event, {{"decision", event.text}});
  case progress_kind::warning:
    return tell_progress(id, f, event, {{"warning", event.text}});
  default:
    if (f.every_event)
      say(std::string{name_of(event.kind)}.c_str(), {.data = event_json(event), .workflow = id});
  }
}

void live_socket::tell_step(const std::string& id, following& f, const progress_event& event) {
  bool begins = event.kind == progress_kind::step_started;
  (begins ? f.steps_begun : f.steps_ended) += 1;
  // A step that begins tells its name and its role, one that ended its status and its output.
  json agent{{"status", begins ? "working" : event.name}};
  put_twice(agent, "agent_id", event.step);
  put_twice(agent, "step_id", event.step);
  if (begins)
    f.names[event.step] = event.name;
  auto named = f.names.find(event.step);
  std::string name = named == f.names.end() ? event.step : named->second;
  json more{{"message", name + (begins ? " begins" : " ended")}};
  put_twice(more, "current_task", name);
  if (begins) {
    agent["name"] = event.name;
    agent["role"] = event.text;
  } else {
    f.names.erase(event.step);
    more["step_status"] = event.name;
    more["output"] = event.text;
    agent["output"] = event.text;
  }
  tell_progress(id, f, event, std::move(more));
  say("agent_update", {.data = std::move(agent), .workflow = id});
  if (!begins && event.step.starts_with("evaluate"))
    tell_quality(id, event.step);
}

/// What an evaluator found; web applications draw it.
void live_socket::tell_quality(const std::string& id, const std::string& step) {
  c_->gateway.ask<workflow_info>(
      get_workflow{id}, [self = shared_from_this(), id, step](const expected<workflow_info>& info) {
        if (!info)
          return;
        std::size_t iteration = 0;
        for (const auto& each : info->steps) {
          iteration += each.kind == "evaluate" ? 1 : 0;
          if (each.id != step || !each.score)
            continue;
          self->say("quality_assessment", {.data = {{"scores", {{"overall", *each.score * 10}}},
                                                    {"score", *each.score},
                                                    {"iteration", iteration},
                                                    {"feedback", each.reason}},
                                           .workflow = id});
        }
      });
}

void live_socket::tell_progress(const std::string& id, const following& f,
                                const progress_event& event, json more) {
  json data{
      {"status", "running"},          {"progress", event.progress},
      {"percentage", event.progress}, {"message", event.text.empty() ? event.name : event.text},
      {"event", name_of(event.kind)}, {"seq", event.seq}};
  put_twice(data, "step_id", or_null(event.step));
  put_twice(data, "current_task", event.step);
  data["current_step"] = event.step;
  data["currentStep"] = f.steps_begun;
  if (event.steps_total > 0)
    put_twice(data, "total_steps", event.steps_total);
  put_twice(data, "steps_ended", f.steps_ended);
  if (event.usage) {
    data["usage"] = to_json(*event.usage);
    put_twice(data, "total_tokens", event.usage->input_tokens + event.usage->output_tokens);
    data["cost"] = event.usage->cost_usd;
  }
  data.update(more);
  say("workflow_progress", {.data = std::move(data), .workflow = id});
}

void live_socket::end_workflow(const std::string& id, const followed& f) {
  auto tell = [self = shared_from_this(), id, f](const expected<workflow_info>& info) {
    if (!self->follows(id, f))
      return;
    self->forget(id);
    if (!info)
      return self->refuse(info.error(), id);
    json data = workflow_json(*info, {});
    data["steps"] = status_json(*info)["steps"];
    data["executionTime"] = data["metadata"]["executionTime"];
    data["execution_time"] = data["metadata"]["executionTime"];
    bool good = info->status == workflow_status::completed;
    put_twice(data, good ? "completed_at" : "failed_at", to_rfc3339(info->ended_at_ms));
    std::string why = good ? "" : data["error"].is_string() ? data["error"].get<std::string>() : "";
    self->say(good ? "workflow_completed" : "workflow_error",
              {.data = std::move(data), .workflow = id, .error = why});
  };
  auto look = [self = shared_from_this(), id, tell] {
    if (!self->closed_)
      self->c_->gateway.ask<workflow_info>(get_workflow{id}, tell);
  };
  if (f->uninvited)
    return c_->gateway.after(uninvited_wait, look);
  look();
}

void live_socket::end_chat(const std::string& id, json reply) {
  auto known = followed_.find(id);
  bool is_followed = known != followed_.end() && known->second->is_chat;
  if (is_followed && !known->second->ended) {
    // What happened before the reply is told before it.
    followed f = known->second;
    f->ended = true;
    f->reply = std::move(reply);
    return read_on(id, f);
  }
  if (is_followed)
    followed_.erase(known);
  turns_.erase(id);
  say("chat_response", {.data = std::move(reply)});
}

void live_socket::on_drained() {
  runs_->resume();
  auto all = followed_;
  for (const auto& [id, f] : all)
    if (f->paused)
      read_on(id, f);
}

} // namespace berth::http::terraphim
