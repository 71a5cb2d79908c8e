// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <vector>

namespace berth::guest {

/// A process and its parent.
struct kinship {
  pid_t pid;
  pid_t parent;
  /// It ended, and its parent has not waited for it.
  bool ended = false;
};

/// The calling process's children, dead ones that nobody waited for included.
std::vector<pid_t> own_children();

/// All processes that can be seen, but for the calling one.
std::vector<kinship> all_processes();

/// Those of `processes` that are neither in `kept` nor descend from it.
std::vector<pid_t> strangers(std::span<const kinship> processes, std::span<const pid_t> kept);

/// Kills all that is left of a tree whose root is dead: everything that is neither in `kept` nor
/// descends from it. Must be called again when a child died, until it says that none is left.
class leftover_killer {
public:
  /// One pass. `alone`: nothing is to be kept but the caller, so one signal reaches all at once.
  /// Returns whether nothing is left.
  bool pass(std::span<const pid_t> kept, bool alone);

private:
  /// So many passes over the children alone, before all processes are stopped first.
  static constexpr int plain_passes = 4;
  /// Bound of the rounds of stopping; a fork bomb is at a standstill after two or three.
  static constexpr int stop_rounds = 64;

  void stop_and_kill(std::span<const pid_t> kept);

  int passes_ = 0;
};

} // namespace berth::guest
