// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace berth::machines {

/// One thread that waits for descriptors and for time. All machines of a server share it, so its
/// handlers hand over and return: none waits, none reads a disk.
///
/// `post` takes work from any thread. Its queue has no bound of its own; it is bounded by who may
/// post: a machine posts at most once for each state it passes through and once for a send that
/// did not fit the socket (then not again until that one ran), and the number of machines is
/// bounded by the pool.
class reactor {
public:
  using handler = std::function<void(std::uint32_t events)>;
  using task = std::function<void()>;
  using clock = std::chrono::steady_clock;
  /// Names a watched descriptor or a timer; never used twice, so a late event finds nobody.
  using token = std::uint64_t;

  /// Starts the thread. A kernel that refuses epoll or eventfd to a server refuses everything:
  /// the process ends with a message.
  reactor();
  /// Stops and joins. What was posted before and not run yet is run first.
  ~reactor();
  reactor(const reactor&) = delete;
  reactor& operator=(const reactor&) = delete;

  /// Runs the task on the reactor's thread, in the order of the calls of one poster. Any thread.
  void post(task work);

  /// Whether the caller is the reactor's thread.
  bool here() const { return std::this_thread::get_id() == thread_.get_id(); }

  // What follows belongs to the reactor's thread.

  /// Calls the handler when one of the EPOLL events is there (level-triggered). The descriptor
  /// stays the caller's and must be forgotten before it is closed. 0 when the kernel refused.
  token watch(int fd, std::uint32_t events, handler on_event);
  /// Waits for other events from now on; none of them is allowed.
  void rewatch(token watched, std::uint32_t events);
  /// No handler runs for it any more, not even for an event that came already.
  void forget(token watched);

  /// Runs the task once, after the delay.
  token after(std::chrono::milliseconds delay, task work);
  /// A timer that ran already is no error.
  void cancel(token timer);

private:
  struct watched_fd {
    int fd = -1;
    std::shared_ptr<handler> on_event;
  };

  void run();
  void run_posted();
  void run_timers();
  int wait_ms() const;

  owned_fd epoll_;
  owned_fd wake_;
  token next_token_ = 1;
  std::unordered_map<token, watched_fd> watched_;
  std::multimap<clock::time_point, std::pair<token, task>> timers_;

  std::mutex mutex_;
  std::vector<task> posted_; // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_

  std::thread thread_;
};

} // namespace berth::machines
