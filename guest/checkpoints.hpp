// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/kernel_table.hpp"

namespace berth::guest {

/// Rest: the time in which the machine's root is switched, and the parked copies of interpreters
/// that are made in it. A copy shares its memory with the interpreter until either writes to it,
/// does nothing, and can be woken any number of times: what wakes is another copy of it.
///
/// A copy is there once its interpreter has forked it, and needs no files while it parks: `frozen`
/// does not wait for that. The `thawed` that follows does, and says so if a copy was lost; then
/// none of that state is left.
class checkpoints {
public:
  /// Parked copies of one machine.
  static constexpr std::size_t copies_max = 256;

  /// What jobs have to do with rest.
  struct jobs_side {
    /// What keeps the machine from resting; empty: nothing.
    std::function<std::string(bool force)> why_not;
    /// Ends what waits for a job.
    std::function<void()> rest;
  };

  checkpoints(event_loop& loop, channel& out, kernel_table& kernels, jobs_side jobs);

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
  /// Whether a copy has still to say that it is parked.
  bool parking() const;
  void start_timer();
  void on_timer();

  event_loop& loop_;
  channel& channel_;
  kernel_table& kernels_;
  jobs_side jobs_;
  std::list<copy> copies_;
  bool at_rest_ = false;
  stage stage_ = stage::none;
  std::uint32_t request_ = 0;
  std::uint64_t checkpoint_ = 0;
  std::string error_;
  /// Why a copy that `frozen` told of is none, and of which state.
  std::string lost_;
  std::uint64_t lost_from_ = 0;
  owned_fd timer_;
};

} // namespace berth::guest
