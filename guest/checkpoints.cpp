// SPDX-License-Identifier: Apache-2.0
#include "guest/checkpoints.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <csignal>

namespace berth::guest {

namespace {

/// How long an interpreter may take to come to rest, or to wake. Larger heaps take longer to copy.
constexpr int answer_within_s = 5;

} // namespace

checkpoints::checkpoints(event_loop& loop, channel& out, kernel_table& kernels, jobs_side jobs)
  : loop_(loop)
  , channel_(out)
  , kernels_(kernels)
  , jobs_(std::move(jobs)) {}

// --- rest ----------------------------------------------------------------------------------------

void checkpoints::on_freeze(const freeze& request) {
  std::string why = at_rest_ ? "the machine rests" : jobs_.why_not(request.force);
  if (why.empty())
    why = kernels_.why_no_rest();
  if (why.empty() && request.checkpoint != 0 && copies_.size() + kernels_.all().size() > copies_max)
    why = "too many copies of interpreters are parked in this machine";
  if (!why.empty())
    return channel_.send(frozen{request.request, {}, std::move(why)});
  at_rest_ = true;
  stage_ = stage::freezing;
  request_ = request.request;
  checkpoint_ = request.checkpoint;
  error_.clear();
  for (kernel& each : kernels_.all())
    if (each.phase == kernel_phase::idle)
      park(each, request.checkpoint);
  // While interpreters fork.
  jobs_.rest();
  start_timer();
  step();
}

void checkpoints::park(kernel& each, std::uint64_t checkpoint) {
  each.phase = kernel_phase::going_to_rest;
  owned_fd theirs;
  if (checkpoint != 0) {
    copy& made = copies_.emplace_back();
    made.checkpoint = checkpoint;
    made.request = each.request();
    made.cells = each.cells;
    made.link = std::make_unique<kernel_link>(
        loop_, [this, &made](std::span<const char> body) { on_copy_word(made, body); },
        [&made](bool) { made.ended = true; });
    theirs = made.link->open();
  }
  int fd = theirs.get();
  if (!each.link.send(kernel_words::freeze(checkpoint), std::span{&fd, fd < 0 ? 0U : 1U}))
    kernels_.give_up(each, "it does not listen");
}

void checkpoints::on_copy_word(copy& each, std::span<const char> body) {
  auto word = kernel_words::read(body);
  const auto* parked = word ? std::get_if<kernel_words::parked>(&*word) : nullptr;
  if (parked != nullptr && each.pid < 0 && parked->pid > 1)
    each.pid = parked->pid;
  else
    each.ended = true;
}

void checkpoints::finish_freeze() {
  frozen answer{request_, {}, error_};
  stage_ = stage::none;
  // An interpreter that cannot be copied lets go of the copy's socket.
  copies_.remove_if([](const copy& each) { return each.pid < 0 && each.link->hung_up(); });
  lost_.clear();
  for (const copy& each : copies_)
    if (each.checkpoint == checkpoint_ && checkpoint_ != 0)
      answer.contexts.push_back(each.request.context);
  if (!error_.empty()) {
    drop(checkpoint_);
    answer.contexts.clear();
    at_rest_ = false;
    wake_kernels();
  }
  channel_.send(answer);
}

// --- waking --------------------------------------------------------------------------------------

void checkpoints::on_thaw(const thaw& request) {
  if (stage_ != stage::none)
    return channel_.send(thawed{request.request, {}, "the machine is about to rest, or to wake"});
  request_ = request.request;
  checkpoint_ = request.checkpoint;
  error_.clear();
  at_rest_ = true;
  start_timer();
  if (checkpoint_ == 0) {
    stage_ = stage::waking;
    wake_kernels();
  } else {
    stage_ = stage::ending_kernels;
    for (kernel& each : kernels_.all()) {
      each.silent_end = std::any_of(copies_.begin(), copies_.end(), [&](const copy& one) {
        return one.checkpoint == checkpoint_ && one.request.context == each.context();
      });
      kernels_.give_up(each, "the machine went back to an earlier state");
    }
  }
  step();
}

void checkpoints::wake_kernels() {
  for (kernel& each : kernels_.all()) {
    if (each.phase != kernel_phase::resting)
      continue;
    each.phase = kernel_phase::waking;
    if (!each.link.send(kernel_words::thaw()))
      kernels_.give_up(each, "it does not listen");
  }
}

void checkpoints::wake_copies() {
  stage_ = stage::waking;
  for (copy& each : copies_) {
    if (each.checkpoint != checkpoint_ || each.ended)
      continue;
    kernel& woken = kernels_.add_woken(each.request, each.cells);
    owned_fd theirs = woken.link.open();
    int fd = theirs.get();
    if (fd < 0 || !each.link->send(kernel_words::thaw(), std::span{&fd, 1U}))
      kernels_.give_up(woken, "its copy does not listen");
  }
}

void checkpoints::finish_thaw() {
  if (!lost_.empty()) {
    drop(lost_from_);
    if (error_.empty())
      error_ = std::exchange(lost_, {});
  }
  thawed answer{request_, {}, error_};
  stage_ = stage::none;
  at_rest_ = false;
  for (const kernel& each : kernels_.all())
    if (each.phase == kernel_phase::idle || each.phase == kernel_phase::busy)
      answer.contexts.push_back(each.context());
  channel_.send(answer);
}

void checkpoints::drop(std::uint64_t checkpoint) {
  copies_.remove_if([&](const copy& each) {
    bool dropped = each.checkpoint == checkpoint;
    if (dropped && each.pid > 1)
      kill(each.pid, SIGKILL);
    return dropped;
  });
}

// --- progress ------------------------------------------------------------------------------------

void checkpoints::append_pids(std::vector<pid_t>& to) const {
  for (const copy& each : copies_)
    if (each.pid > 1)
      to.push_back(each.pid);
}

bool checkpoints::waking() const {
  return parking() || (checkpoint_ != 0 && (stage_ == stage::waking || stage_ == stage::freezing));
}

bool checkpoints::parking() const {
  return std::any_of(copies_.begin(), copies_.end(),
                     [](const copy& each) { return each.pid < 0 && !each.ended; });
}

void checkpoints::step() {
  copies_.remove_if([this](const copy& each) {
    if (each.ended && each.pid < 0) {
      lost_from_ = each.checkpoint;
      lost_ = "context " + each.request.context + ": its copy ended";
    }
    return each.ended;
  });
  if (stage_ == stage::none)
    return;
  auto any = [this](kernel_phase phase) {
    return std::any_of(kernels_.all().begin(), kernels_.all().end(),
                       [&](const kernel& each) { return each.phase == phase; });
  };
  if (stage_ == stage::ending_kernels && kernels_.all().empty())
    wake_copies();
  if (stage_ == stage::waking && !any(kernel_phase::waking) && !parking())
    finish_thaw();
  // A copy that was forked needs none of the files any more: they are switched while it parks.
  if (stage_ == stage::freezing && !any(kernel_phase::going_to_rest)) {
    for (kernel& each : kernels_.all()) {
      std::string why = each.reason.empty() ? std::exchange(each.no_rest, {}) : each.reason;
      if (!why.empty() && error_.empty())
        error_ = "context " + each.context() + ": " + why;
    }
    finish_freeze();
  }
  if (stage_ == stage::none)
    loop_.forget(timer_.get()), timer_.reset();
}

void checkpoints::start_timer() {
  timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  itimerspec when{};
  when.it_value.tv_sec = answer_within_s;
  timerfd_settime(timer_.get(), 0, &when, nullptr);
  loop_.watch(timer_.get(), EPOLLIN, [this](std::uint32_t) { on_timer(); });
}

/// Who has not answered is given up: a user's code may keep an interpreter from resting.
void checkpoints::on_timer() {
  loop_.forget(timer_.get());
  timer_.reset();
  for (kernel& each : kernels_.all())
    if (each.phase == kernel_phase::going_to_rest || each.phase == kernel_phase::waking) {
      if (error_.empty())
        error_ = "context " + each.context() + ": it did not answer in time";
      kernels_.give_up(each, "it did not answer in time");
    }
  for (copy& each : copies_)
    each.ended = each.ended || each.pid < 0;
  step();
}

} // namespace berth::guest
