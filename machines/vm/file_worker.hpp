// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace berth::machines {

/// One thread for what reads and writes disks, in order. Its queue is bounded by who may add: a
/// machine has one step under way for each of its states.
class file_worker {
public:
  file_worker();
  ~file_worker() { stop(); }
  file_worker(const file_worker&) = delete;
  file_worker& operator=(const file_worker&) = delete;

  /// Runs it on the thread, after what was added before. Not at all when it has stopped.
  void add(std::function<void()> task);
  /// Ends after the task under way; what waits is dropped.
  void stop();

private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_; // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::thread thread_;
};

} // namespace berth::machines
