// SPDX-License-Identifier: Apache-2.0
#include "guest/job.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>

namespace berth::guest {

namespace {

/// What one pipe may say before others have their turn.
constexpr std::size_t turn_bytes = 4 * 64 * limits::kib;

std::uint64_t microseconds(const timeval& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1000000
         + static_cast<std::uint64_t>(time.tv_usec);
}

} // namespace

output_streams make_output_streams() {
  return {.no_input = owned_fd{open("/dev/null", O_RDONLY | O_CLOEXEC)},
          .out = make_pipe(true),
          .err = make_pipe(true)};
}

job::job(event_loop& loop, channel& out, const start_job& start)
  : loop_(loop)
  , channel_(out)
  , number_(start.job)
  , exclusive_(start.exclusive)
  , want_binary_(start.want_binary)
  , input_eof_(!start.stdin_open) {
  sources_[0].stream = stdout_stream;
  sources_[1].stream = stderr_stream;
  for (source& each : sources_)
    each.room = start.output_bytes;
}

job::~job() {
  for (source& each : sources_)
    loop_.forget(each.pipe.get());
  close_input();
  if (!steps.directory.empty() && !exclusive_)
    remove_directory(steps.directory);
}

bool job::open_streams(output_streams ready) {
  if (!ready)
    ready = make_output_streams();
  pipe_pair in{.ours = {}, .theirs = std::move(ready.no_input)};
  if (!input_eof_ || !steps.stages.back().preface.empty())
    in = make_pipe(false);
  if (!in.theirs || !ready.out.theirs || !ready.err.theirs)
    return false;
  theirs_[0] = std::move(in.theirs);
  theirs_[1] = std::move(ready.out.theirs);
  theirs_[2] = std::move(ready.err.theirs);
  adopt_streams(std::move(in.ours), std::move(ready.out.ours), std::move(ready.err.ours));
  return true;
}

void job::adopt_streams(owned_fd in, owned_fd out, owned_fd err) {
  input_ = std::move(in);
  sources_[0].pipe = std::move(out);
  sources_[1].pipe = std::move(err);
}

void job::drop_program_ends() {
  for (owned_fd& each : theirs_)
    each.reset();
}

void job::watch_output() {
  reading_ = true;
  for (source& each : sources_)
    watch(each);
}

void job::watch(source& from) {
  if (from.pipe)
    loop_.watch(from.pipe.get(), EPOLLIN, [this, &from](std::uint32_t) {
      if (pump(from, turn_bytes) == pump_result::held)
        loop_.forget(from.pipe.get());
    });
}

job::pump_result job::pump(source& from, std::size_t bytes_max) {
  static std::array<char, 64 * limits::kib> buffer;
  std::size_t done = 0;
  while (from.pipe && done < bytes_max) {
    if (from.room > 0 && channel_.full())
      return pump_result::held;
    ssize_t count =
        ::read(from.pipe.get(), buffer.data(), std::min(buffer.size(), bytes_max - done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0 && errno == EAGAIN)
      return pump_result::empty;
    if (count <= 0) {
      loop_.forget(from.pipe.get());
      from.pipe.reset();
      break;
    }
    deliver(from, buffer.data(), static_cast<std::size_t>(count));
    done += static_cast<std::size_t>(count);
    from.last -= std::min(from.last, static_cast<std::size_t>(count));
  }
  return from.pipe ? pump_result::empty : pump_result::ended;
}

void job::deliver(source& from, const char* data, std::size_t size) {
  std::size_t sent = static_cast<std::size_t>(std::min<std::uint64_t>(from.room, size));
  if (sent > 0)
    channel_.send(output{number_, from.stream, bytes{data, data + sent}});
  from.room -= sent;
  from.lost += size - sent;
}

void job::complain(std::string_view text) {
  deliver(sources_[1], text.data(), text.size());
}

void job::on_room() {
  if (!reading_)
    return;
  for (source& each : sources_)
    if (each.pipe && !loop_.watches(each.pipe.get()))
      watch(each);
}

bool job::drain() {
  if (!draining_) {
    draining_ = true;
    reading_ = false;
    // What the dead wrote, and not a byte more: a pipe's end may have been handed to a living
    // process of another job, which must not keep this one open.
    for (source& each : sources_) {
      int available = 0;
      if (each.pipe) {
        loop_.forget(each.pipe.get());
        ioctl(each.pipe.get(), FIONREAD, &available);
      }
      each.last = static_cast<std::size_t>(std::max(available, 0));
    }
    close_input();
  }
  bool done = true;
  for (source& each : sources_)
    if (each.last > 0 && pump(each, each.last) == pump_result::held)
      done = false;
  return done;
}

std::vector<owned_fd> job::take_open_pipes() {
  std::array<pollfd, 2> ends{};
  for (std::size_t i = 0; i < ends.size(); ++i)
    ends[i] = {sources_[i].pipe.get(), POLLIN, 0};
  std::vector<owned_fd> open;
  if (poll(ends.data(), ends.size(), 0) < 0)
    return open;
  for (std::size_t i = 0; i < ends.size(); ++i)
    if (sources_[i].pipe && (ends[i].revents & POLLHUP) == 0)
      open.push_back(std::move(sources_[i].pipe));
  return open;
}

void job::open_input(std::string_view preface) {
  input_ready_ = true;
  preface_left_ = preface.size();
  input_queue_.insert(input_queue_.begin(), preface.begin(), preface.end());
  write_input();
}

bool job::feed(const stdin_data& input) {
  if (input_eof_)
    return true;
  input_eof_ = input.eof;
  if (!input_) {
    // The program closed its end: nobody will read this.
    if (!input.data.empty())
      channel_.send(stdin_taken{number_, input.data.size()});
    return true;
  }
  if (input_queue_.size() + input.data.size() > input_bytes_max + preface_left_)
    return false;
  input_queue_.insert(input_queue_.end(), input.data.begin(), input.data.end());
  if (input_ready_)
    write_input();
  return true;
}

void job::write_input() {
  std::size_t done = 0;
  bool closed = false;
  while (input_ && done < input_queue_.size()) {
    ssize_t count = write(input_.get(), input_queue_.data() + done, input_queue_.size() - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0 && errno != EAGAIN) {
      done = input_queue_.size();
      closed = true;
    }
    if (count < 0)
      break;
    done += static_cast<std::size_t>(count);
  }
  std::size_t preface = std::min(done, preface_left_);
  preface_left_ -= preface;
  input_queue_.erase(input_queue_.begin(),
                     input_queue_.begin() + static_cast<std::ptrdiff_t>(done));
  if (done > preface)
    channel_.send(stdin_taken{number_, done - preface});
  if (closed || (input_queue_.empty() && input_eof_))
    return close_input();
  if (!input_)
    return;
  if (input_queue_.empty())
    loop_.forget(input_.get());
  else if (!loop_.watches(input_.get()))
    loop_.watch(input_.get(), EPOLLOUT, [this](std::uint32_t) { write_input(); });
}

void job::close_input() {
  loop_.forget(input_.get());
  input_.reset();
}

void job::add_usage(const rusage& usage) {
  std::uint64_t used = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
  std::uint64_t before = std::min(used, cpu_before_us);
  cpu_before_us -= before;
  cpu_us_ += used - before;
  memory_peak_bytes_ =
      std::max(memory_peak_bytes_, static_cast<std::uint64_t>(usage.ru_maxrss) * 1024);
}

void job::add_account(std::uint64_t cpu_us, std::uint64_t memory_peak_bytes) {
  cpu_us_ += cpu_us;
  memory_peak_bytes_ = std::max(memory_peak_bytes_, memory_peak_bytes);
}

void job::set_status(int wait_status) {
  status_ = wait_status;
  auto elapsed = std::chrono::steady_clock::now() - started_;
  wall_us_ = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count());
}

job_ended job::outcome() const {
  job_ended ended;
  ended.job = number_;
  if (WIFSIGNALED(status_))
    ended.signal = static_cast<std::uint32_t>(WTERMSIG(status_));
  else
    ended.exit_code = WEXITSTATUS(status_);
  ended.wall_us = wall_us_;
  ended.cpu_us = cpu_us_;
  ended.memory_peak_bytes = memory_peak_bytes_;
  ended.stdout_lost = sources_[0].lost;
  ended.stderr_lost = sources_[1].lost;
  return ended;
}

} // namespace berth::guest
