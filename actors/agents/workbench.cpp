// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/workbench.hpp"

#include "actors/agents/agent_limits.hpp"
#include "actors/redaction.hpp"
#include "config/json.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <utility>

namespace berth {

namespace {

constexpr std::uint32_t output_wait_ms = 20'000;

/// Text for a redactor and back.
std::string redacted_text(std::string text) {
  bytes raw{text.begin(), text.end()};
  return redact(raw) ? to_text(raw) : text;
}

} // namespace

workbench::workbench(agent_actor::pointer self, std::shared_ptr<const settings> config,
                     gateway_actor gateway, progress_actor progress, std::string conversation)
  : self_(self)
  , config_(std::move(config))
  , gateway_(std::move(gateway))
  , progress_(std::move(progress))
  , conversation_(std::move(conversation)) {}

void workbench::begin(role_info role, std::string stream, std::string step) {
  role_ = std::move(role);
  stream_ = std::move(stream);
  step_ = std::move(step);
  cancelled_ = false;
}

void workbench::note(progress_kind kind, std::string name, std::string text, std::string job,
                     std::uint32_t number) const {
  progress_event event;
  event.id = stream_;
  event.kind = kind;
  event.step = step_;
  event.name = std::move(name);
  event.text = std::move(text);
  event.job = std::move(job);
  event.number = number;
  self_->send(progress_, note_progress{.event = std::move(event)});
}

// --- one thing at a time -------------------------------------------------------------------------

void workbench::act(const std::string& name, tool_request what, done then) {
  what_ = std::move(what);
  act_ = {};
  act_.tool = name;
  then_ = std::move(then);
  busy_ = true;
  tried_again_ = false;
  if (auto* code = std::get_if<execute_code_call>(&what_)) {
    act_.language = code->language;
    act_.code = code->code;
    if (std::string why = refusal_of_code(*code, role_); !why.empty())
      return refuse("blocked: " + why);
  } else if (auto* file = std::get_if<read_file_call>(&what_)) {
    act_.code = file->path;
  } else if (auto* written = std::get_if<write_file_call>(&what_)) {
    act_.code = written->path;
  } else if (auto* listed = std::get_if<list_files_call>(&what_)) {
    act_.code = listed->path;
  } else {
    act_.code = std::get<rollback_call>(what_).to;
  }
  with_session([this] { perform(); });
}

void workbench::perform() {
  if (cancelled_)
    return refuse("cancelled");
  if (std::holds_alternative<execute_code_call>(what_))
    return execute();
  if (auto* file = std::get_if<read_file_call>(&what_))
    return read_it(*file);
  if (std::holds_alternative<write_file_call>(what_))
    return write_it(0, 0);
  if (auto* listed = std::get_if<list_files_call>(&what_))
    return list_it(*listed);
  roll_back(std::get<rollback_call>(what_));
}

/// It was not done.
void workbench::refuse(std::string why) {
  act_.told = "error: " + why + "\n";
  act_.refused = std::move(why);
  finish();
}

/// It was done.
void workbench::tell(std::string text) {
  act_.told = std::move(text);
  finish();
}

void workbench::finish() {
  if (!busy_)
    return;
  busy_ = false;
  job_.clear();
  // The receiver may begin the next thing at once.
  done then = std::exchange(then_, nullptr);
  then(std::exchange(act_, {}));
}

void workbench::cancel() {
  cancelled_ = true;
  if (!job_.empty())
    self_->request(gateway_, caf::infinite, berth::cancel{.job = job_})
        .then([](const cancelled&) {}, [](const error&) {});
}

// --- the session ---------------------------------------------------------------------------------

void workbench::with_session(in_session then) {
  if (!session_.empty())
    return then();
  self_->request(gateway_, caf::infinite, list_sessions{.agent_id = conversation_})
      .then(
          [this, then](const session_list& found) {
            for (const session_info& each : found.sessions)
              if (each.state != session_state::closed)
                session_ = each.session;
            if (session_.empty())
              open_it(then);
            else
              then();
          },
          [this](const error& why) { refuse("no machine: " + in_words(why)); });
}

void workbench::open_it(in_session then) {
  open_session wanted;
  wanted.agent_id = conversation_;
  wanted.vm_type = role_.vm_type;
  self_->request(gateway_, caf::infinite, std::move(wanted))
      .then(
          [this, then](const session_info& opened) {
            session_ = opened.session;
            then();
          },
          [this](const error& why) { refuse("no machine: " + in_words(why)); });
}

void workbench::lose_session() {
  session_.clear();
  snapshot_before_.clear();
  last_job_.clear();
}

/// A session that was closed behind the agent's back is replaced once by a new one.
bool workbench::try_again(const error& why) {
  if (why != ec::not_found || tried_again_ || session_.empty())
    return false;
  tried_again_ = true;
  std::string lost = session_;
  self_->request(gateway_, caf::infinite, list_sessions{.session = lost})
      .then(
          [this, why](const session_list& found) {
            if (!found.sessions.empty())
              return refuse(in_words(why)); // something else was not found
            lose_session();
            note(progress_kind::warning, "session", "the machine was closed; this is a new one");
            with_session([this] { perform(); });
          },
          [this](const error& other) { refuse(in_words(other)); });
  return true;
}

void workbench::close(std::function<void()> then) {
  self_->request(gateway_, caf::infinite, list_sessions{.agent_id = conversation_})
      .then(
          [this, then](const session_list& found) {
            auto left = std::make_shared<std::size_t>(found.sessions.size());
            if (*left == 0)
              return then();
            auto one_less = [left, then] {
              if (--*left == 0)
                then();
            };
            for (const session_info& each : found.sessions)
              self_->request(gateway_, caf::infinite, close_session{.session = each.session})
                  .then([one_less](const session_closed&) { one_less(); },
                        [one_less](const error&) { one_less(); });
          },
          [then](const error&) { then(); });
}

// --- programs ------------------------------------------------------------------------------------

/// Saves the state first where it may be wanted back.
void workbench::execute() {
  if (!role_.snapshot_on_execution && !role_.auto_rollback_on_failure) {
    snapshot_before_.clear();
    return submit_it();
  }
  take_snapshot wanted{.session = session_,
                       .name = "before-run",
                       .description = "before an agent's run",
                       .wait_durable = false};
  self_->request(gateway_, caf::infinite, std::move(wanted))
      .then(
          [this](const snapshot_info& taken) {
            forget_snapshot();
            snapshot_before_ = taken.snapshot;
            submit_it();
          },
          [this](const error& why) {
            snapshot_before_.clear();
            if (try_again(why))
              return;
            note(progress_kind::warning, "snapshot", in_words(why));
            submit_it();
          });
}

/// Only the state before the last run may be wanted back, unless the role keeps them all.
void workbench::forget_snapshot() {
  if (role_.snapshot_on_execution || snapshot_before_.empty())
    return;
  self_->request(gateway_, caf::infinite, delete_snapshot{.snapshot = snapshot_before_})
      .then([](const snapshot_deleted&) {}, [](const error&) {});
}

void workbench::submit_it() {
  if (cancelled_)
    return refuse("cancelled");
  const auto& call = std::get<execute_code_call>(what_);
  submit job;
  job.code = call.code;
  job.language = call.language;
  job.session = session_;
  job.agent_id = conversation_;
  job.kernel = call.kernel || !call.context.empty();
  job.context = call.context;
  job.output_bytes =
      std::min<std::uint64_t>(limits::agent_output_bytes_max, config_->maxima.output_bytes);
  if (role_.execution_timeout_ms > 0) {
    std::uint64_t most = config_->maxima.timeout_ms;
    if (auto cap = config_->policy.security_settings.resource_limits.max_execution_time_seconds)
      most = std::min(most, *cap * 1000);
    job.timeout_ms = std::clamp<std::uint64_t>(role_.execution_timeout_ms, 1, most);
  }
  job.metadata = {{"conversation", conversation_}, {"role", role_.name}};
  self_->request(gateway_, caf::infinite, std::move(job))
      .then(
          [this](const accepted& taken) {
            job_ = taken.job;
            last_job_ = taken.job;
            note(progress_kind::code, act_.language, act_.code, job_);
            next_ = {};
            next_.job = job_;
            next_.wait_ms = output_wait_ms;
            output_ = {};
            shown_ = {};
            if (cancelled_)
              cancel();
            read_on();
          },
          [this](const error& why) {
            if (!try_again(why))
              refuse(in_words(why));
          });
}

void workbench::read_on() {
  self_->request(gateway_, caf::infinite, next_)
      .then([this](const output_slice& slice) { take(slice); },
            [this](const error& why) { refuse("its output was lost: " + in_words(why)); });
}

void workbench::take(const output_slice& slice) {
  next_.stdout_offset = slice.stdout_offset + slice.stdout_data.size();
  next_.stderr_offset = slice.stderr_offset + slice.stderr_data.size();
  bool redacts = config_->policy.security_settings.redact_output;
  const std::array<const bytes*, 2> pieces{&slice.stdout_data, &slice.stderr_data};
  for (std::size_t i = 0; i < 2; ++i) {
    std::string_view piece{pieces[i]->data(), pieces[i]->size()};
    output_[i] += piece;
    std::string text = shown_[i].take(piece);
    if (slice.ended)
      text += shown_[i].finish();
    if (redacts)
      text = redacted_text(std::move(text));
    for (std::size_t at = 0; at < text.size(); at += limits::output_event_bytes_max)
      note(progress_kind::output, i == 0 ? "stdout" : "stderr",
           to_utf8(std::string_view{text}.substr(at, limits::output_event_bytes_max)), job_);
  }
  if (slice.ended)
    ended(*slice.ended);
  else
    read_on();
}

void workbench::ended(outcome result) {
  result.stdout_data.assign(output_[0].begin(), output_[0].end());
  result.stderr_data.assign(output_[1].begin(), output_[1].end());
  if (config_->policy.security_settings.redact_output)
    redact(result);
  auto most = static_cast<std::size_t>(config_->agents.result_bytes_max);
  for (bytes* data : {&result.stdout_data, &result.stderr_data})
    if (data->size() > most / 2) {
      std::string cut = without_middle(to_text(*data), most / 2);
      data->assign(cut.begin(), cut.end());
    }
  note(progress_kind::code_ended, std::string{name_of(result.state)}, result.detail, result.job);
  act_.ended = std::move(result);
  bool failed = !succeeded(*act_.ended) && act_.ended->started_at_ms != 0;
  bool is_back = !act_.ended->rolled_back_to.empty();
  bool wants_back = failed && role_.auto_rollback_on_failure && !is_back;
  if (wants_back && !snapshot_before_.empty())
    return roll_back_failed();
  tell(told_of(*act_.ended, most)
       + (wants_back ? "The machine was not taken back: its state before was not saved.\n" : ""));
}

void workbench::roll_back_failed() {
  self_
      ->request(gateway_, caf::infinite,
                rollback{.session = session_, .snapshot = snapshot_before_})
      .then(
          [this](const rolled_back& back) {
            act_.ended->rolled_back_to = back.snapshot;
            note(progress_kind::decision, "rollback", "the failed run was undone");
            tell(told_of(*act_.ended, config_->agents.result_bytes_max));
          },
          [this](const error& why) {
            tell(told_of(*act_.ended, config_->agents.result_bytes_max)
                 + "The machine could not be taken back: " + in_words(why) + "\n");
          });
}

// --- files and states ----------------------------------------------------------------------------

void workbench::read_it(const read_file_call& call) {
  auto most =
      std::min<std::uint64_t>(config_->agents.result_bytes_max, limits::file_read_bytes_max);
  read_file wanted{.session = session_,
                   .path = call.path,
                   .offset = call.offset,
                   .bytes_max = static_cast<std::uint32_t>(most)};
  self_->request(gateway_, caf::infinite, std::move(wanted))
      .then(
          [this](const file_content& got) {
            std::string_view data{got.data.data(), got.data.size()};
            std::uint64_t end = got.offset + got.data.size();
            std::string text = "bytes " + std::to_string(got.offset) + " to " + std::to_string(end)
                               + " of " + std::to_string(got.size) + "\n";
            bool is_binary = data.find('\0') != std::string_view::npos;
            text += is_binary ? "[not text]" : to_utf8(data);
            if (!got.eof)
              text += "\n[the file goes on: read from offset " + std::to_string(end) + "]\n";
            tell(config_->policy.security_settings.redact_output ? redacted_text(std::move(text))
                                                                 : text);
          },
          [this](const error& why) {
            if (!try_again(why))
              refuse(in_words(why));
          });
}

/// In pieces. To add to a file, its size is asked for first.
void workbench::write_it(std::uint64_t offset, std::size_t from) {
  const auto& call = std::get<write_file_call>(what_);
  auto on_error = [this](const error& why) {
    if (!try_again(why))
      refuse(in_words(why));
  };
  if (call.append && offset == 0 && from == 0) {
    self_->request(gateway_, caf::infinite, stat_file{.session = session_, .path = call.path})
        .then(
            [this](const file_info& there) {
              std::get<write_file_call>(what_).append = false;
              write_it(there.size, 0);
            },
            [this, on_error](const error& why) {
              if (why != ec::not_found) // it may be there: from its beginning it would be lost
                return on_error(why);
              std::get<write_file_call>(what_).append = false;
              write_it(0, 0);
            });
    return;
  }
  std::string_view piece =
      std::string_view{call.content}.substr(from, limits::file_write_bytes_max);
  write_file wanted{.session = session_,
                    .path = call.path,
                    .data = {piece.begin(), piece.end()},
                    .offset = offset};
  self_->request(gateway_, caf::infinite, std::move(wanted))
      .then(
          [this, offset, next = from + piece.size(), size = piece.size()](const file_info& there) {
            if (next < std::get<write_file_call>(what_).content.size() && !cancelled_)
              return write_it(offset + size, next);
            tell("written: " + there.path + ", " + std::to_string(there.size) + " bytes\n");
          },
          on_error);
}

void workbench::list_it(const list_files_call& call) {
  list_files wanted{.session = session_, .path = call.path, .depth = call.depth};
  self_->request(gateway_, caf::infinite, std::move(wanted))
      .then(
          [this](const file_list& found) {
            std::string text;
            for (const file_info& each : found.entries) {
              text += each.kind == file_kind::directory ? "directory "
                      : each.kind == file_kind::symlink ? "link "
                                                        : "file ";
              text += each.path + " " + std::to_string(each.size) + " bytes\n";
            }
            if (text.empty())
              text = "(empty)\n";
            if (found.truncated)
              text += "[there are more]\n";
            tell(without_middle(text, config_->agents.result_bytes_max));
          },
          [this](const error& why) {
            if (!try_again(why))
              refuse(in_words(why));
          });
}

void workbench::roll_back(const rollback_call& call) {
  rollback wanted{.session = session_};
  if (call.to == "last_success")
    wanted.last_success = true;
  else if (call.to != "before_last_run")
    wanted.snapshot = call.to;
  else if (!snapshot_before_.empty())
    wanted.snapshot = snapshot_before_;
  else
    return roll_back_before_last_job();
  roll_back_to(std::move(wanted));
}

/// No snapshot was taken by the agent itself: the server may have one all the same.
void workbench::roll_back_before_last_job() {
  if (last_job_.empty())
    return refuse("there was no run to go back from");
  query_history query;
  query.job = last_job_;
  self_->request(gateway_, caf::infinite, std::move(query))
      .then(
          [this](const history_page& page) {
            if (page.entries.empty())
              return refuse("there was no run to go back from");
            rollback wanted{.session = session_};
            wanted.before_entry = page.entries.front().number;
            roll_back_to(std::move(wanted));
          },
          [this](const error& why) { refuse(in_words(why)); });
}

void workbench::roll_back_to(rollback request) {
  self_->request(gateway_, caf::infinite, std::move(request))
      .then(
          [this](const rolled_back& back) {
            snapshot_before_.clear();
            tell("The machine's files are as they were at " + back.snapshot + "."
                 + (back.detail.empty() ? "" : " " + back.detail) + "\n");
          },
          [this](const error& why) { refuse(in_words(why)); });
}

} // namespace berth
