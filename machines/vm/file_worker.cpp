// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/file_worker.hpp"

#include "config/threads.hpp"

namespace berth::machines {

file_worker::file_worker() {
  thread_ = start_without_signals([this] { run(); });
}

void file_worker::add(std::function<void()> task) {
  {
    std::lock_guard guard{mutex_};
    if (stopping_)
      return;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void file_worker::stop() {
  std::deque<std::function<void()>> dropped;
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
    dropped.swap(tasks_);
  }
  changed_.notify_one();
  if (thread_.joinable())
    thread_.join();
}

void file_worker::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock{mutex_};
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_)
        return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

} // namespace berth::machines
