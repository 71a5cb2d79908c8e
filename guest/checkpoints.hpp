// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/kernel_table.hpp"

namespace berth::guest {

/// Rest: the time in which the machine's root is switched, and the parked copies of interpreters
/// that are made in it. A copy shares its memory with the interpreter until either writes to it,
/// does nothing, and can be woken any number of times: what wakes is another copy of it.
class checkpoints {
public:
  /// Parked copies of one machine.
  static constexpr std::size_t copies_max = 256;

  /// `why_not` tells what keeps the machine from resting; empty: nothing.
  checkpoints(event_loop& loop, channel& out, kernel_table& kernels,
              std::function<std::string(bool force)> why_not);

  void on_freeze(const freeze& request);
  void on_thaw(const thaw& request);
  void drop(std::uint64_t checkpoint);

  /// Whether nothing may be started now.
  bool at_rest() const { return at_rest_; }
  /// Parked processes.
  void append_pids(std::vector<pid_t>& to) const;
  /// Whether a process may just have come to be that is not known yet: nothing may be swept.
  bool waking() const;
  /// Goes on with what is under way. Call after everything that may have moved it.
  void step();

private:
  struct copy {
    std::uint64_t checkpoint = 0;
    open_kernel request;
    std::uint32_t cells = 0;
    pid_t pid = -1;
    bool ended = false;
    std::unique_ptr<kernel_link> link;
  };
  enum class stage : std::uint8_t { none, freezing, waking, ending_kernels };

  void park(kernel& each, std::uint64_t checkpoint);
  void on_copy_word(copy& each, std::span<const char> body);
  void wake_kernels();
  void wake_copies();
  void finish_freeze();
  void finish_thaw();
  void start_timer();
  void on_timer();

  event_loop& loop_;
  channel& channel_;
  kernel_table& kernels_;
  std::function<std::string(bool)> why_not_;
  std::list<copy> copies_;
  bool at_rest_ = false;
  stage stage_ = stage::none;
  std::uint32_t request_ = 0;
  std::uint64_t checkpoint_ = 0;
  std::string error_;
  owned_fd timer_;
};

} // namespace berth::guest
