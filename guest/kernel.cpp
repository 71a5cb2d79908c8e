// SPDX-License-Identifier: Apache-2.0
#include "guest/kernel.hpp"

#include "guest/launch.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace berth::guest {

namespace {

/// Until its cell ends, an interpreter that may miss an interrupt gets another so often.
constexpr long repeat_interrupt_ms = 100;

start_job streams_of(const run_cell& request) {
  start_job start;
  start.job = request.job;
  start.stdin_open = request.stdin_open;
  start.output_bytes = request.output_bytes;
  return start;
}

} // namespace

cell::cell(event_loop& loop, channel& out, const run_cell& request)
  : streams(loop, out, streams_of(request))
  , code(request.code)
  , stdin_open(request.stdin_open) {
  streams.steps.stages.emplace_back();
}

void cell::show(rich_result result, std::size_t size) {
  if (report.results.size() >= kernel::results_max
      || size > kernel::result_bytes_max - std::min(result_bytes, kernel::result_bytes_max)) {
    ++results_lost;
    results_lost_bytes += size;
    return;
  }
  result_bytes += size;
  report.results.push_back(std::move(result));
}

kernel::kernel(event_loop& loop, channel& out, open_kernel request, const events& told)
  : link(
      loop,
      [this, &told](std::span<const char> body) {
        if (auto word = kernel_words::read(body))
          told.on_word(*this, *word);
        else
          told.on_end(*this, "it said what is no word of an interpreter");
      },
      [this, &told](bool broken) {
        told.on_end(*this, broken ? "it announced a frame of impossible length" : "");
      })
  , loop_(loop)
  , channel_(out)
  , request_(std::move(request)) {}

kernel::~kernel() {
  for (const owned_fd& pipe : strays_)
    loop_.forget(pipe.get());
  loop_.forget(repeat_timer_.get());
}

void kernel::take_cell(const run_cell& request) {
  current = std::make_unique<cell>(loop_, channel_, request);
}

bool kernel::begin_cell() {
  cell& each = *current;
  phase = kernel_phase::busy;
  owned_fd file;
  if (each.code.size() > kernel_words::inline_code_bytes_max)
    file = memory_file("cell", each.code.data(), each.code.size());
  if (!each.streams.open_streams(std::exchange(next_streams_, {})))
    return false;
  std::array<int, 4> fds{each.streams.program_stdin(), each.streams.program_stdout(),
                         each.streams.program_stderr(), file.get()};
  bytes frame = kernel_words::run_cell(each.streams.number(), each.stdin_open, each.code,
                                       static_cast<bool>(file));
  each.streams.cpu_before_us = cpu_time_us(pid);
  if (!link.send(frame, std::span{fds}.first(file ? 4 : 3)))
    return false;
  // From here on it may have our processor: what can wait for its end does.
  each.code.clear();
  each.streams.watch_output();
  each.streams.open_input({});
  return true;
}

void kernel::end_cell(const kernel_words::ended& said) {
  cell& each = *current;
  cells = said.count;
  each.report.execution_count = said.count;
  each.report.error = said.error;
  each.streams.set_status(W_EXITCODE(said.status & 0xFF, 0));
  std::uint64_t now = cpu_time_us(pid);
  each.streams.add_account(now - std::min(now, each.streams.cpu_before_us), said.memory_peak_bytes);
  each.over = true;
  phase = kernel_phase::idle;
}

void kernel::kill_cell(int status, const rusage& usage) {
  cell& each = *current;
  each.report.execution_count = cells;
  each.report.kernel_alive = false;
  each.streams.add_usage(usage);
  each.streams.set_status(status);
  each.over = true;
}

bool kernel::finish_cell() {
  if (!current || !current->over || !current->streams.drain())
    return false;
  cell& each = *current;
  cell_ended message;
  message.ended = each.streams.outcome();
  message.report = std::move(each.report);
  message.results_lost = each.results_lost;
  message.results_lost_bytes = each.results_lost_bytes;
  message.late_bytes = std::exchange(late_bytes_, 0);
  if (!message.report.kernel_alive)
    message.reason = reason;
  channel_.send(message);
  channel_.flush(); // all that follows can wait
  each.streams.drop_program_ends();
  keep_strays();
  current.reset();
  if (!dead())
    next_streams_ = make_output_streams();
  return true;
}

/// Children that a cell left behind go on writing to its pipes: a closed one might end them, and a
/// full one would stop them. What they write is counted. An interpreter that said the end before it
/// let go of them does so in a moment.
void kernel::keep_strays() {
  for (owned_fd& pipe : current->streams.take_open_pipes()) {
    if (strays_.size() >= strays_max) {
      loop_.forget(strays_.front().get());
      strays_.pop_front();
    }
    strays_.push_back(std::move(pipe));
    auto it = std::prev(strays_.end());
    loop_.watch(it->get(), EPOLLIN, [this, it](std::uint32_t) { drain_stray(it); });
  }
}

void kernel::drain_stray(std::list<owned_fd>::iterator it) {
  static std::array<char, 64 * limits::kib> buffer;
  ssize_t count = ::read(it->get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (count > 0) {
    late_bytes_ += static_cast<std::uint64_t>(count);
    return;
  }
  loop_.forget(it->get());
  strays_.erase(it);
}

void kernel::on_room() {
  if (current)
    current->streams.on_room();
}

void kernel::interrupt() {
  if (pid <= 1 || phase != kernel_phase::busy)
    return;
  std::uint32_t number = current->streams.number();
  // By its number, too: the signal is lost on a cell that has not begun. Once, for while it runs
  // nobody reads.
  if (std::exchange(interrupted_, number) != number && language() != "bash")
    link.send(kernel_words::interrupt(number), {});
  send_interrupt();
  // A shell that is just about to start a child may miss it, and Node between two guards.
  if (language() == "python" || repeat_timer_)
    return;
  repeat_timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  itimerspec when{};
  when.it_value.tv_nsec = when.it_interval.tv_nsec = repeat_interrupt_ms * 1'000'000;
  timerfd_settime(repeat_timer_.get(), 0, &when, nullptr);
  loop_.watch(repeat_timer_.get(), EPOLLIN, [this](std::uint32_t) {
    std::uint64_t times = 0;
    (void)!::read(repeat_timer_.get(), &times, sizeof times);
    if (phase == kernel_phase::busy && current->streams.number() == interrupted_)
      return send_interrupt();
    loop_.forget(repeat_timer_.get());
    repeat_timer_.reset();
  });
}

void kernel::send_interrupt() {
  // The group: a child in the foreground is stopped too, as by a terminal.
  kill(-pid, SIGINT);
}

void kernel::kill_process() const {
  if (pid > 1 && !dead())
    kill(pid, SIGKILL);
}

} // namespace berth::guest
