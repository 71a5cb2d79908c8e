// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/live_runs.hpp"

namespace berth::http::fcctl {

namespace {

constexpr std::size_t runs_max = 64;
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

} // namespace

/// One program with what is read of it.
struct live_runs::run_state : execution {
  bool cancel_wanted = false;
  std::uint64_t stdout_offset = 0;
  std::uint64_t stderr_offset = 0;
  text_stream stdout_text;
  text_stream stderr_text;
  bytes stdout_kept;
  bytes stderr_kept;
  bool finished = false;
  /// Set while the program waits for a slow reader of the socket.
  bool paused = false;
  run_ended then;
};

live_runs::live_runs(desk gateway, const settings& values, std::shared_ptr<channel> out,
                     run_watcher& watcher)
  : gateway_(std::move(gateway))
  , values_(values)
  , out_(std::move(out))
  , watcher_(watcher) {}

live_runs::~live_runs() = default;

bool live_runs::start(execute_request asked, run_ended then) {
  auto e = std::make_shared<run_state>();
  bool named = !asked.execution_id.empty();
  e->id = named ? asked.execution_id : "unnamed-" + std::to_string(++unnamed_);
  e->asked = std::move(asked);
  error refused;
  if (runs_.size() >= runs_max)
    refused = fail(ec::no_capacity,
                   "more than " + std::to_string(runs_max) + " executions on one socket");
  else if (!runs_.emplace(e->id, e).second)
    refused = fail(ec::already_exists, "execution_id: is in use on this socket");
  if (refused) {
    watcher_.on_failed(*e, refused);
    return false;
  }
  e->then = std::move(then);
  submit job;
  static_cast<run&>(job) = e->asked.job;
  gateway_.ask<accepted>(std::move(job),
                         [self = shared_from_this(), e](const expected<accepted>& answer) {
                           self->on_accepted(e, answer);
                         });
  return true;
}

void live_runs::on_accepted(const std::shared_ptr<run_state>& e, const expected<accepted>& answer) {
  if (!answer)
    return fail_run(e, answer.error());
  e->job = answer->job;
  if (e->asked.execution_id.empty())
    e->asked.execution_id = answer->job;
  if (e->cancel_wanted || closed_)
    stop(*e);
  if (!closed_)
    follow(e);
}

void live_runs::follow(const std::shared_ptr<run_state>& e) {
  if (out_->queued_bytes() >= queued_bytes_high) {
    e->paused = true;
    return;
  }
  e->paused = false;
  gateway_.ask<output_slice>(read{.job = e->job,
                                  .stdout_offset = e->stdout_offset,
                                  .stderr_offset = e->stderr_offset,
                                  .wait_ms = read_wait_ms,
                                  .bytes_max = read_bytes},
                             [self = shared_from_this(), e](expected<output_slice> answer) {
                               if (self->closed_)
                                 return;
                               if (!answer)
                                 return self->fail_run(e, answer.error());
                               self->on_slice(e, *answer);
                             });
}

void live_runs::on_slice(const std::shared_ptr<run_state>& e, const output_slice& slice) {
  std::size_t most = values_.reply_output_bytes;
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

void live_runs::put_output(const run_state& e, const char* stream, const std::string& text) {
  if (!text.empty())
    watcher_.on_output(e, stream, text);
}

void live_runs::finish(const std::shared_ptr<run_state>& e, outcome ended) {
  ended.stdout_data = std::move(e->stdout_kept);
  ended.stderr_data = std::move(e->stderr_kept);
  ended.stdout_truncated = ended.stdout_bytes > ended.stdout_data.size();
  ended.stderr_truncated = ended.stderr_bytes > ended.stderr_data.size();
  watcher_.on_ended(*e, ended);
  forget(e, execute_response(ended, e->asked));
}

void live_runs::fail_run(const std::shared_ptr<run_state>& e, const error& why) {
  if (!closed_)
    watcher_.on_failed(*e, why);
  forget(e, {{"error", to_refusal(why).detail}});
}

void live_runs::forget(const std::shared_ptr<run_state>& e, const json& answer) {
  e->finished = true;
  runs_.erase(e->id);
  if (auto then = std::exchange(e->then, nullptr); then && !closed_)
    then(answer);
}

void live_runs::stop(const run_state& e) {
  gateway_.ask<cancelled>(berth::cancel{e.job}, [](const expected<cancelled>&) {});
}

bool live_runs::cancel(const std::string& id) {
  bool found = false;
  for (auto& [unused, e] : runs_) {
    if (e->asked.execution_id != id && e->job != id)
      continue;
    found = true;
    e->cancel_wanted = true;
    if (!e->job.empty())
      stop(*e);
  }
  return found;
}

void live_runs::resume() {
  auto all = runs_;
  for (auto& [unused, e] : all)
    if (e->paused && !e->finished)
      follow(e);
}

void live_runs::close() {
  closed_ = true;
  for (auto& [unused, e] : runs_)
    if (!e->job.empty())
      stop(*e);
  runs_.clear();
}

} // namespace berth::http::fcctl
