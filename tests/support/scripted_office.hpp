// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/agents.hpp"
#include "messages/codec.hpp"
#include "tests/support/actors.hpp"

#include <caf/event_based_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace berth::test {

/// Everybody that agents ask, played by a test: a model by a list of answers, a machine by a
/// function. What was asked of them is kept.
class scripted_office : public actors {
public:
  /// What a program gives, by its text.
  struct gives {
    std::int32_t exit_code = 0;
    std::string out;
    std::string err;
    bool endless = false; // until it is cancelled
    bool blocked = false;
  };

  explicit scripted_office(settings values = {})
    : config(std::make_shared<const settings>(std::move(values))) {
    role.name = "Coder";
    role.vm_execution = true;
    role.system_prompt = "You are a coder.";
    role.allowed_languages = {"python", "javascript", "bash", "rust", "go"};
    role.auto_execute_threshold = 0.5;
    role.rounds_max = 4;
    role.context_window = 8192;
    role.max_code_length = 10'000;
    role.model = {.provider = "ollama", .base_url = "http://models", .model = "scripted"};
    gateway_ =
        system().spawn([this](caf::event_based_actor* self, int) { return machines(self); }, 0);
    models_ = system().spawn([this](caf::event_based_actor* self, int) { return models(self); }, 0);
    roles_ = system().spawn([this](caf::event_based_actor*, int) { return roles(); }, 0);
    progress_ = system().spawn([this](caf::event_based_actor*, int) { return progress(); }, 0);
    records_ = system().spawn([this](caf::event_based_actor*, int) { return records(); }, 0);
    open();
  }

  ~scripted_office() {
    close();
    for (auto* each : {&gateway_, &models_, &roles_, &progress_, &records_})
      stop(std::exchange(*each, nullptr));
  }

  /// The server starts anew: who is in memory goes, records stay.
  void restart() {
    close();
    open();
  }

  /// A chat that is under way or answered.
  question<chat_reply> say(std::string text, std::string conversation = "chat-1") {
    chat request;
    request.conversation = std::move(conversation);
    request.messages = {{.role = speaker::user, .content = std::move(text)}};
    return ask<chat_reply>(agents, std::move(request));
  }

  /// The model's next answer.
  void answers(std::string text) {
    model_answer made;
    made.text = std::move(text);
    made.usage = {.input_tokens = 10, .output_tokens = 5, .cost_usd = 0.5, .calls = 1};
    script.emplace_back(std::move(made));
  }

  /// The model's next answer calls tools; each by its name and its arguments.
  void calls(std::vector<std::pair<std::string, std::string>> tools) {
    model_answer made;
    for (auto& [name, arguments] : tools)
      made.tool_calls.push_back({.id = "call-" + std::to_string(++calls_made_),
                                 .name = std::move(name),
                                 .arguments = std::move(arguments)});
    made.usage = {.input_tokens = 10, .output_tokens = 5, .cost_usd = 0.5, .calls = 1};
    script.emplace_back(std::move(made));
  }

  void fails(error why) { script.emplace_back(std::move(why)); }

  /// The model answers the oldest call that waits. CAF's promises are kept inside of their actor.
  void answers_held(std::string text) {
    script.push_front(model_answer{.text = std::move(text)});
    caf::anon_send(models_, caf::flush_atom::value);
    settle();
  }

  /// Events of a kind, by their name.
  std::vector<std::string> names_of(progress_kind kind) const {
    std::vector<std::string> names;
    for (const progress_event& each : events)
      if (each.kind == kind)
        names.push_back(each.name);
    return names;
  }

  std::shared_ptr<const settings> config;
  agents_actor agents;
  role_info role;

  // The model.
  std::deque<expected<model_answer>> script; // when it is empty, calls wait
  std::vector<ask_model> asked;
  std::vector<std::pair<ask_model, caf::typed_response_promise<model_answer>>> held;

  // The machine.
  std::function<gives(const submit&)> runs = [](const submit& job) {
    return gives{.out = "ran " + job.code};
  };
  std::vector<submit> jobs;
  std::map<std::string, std::string> files;
  bool files_are_busy = false;       // they are not told of
  std::vector<std::string> sessions; // open ones
  std::vector<rollback> rollbacks;
  std::uint32_t snapshots = 0;
  std::uint32_t snapshots_kept = 0;

  // The store.
  std::map<std::pair<std::string, std::string>, std::map<std::uint64_t, put_record>> kept;
  bool store_is_broken = false;
  bool store_is_unreadable = false;
  std::vector<progress_event> events;

private:
  void open() {
    agents = spawn_agents(system(), {.config = config,
                                     .gateway = caf::actor_cast<gateway_actor>(gateway_),
                                     .roles = caf::actor_cast<roles_actor>(roles_),
                                     .models = caf::actor_cast<model_actor>(models_),
                                     .progress = caf::actor_cast<progress_actor>(progress_),
                                     .records = caf::actor_cast<records_actor>(records_)});
    settle();
  }

  void close() {
    stop(std::exchange(agents, nullptr));
    held.clear();
  }

  void answer(caf::typed_response_promise<model_answer>& promise) {
    auto next = std::move(script.front());
    script.pop_front();
    if (next)
      promise.deliver(std::move(*next));
    else
      promise.deliver(next.error());
  }

  caf::behavior models(caf::event_based_actor* self) {
    return {[=, this](ask_model& x) -> caf::result<model_answer> {
              asked.push_back(x);
              auto promise = self->make_response_promise<model_answer>();
              if (script.empty())
                held.emplace_back(std::move(x), promise);
              else
                answer(promise);
              return promise;
            },
            [this](caf::flush_atom) {
              auto promise = held.front().second;
              held.erase(held.begin());
              answer(promise);
            },
            [this](const cancel_model& x) {
              std::erase_if(held, [&](auto& each) {
                bool mine = each.first.call == x.call;
                if (mine)
                  each.second.deliver(fail(ec::conflict, "cancelled"));
                return mine;
              });
            }};
  }

  caf::behavior roles() {
    return {[this](const find_role& x) -> caf::result<role_info> {
      if (x.role.empty() || x.role == role.name)
        return role;
      return fail(ec::not_found, "role: there is no role " + x.role);
    }};
  }

  caf::behavior progress() {
    return {[this](const note_progress& x) { events.push_back(x.event); }};
  }

  caf::behavior records() {
    return {[this](const put_record& x) -> caf::result<recorded> {
              if (store_is_broken)
                return fail(ec::store_failed, "the disk is full");
              kept[{x.kind, x.id}][x.seq] = x;
              return recorded{.number = x.seq};
            },
            [this](const get_records& x) -> caf::result<record_page> {
              if (store_is_unreadable)
                return fail(ec::store_failed, "the disk is gone");
              record_page page;
              for (const auto& [place, rows] : kept)
                for (const auto& [seq, row] : rows)
                  if (place.first == x.kind && (x.id.empty() ? seq == 0 : place.second == x.id))
                    page.records.push_back(row);
              return page;
            },
            [this](const drop_records& x) {
              kept.erase({x.kind, x.id});
            }};
  }

  outcome end_of(const std::string& job, const gives& what) const {
    outcome ended;
    ended.job = job;
    ended.state = what.blocked ? job_state::blocked : job_state::exited;
    ended.started_at_ms = what.blocked ? 0 : 1;
    if (what.blocked) {
      ended.verdict.decision = decision::block;
      ended.verdict.reasons = {"Code contains potentially dangerous pattern: rm"};
    } else {
      ended.exit_code = what.exit_code;
    }
    return ended;
  }

  caf::behavior machines(caf::event_based_actor* self) {
    return {[this](const list_sessions& x) {
              session_list list;
              for (const std::string& each : sessions)
                if ((x.agent_id.empty() || each == "s-" + x.agent_id)
                    && (x.session.empty() || each == x.session))
                  list.sessions.push_back({.session = each, .agent_id = x.agent_id});
              return list;
            },
            [this](const open_session& x) {
              sessions.push_back("s-" + x.agent_id);
              return session_info{.session = sessions.back(), .agent_id = x.agent_id};
            },
            [this](const close_session& x) {
              std::erase(sessions, x.session);
              return session_closed{.session = x.session};
            },
            [this](const submit& x) -> caf::result<accepted> {
              if (std::ranges::find(sessions, x.session) == sessions.end())
                return fail(ec::not_found, "session: there is no session " + x.session);
              jobs.push_back(x);
              std::string id = "job-" + std::to_string(jobs.size());
              given_[id] = runs(x);
              return accepted{.job = id, .session = x.session};
            },
            [=, this](const read& x) -> caf::result<output_slice> {
              const gives& what = given_.at(x.job);
              output_slice slice{
                  .job = x.job, .stdout_offset = x.stdout_offset, .stderr_offset = x.stderr_offset};
              std::string out =
                  what.out.substr(std::min<std::size_t>(x.stdout_offset, what.out.size()));
              std::string err =
                  what.err.substr(std::min<std::size_t>(x.stderr_offset, what.err.size()));
              slice.stdout_data.assign(out.begin(), out.end());
              slice.stderr_data.assign(err.begin(), err.end());
              if (what.endless && out.empty()) {
                auto promise = self->make_response_promise<output_slice>();
                endless_.emplace(x.job, std::pair{slice, promise});
                return promise;
              }
              if (!what.endless)
                slice.ended = end_of(x.job, what);
              return slice;
            },
            [this](const berth::cancel& x) {
              if (auto node = endless_.extract(x.job)) {
                auto& [slice, promise] = node.mapped();
                slice.ended = end_of(x.job, {});
                slice.ended->exit_code.reset();
                slice.ended->state = job_state::cancelled;
                promise.deliver(slice);
              }
              return cancelled{.job = x.job};
            },
            [this](const take_snapshot& x) {
              ++snapshots_kept;
              return snapshot_info{.snapshot = x.name + "-" + std::to_string(++snapshots)};
            },
            [this](const delete_snapshot& x) {
              --snapshots_kept;
              return snapshot_deleted{.snapshot = x.snapshot};
            },
            [this](const rollback& x) {
              rollbacks.push_back(x);
              return rolled_back{.session = x.session, .snapshot = x.snapshot};
            },
            [](const query_history& x) {
              history_page page;
              page.entries.emplace_back();
              page.entries.back().number = 7;
              page.entries.back().result.job = x.job;
              return page;
            },
            [this](const read_file& x) -> caf::result<file_content> {
              auto found = files.find(x.path);
              if (found == files.end())
                return fail(ec::not_found, "path: there is no " + x.path);
              return file_content{.path = x.path,
                                  .data = {found->second.begin(), found->second.end()},
                                  .size = found->second.size(),
                                  .eof = true};
            },
            [this](const write_file& x) {
              std::string& file = files[x.path];
              file.resize(static_cast<std::size_t>(x.offset));
              file.append(x.data.begin(), x.data.end());
              return file_info{.path = x.path, .size = file.size()};
            },
            [this](const stat_file& x) -> caf::result<file_info> {
              if (files_are_busy)
                return fail(ec::conflict, "session: it is held");
              auto found = files.find(x.path);
              if (found == files.end())
                return fail(ec::not_found, "path: there is no " + x.path);
              return file_info{.path = x.path, .size = found->second.size()};
            },
            [this](const list_files&) {
              file_list list;
              for (const auto& [path, data] : files)
                list.entries.push_back({.path = path, .size = data.size()});
              return list;
            }};
  }

  caf::actor gateway_;
  caf::actor models_;
  caf::actor roles_;
  caf::actor progress_;
  caf::actor records_;
  std::map<std::string, gives> given_;
  std::map<std::string, std::pair<output_slice, caf::typed_response_promise<output_slice>>>
      endless_;
  int calls_made_ = 0;
};

} // namespace berth::test
