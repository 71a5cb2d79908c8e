// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

namespace berth::machines {

/// How a chore ended; lies in memory that the process shares with its parent.
struct chore_result {
  bool finished = false;
  /// errno, or 0.
  int error = 0;
  std::uint64_t bytes = 0;
  std::uint64_t count = 0;
  char text[512] = {};
};

/// Something that takes its time: done by a forked process of its own.
struct chore {
  /// The machine it is for: ended with it. 0: none.
  std::uint64_t machine = 0;
  int niceness = 0;
  /// Somebody waits for it: it is started at once.
  bool urgent = false;
  /// The descriptors it needs; all others are closed.
  std::vector<int> keep;
  /// In the process.
  std::function<void(chore_result&)> work;
  /// In the parent, once, whatever became of it; what it holds lives until then.
  std::function<void(const chore_result&)> done;
};

/// Runs chores, a few at a time, in the order they came. For a process of one thread.
class chores {
public:
  static constexpr std::size_t running_max = 4;
  /// Called with the descriptor that tells a chore's end, to be watched, and its id for on_end.
  explicit chores(std::function<void(int fd, std::uint64_t id)> watch)
    : watch_(std::move(watch)) {}

  void add(chore what);
  void on_end(std::uint64_t id);
  /// Ends what is done for a machine.
  void end_of(std::uint64_t machine);
  /// Ends all and waits for them.
  void stop();

private:
  struct running {
    chore what;
    owned_fd pidfd;
    chore_result* result = nullptr;
  };
  void start_next();
  void start(chore what);
  static bool fork_for(running& one);

  std::function<void(int, std::uint64_t)> watch_;
  std::deque<chore> waiting_;
  std::map<std::uint64_t, running> running_;
  std::uint64_t next_id_ = 1;
};

} // namespace berth::machines
