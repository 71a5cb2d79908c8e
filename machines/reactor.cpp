// SPDX-License-Identifier: Apache-2.0
#include "machines/reactor.hpp"

#include "config/threads.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace berth::machines {

namespace {

constexpr reactor::token wake_token = 0;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "berth: the machine reactor cannot run: %s: %s\n", what,
               std::strerror(errno));
  std::abort();
}

} // namespace

reactor::reactor()
  : epoll_(::epoll_create1(EPOLL_CLOEXEC))
  , wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_)
    die("epoll_create1");
  if (!wake_)
    die("eventfd");
  epoll_event event{.events = EPOLLIN, .data = {.u64 = wake_token}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0)
    die("epoll_ctl");
  thread_ = start_without_signals([this] { run(); });
}

reactor::~reactor() {
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

void reactor::post(task work) {
  bool first = false;
  {
    std::lock_guard guard{mutex_};
    first = posted_.empty();
    posted_.push_back(std::move(work));
  }
  if (first) {
    std::uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
  }
}

reactor::token reactor::watch(int fd, std::uint32_t events, handler on_event) {
  token made = next_token_++;
  epoll_event event{.events = events, .data = {.u64 = made}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return 0;
  watched_[made] = {fd, std::make_shared<handler>(std::move(on_event))};
  return made;
}

void reactor::rewatch(token watched, std::uint32_t events) {
  auto found = watched_.find(watched);
  if (found == watched_.end())
    return;
  epoll_event event{.events = events, .data = {.u64 = watched}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second.fd, &event);
}

void reactor::forget(token watched) {
  auto found = watched_.find(watched);
  if (found == watched_.end())
    return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  watched_.erase(found);
}

reactor::token reactor::after(std::chrono::milliseconds delay, task work) {
  token made = next_token_++;
  timers_.emplace(clock::now() + delay, std::pair{made, std::move(work)});
  return made;
}

void reactor::cancel(token timer) {
  for (auto at = timers_.begin(); at != timers_.end(); ++at) {
    if (at->second.first == timer) {
      timers_.erase(at);
      return;
    }
  }
}

int reactor::wait_ms() const {
  if (timers_.empty())
    return -1;
  auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

void reactor::run_timers() {
  while (!timers_.empty() && timers_.begin()->first <= clock::now()) {
    task work = std::move(timers_.begin()->second.second);
    timers_.erase(timers_.begin());
    work();
  }
}

void reactor::run_posted() {
  std::vector<task> work;
  {
    std::lock_guard guard{mutex_};
    work.swap(posted_);
  }
  for (auto& one : work)
    one();
}

void reactor::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms());
    if (count < 0 && errno != EINTR)
      die("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == wake_token) {
        std::uint64_t drained = 0;
        (void)!::read(wake_.get(), &drained, sizeof drained);
        continue;
      }
      // Looked up anew each time: an earlier handler of this round may have forgotten it.
      auto found = watched_.find(event.data.u64);
      if (found == watched_.end())
        continue;
      std::shared_ptr<handler> keep = found->second.on_event;
      (*keep)(event.events);
    }
    run_timers();
    run_posted();
    std::lock_guard guard{mutex_};
    if (stopping_ && posted_.empty())
      return;
  }
}

} // namespace berth::machines
