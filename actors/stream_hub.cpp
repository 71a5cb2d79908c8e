// SPDX-License-Identifier: Apache-2.0
#include "actors/stream_hub.hpp"

#include "actors/redaction.hpp"
#include "config/limits.hpp"
#include "messages/codec.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>

namespace berth {

namespace {

/// One stream of a job. The first bytes are in memory; what exceeds that is in the spool, from the
/// offset `memory.size()` on.
struct stream {
  bytes memory;
  bool spooling = false;   // from here on everything goes to the spool, so that order holds
  std::uint64_t taken = 0; // bytes accepted, those on their way to the spool included
  std::uint64_t kept = 0;  // bytes in memory and spool: what readers may have
  std::uint64_t lost = 0;  // bytes past the job's limit
};

/// A reader that waits for news.
struct reader {
  std::uint64_t ticket = 0;
  read request;
  caf::typed_response_promise<output_slice> promise;
};

/// The output of one job.
struct job_streams {
  std::array<stream, 2> streams; // stdout, stderr
  std::uint64_t output_bytes = 0;
  job_state state = job_state::queued;
  maybe<outcome> ended;
  std::vector<reader> readers;
};

/// Bytes of what a cell showed.
std::size_t shown_bytes(const outcome& ended) {
  std::size_t size = 0;
  if (ended.cell)
    for (const rich_result& each : ended.cell->results)
      for (const auto& [mime, content] : each.data)
        size += mime.size() + content.size();
  return size;
}

/// STREAM HUB: everybody's output.
class hub_state {
public:
  static constexpr const char* name = "berth.stream_hub";

  stream_hub_actor::behavior_type make_behavior(stream_hub_actor::pointer self,
                                                stream_hub_parts parts);

private:
  void on_open(const open_stream& request);
  caf::result<output_taken> on_chunk(output_chunk& chunk);
  caf::result<outcome> on_close(close_stream& request);
  caf::result<output_slice> on_read(const read& request);
  void on_announce(const announce& message);
  output_taken on_announce_files(const announce_files& message) const;
  void on_timeout(std::uint64_t ticket);

  void finish(const std::string& id, job_streams& job, outcome& result);
  static bytes from_memory(const stream& from, std::uint64_t offset, std::uint64_t size);
  void wake_readers(job_streams& job);
  bool has_news(const job_streams& job, const read& request) const;
  void answer(job_streams& job, const read& request,
              caf::typed_response_promise<output_slice> promise);
  void fill_from_spool(const std::string& job, std::uint32_t which, std::uint64_t offset,
                       std::uint64_t size, std::function<void(bytes)> done);
  void fetch(const std::string& id, const stream& from, std::uint32_t which, std::uint64_t offset,
             std::uint64_t size, std::function<void(bytes)> done);
  void retire_oldest();
  std::size_t memory_of(const job_streams& job) const;

  stream_hub_actor::pointer self_ = nullptr;
  stream_hub_parts parts_;
  std::unordered_map<std::string, job_streams> jobs_;
  std::deque<std::string> ended_; // oldest first
  std::size_t memory_ = 0;        // bytes of output in memory, all jobs
  std::uint64_t next_ticket_ = 0;
  std::unordered_map<std::uint64_t, std::string> waiting_; // ticket -> job
};

stream_hub_actor::behavior_type hub_state::make_behavior(stream_hub_actor::pointer self,
                                                         stream_hub_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  return {
      [this](const open_stream& x) { on_open(x); },
      [this](output_chunk& x) { return on_chunk(x); },
      [this](close_stream& x) { return on_close(x); },
      [this](const read& x) { return on_read(x); },
      [this](const announce& x) { on_announce(x); },
      [this](const announce_files& x) { return on_announce_files(x); },
      [this](caf::timeout_atom, std::uint64_t ticket) { on_timeout(ticket); },
  };
}

void hub_state::on_open(const open_stream& request) {
  jobs_[request.job].output_bytes = request.output_bytes;
}

caf::result<output_taken> hub_state::on_chunk(output_chunk& chunk) {
  auto found = jobs_.find(chunk.job);
  std::uint64_t offered = chunk.data.size();
  if (found == jobs_.end() || found->second.ended)
    return output_taken{.bytes_taken = offered};
  job_streams& job = found->second;
  stream& to = job.streams[chunk.stream == guest::stderr_stream ? 1 : 0];
  std::uint64_t room = job.output_bytes - std::min(job.output_bytes, to.taken);
  if (offered > room) {
    to.lost += offered - room;
    chunk.data.resize(static_cast<std::size_t>(room));
  }
  if (chunk.data.empty())
    return output_taken{.bytes_taken = offered};
  if (parts_.sink && parts_.sink->wanted()) {
    const char* stream_name = chunk.stream == guest::stderr_stream ? ".stderr" : ".stdout";
    output_event event{.job = chunk.job, .offset = to.taken, .data = chunk.data};
    parts_.sink->publish("job." + chunk.job + stream_name, encode(event));
  }
  std::uint64_t size = chunk.data.size();
  to.taken += size;
  to.spooling = to.spooling || to.memory.size() + size > limits::stream_memory_bytes_max
                || memory_ + size > limits::hub_memory_bytes_max;
  if (!to.spooling) {
    to.memory.insert(to.memory.end(), chunk.data.begin(), chunk.data.end());
    memory_ += chunk.data.size();
    to.kept += size;
    wake_readers(job);
    return output_taken{.bytes_taken = offered};
  }
  // To the spool; the writer's credit comes back when it is there.
  auto promise = self_->make_response_promise<output_taken>();
  std::string id = chunk.job;
  std::uint32_t which = chunk.stream == guest::stderr_stream ? 1 : 0;
  self_->request(parts_.spool, caf::infinite, std::move(chunk))
      .then(
          [this, id, which, size, offered, promise](const output_taken& taken) mutable {
            if (auto place = jobs_.find(id); place != jobs_.end()) {
              stream& grown = place->second.streams[which];
              grown.kept += std::min(taken.bytes_taken, size);
              grown.lost += size - std::min(taken.bytes_taken, size);
              wake_readers(place->second);
            }
            promise.deliver(output_taken{.bytes_taken = offered});
          },
          [this, id, which, size, offered, promise](const error&) mutable {
            if (auto place = jobs_.find(id); place != jobs_.end())
              place->second.streams[which].lost += size;
            promise.deliver(output_taken{.bytes_taken = offered});
          });
  return promise;
}

caf::result<outcome> hub_state::on_close(close_stream& request) {
  std::string id = request.ended.job;
  auto found = jobs_.find(id);
  if (found == jobs_.end())
    return fail(ec::internal, "no output of job " + id + " was opened");
  std::uint64_t wanted = parts_.config->reply_output_bytes;
  if (std::ranges::none_of(found->second.streams, &stream::spooling)) {
    const auto& [out, err] = found->second.streams;
    request.ended.stdout_data = from_memory(out, 0, wanted);
    request.ended.stderr_data = from_memory(err, 0, wanted);
    finish(id, found->second, request.ended);
    return std::move(request.ended);
  }
  auto promise = self_->make_response_promise<outcome>();
  auto result = std::make_shared<outcome>(std::move(request.ended));
  // Reading from the spool also waits for what is still being appended: it works in order.
  fetch(id, found->second.streams[0], 0, 0, wanted,
        [this, id, result, promise, wanted](bytes out) mutable {
          auto place = jobs_.find(id);
          if (place == jobs_.end())
            return;
          result->stdout_data = std::move(out);
          fetch(id, place->second.streams[1], 1, 0, wanted,
                [this, id, result, promise](bytes err) mutable {
                  auto job_at = jobs_.find(id);
                  if (job_at == jobs_.end())
                    return;
                  result->stderr_data = std::move(err);
                  finish(id, job_at->second, *result);
                  promise.deliver(std::move(*result));
                });
        });
  return promise;
}

/// Ends a job's streams. The outcome has the output it is to have; it is counted and redacted here.
void hub_state::finish(const std::string& id, job_streams& job, outcome& result) {
  // The guest's own count of what it did not send comes in the outcome.
  for (std::size_t i = 0; i < 2; ++i) {
    std::uint64_t& total = i == 0 ? result.stdout_bytes : result.stderr_bytes;
    job.streams[i].lost += total;
    total = job.streams[i].kept + job.streams[i].lost;
  }
  result.stdout_truncated = result.stdout_data.size() < result.stdout_bytes;
  result.stderr_truncated = result.stderr_data.size() < result.stderr_bytes;
  if (parts_.config->policy.security_settings.redact_output)
    redact(result);
  job.state = result.state;
  // What is kept for readers has no output: they read that.
  bytes out = std::exchange(result.stdout_data, {});
  bytes err = std::exchange(result.stderr_data, {});
  job.ended = result;
  result.stdout_data = std::move(out);
  result.stderr_data = std::move(err);
  memory_ += shown_bytes(*job.ended);
  ended_.push_back(id);
  if (std::ranges::any_of(job.streams, &stream::spooling))
    self_->send(parts_.spool, end_spool{.job = id});
  wake_readers(job);
  retire_oldest();
}

/// Bytes of one stream that memory has.
bytes hub_state::from_memory(const stream& from, std::uint64_t offset, std::uint64_t size) {
  if (offset >= from.memory.size())
    return {};
  auto begin = from.memory.begin() + static_cast<std::ptrdiff_t>(offset);
  auto count = std::min<std::uint64_t>(size, from.memory.size() - offset);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

/// Bytes of one stream from an offset, from memory or, when they reach beyond it, from the spool.
void hub_state::fetch(const std::string& id, const stream& from, std::uint32_t which,
                      std::uint64_t offset, std::uint64_t size, std::function<void(bytes)> done) {
  bytes data = from_memory(from, offset, size);
  std::uint64_t next = offset + data.size();
  if (!from.spooling || data.size() >= size) {
    done(std::move(data));
    return;
  }
  std::uint64_t more = size - data.size();
  auto head = std::make_shared<bytes>(std::move(data));
  fill_from_spool(id, which, next - from.memory.size(), more,
                  [head, done = std::move(done)](bytes tail) {
                    head->insert(head->end(), tail.begin(), tail.end());
                    done(std::move(*head));
                  });
}

void hub_state::fill_from_spool(const std::string& job, std::uint32_t which, std::uint64_t offset,
                                std::uint64_t size, std::function<void(bytes)> done) {
  read_spool request{.job = job,
                     .stream = which == 1 ? guest::stderr_stream : guest::stdout_stream,
                     .offset = offset,
                     .bytes_max = size};
  self_->request(parts_.spool, caf::infinite, std::move(request))
      .then([done](spooled& answer) { done(std::move(answer.data)); },
            [done](const error&) { done({}); });
}

bool hub_state::has_news(const job_streams& job, const read& request) const {
  return job.ended || request.stdout_offset < job.streams[0].kept
         || request.stderr_offset < job.streams[1].kept;
}

caf::result<output_slice> hub_state::on_read(const read& request) {
  auto found = jobs_.find(request.job);
  if (found == jobs_.end())
    return fail(ec::not_found,
                "job: no output of job " + request.job + " is held; `history` may have it");
  job_streams& job = found->second;
  if (request.stdout_offset > job.streams[0].kept)
    return fail(ec::malformed, "stdout_offset: " + std::to_string(request.stdout_offset)
                                   + " is beyond the " + std::to_string(job.streams[0].kept)
                                   + " bytes written");
  if (request.stderr_offset > job.streams[1].kept)
    return fail(ec::malformed, "stderr_offset: " + std::to_string(request.stderr_offset)
                                   + " is beyond the " + std::to_string(job.streams[1].kept)
                                   + " bytes written");
  bool waits = request.wait_ms > 0 && !has_news(job, request);
  if (waits && job.readers.size() >= limits::readers_per_job_max)
    return caf::make_error(ec::no_capacity, "too many readers wait for job " + request.job,
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  // From here on only the promise answers.
  auto promise = self_->make_response_promise<output_slice>();
  if (!waits) {
    answer(job, request, promise);
    return promise;
  }
  std::uint64_t ticket = ++next_ticket_;
  job.readers.push_back({.ticket = ticket, .request = request, .promise = promise});
  waiting_[ticket] = request.job;
  auto wait = std::min<std::chrono::milliseconds>(std::chrono::milliseconds{request.wait_ms},
                                                  limits::read_wait_max);
  self_->delayed_send(self_, wait, caf::timeout_atom_v, ticket);
  return promise;
}

void hub_state::on_timeout(std::uint64_t ticket) {
  auto found = waiting_.find(ticket);
  if (found == waiting_.end())
    return;
  auto place = jobs_.find(found->second);
  waiting_.erase(found);
  if (place == jobs_.end())
    return;
  auto& readers = place->second.readers;
  auto mine = std::ranges::find(readers, ticket, &reader::ticket);
  if (mine == readers.end())
    return;
  reader late = std::move(*mine);
  readers.erase(mine);
  answer(place->second, late.request, late.promise);
}

void hub_state::wake_readers(job_streams& job) {
  if (job.readers.empty())
    return;
  std::vector<reader> readers;
  readers.swap(job.readers);
  for (auto& each : readers) {
    if (has_news(job, each.request)) {
      waiting_.erase(each.ticket);
      answer(job, each.request, each.promise);
    } else {
      job.readers.push_back(std::move(each));
    }
  }
}

void hub_state::answer(job_streams& job, const read& request,
                       caf::typed_response_promise<output_slice> promise) {
  std::uint64_t size = request.bytes_max == 0 ? limits::read_bytes_default : request.bytes_max;
  size = std::min<std::uint64_t>(size, limits::read_bytes_max);
  auto slice = std::make_shared<output_slice>();
  slice->job = request.job;
  slice->state = job.state;
  slice->stdout_offset = request.stdout_offset;
  slice->stderr_offset = request.stderr_offset;
  slice->stdout_lost = job.streams[0].lost;
  slice->stderr_lost = job.streams[1].lost;
  // What is promised is what was kept when the question came; later bytes wait for the next one.
  std::uint64_t out_end = job.streams[0].kept;
  std::uint64_t err_end = job.streams[1].kept;
  maybe<outcome> ended = job.ended;
  const std::string id = request.job;
  fetch(id, job.streams[0], 0, request.stdout_offset,
        std::min(size, out_end - request.stdout_offset),
        [this, id, slice, size, out_end, err_end, ended, promise](bytes out) mutable {
          slice->stdout_data = std::move(out);
          auto place = jobs_.find(id);
          if (place == jobs_.end()) {
            promise.deliver(fail(ec::not_found, "job: the output is held no more"));
            return;
          }
          fetch(id, place->second.streams[1], 1, slice->stderr_offset,
                std::min(size, err_end - slice->stderr_offset),
                [slice, out_end, err_end, ended, promise](bytes err) mutable {
                  slice->stderr_data = std::move(err);
                  bool all = slice->stdout_offset + slice->stdout_data.size() >= out_end
                             && slice->stderr_offset + slice->stderr_data.size() >= err_end;
                  if (all)
                    slice->ended = ended;
                  promise.deliver(*slice);
                });
        });
}

void hub_state::on_announce(const announce& message) {
  if (message.event.state == name_of(job_state::running))
    if (auto found = jobs_.find(message.event.id); found != jobs_.end() && !found->second.ended)
      found->second.state = job_state::running;
  if (parts_.sink && parts_.sink->wanted())
    parts_.sink->publish(message.topic, encode(message.event));
}

output_taken hub_state::on_announce_files(const announce_files& message) const {
  if (parts_.sink && parts_.sink->wanted())
    for (const file_event& each : message.events)
      parts_.sink->publish("session." + message.session + ".files", encode(each));
  return {};
}

std::size_t hub_state::memory_of(const job_streams& job) const {
  return job.streams[0].memory.size() + job.streams[1].memory.size()
         + (job.ended ? shown_bytes(*job.ended) : 0);
}

/// Forgets the output of jobs that ended long ago, within the bounds of number and memory.
void hub_state::retire_oldest() {
  while (ended_.size() > limits::jobs_retained_max
         || (memory_ > limits::hub_memory_bytes_max / 2 && ended_.size() > 1)) {
    std::string id = std::move(ended_.front());
    ended_.pop_front();
    auto found = jobs_.find(id);
    if (found == jobs_.end())
      continue;
    for (auto& each : found->second.readers) {
      waiting_.erase(each.ticket);
      each.promise.deliver(fail(ec::not_found, "job: the output is held no more"));
    }
    memory_ -= memory_of(found->second);
    if (std::ranges::any_of(found->second.streams, &stream::spooling))
      self_->send(parts_.spool, drop_spool{.job = id});
    jobs_.erase(found);
  }
}

stream_hub_actor::behavior_type stream_hub(stream_hub_actor::stateful_pointer<hub_state> self,
                                           stream_hub_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

stream_hub_actor spawn_stream_hub(caf::actor_system& system, stream_hub_parts parts) {
  return system.spawn(stream_hub, std::move(parts));
}

} // namespace berth
