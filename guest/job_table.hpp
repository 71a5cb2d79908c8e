// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/checkpoints.hpp"
#include "guest/interpreters.hpp"
#include "guest/job.hpp"
#include "guest/kernel_table.hpp"
#include "guest/languages/bash.hpp"
#include "guest/process_tree.hpp"

#include <map>
#include <memory>

namespace berth::guest {

/// All jobs of the machine: starts their processes, waits for them, sees to it that nothing of a
/// job outlives it, and says how each ended, exactly once.
class job_table {
public:
  /// Jobs that may be alive in one machine at once.
  static constexpr std::size_t jobs_max = 16;

  job_table(event_loop& loop, channel& out, interpreters& warm, kernel_table& kernels,
            const checkpoints& parked, workspace& files);

  /// Starts a job or refuses it.
  void start(start_job request);
  /// Hands input to a job. False when the server sent more than it was given room for.
  bool feed(const stdin_data& input);
  /// Kills a job. A number that is not alive is left alone: its end was told already.
  void end(std::uint32_t number);

  /// A user's file is in the machine: what is compiled here is no longer sent back.
  void distrust() { trusted_ = false; }

  /// What keeps the machine from resting: a job, or (not with `force`) a process that somebody left
  /// in the background. Empty: nothing.
  std::string why_no_rest(bool force);
  /// Ends what waits for a job.
  void rest();

  /// Children died, or may at last be in reach.
  void reap();
  /// Whether something that a job left behind is still alive. Its end may never be told: a warm
  /// interpreter on its way in cannot be killed before it has taken on our identity.
  bool sweeping() const;
  /// The channel has room again.
  void on_room();
  /// Has a program of this language waiting, and says so, where that is the guest's own work.
  void prepare(const std::string& language);
  /// Puts back what the last job used up. Call when there is nothing else to do.
  void replenish();

private:
  using iterator = std::map<std::uint32_t, std::unique_ptr<job>>::iterator;

  std::string why_refused(const start_job& request) const;
  void refuse(std::uint32_t number, std::string reason);
  bool start_waiting(job& each, const start_job& request);
  void begin_stage(job& each);
  void run_warm(std::uint32_t number, std::optional<taken_interpreter> taken);
  void run_cold(job& each);
  void stage_runs(job& each, pid_t pid);
  void stage_failed(job& each, const std::string& why);
  void stage_ended(job& each);
  bool send_binary(job& each);
  void finish(job& each, int status);
  void sweep();
  void drain();
  job* job_of(pid_t pid);
  std::vector<pid_t> kept() const;

  event_loop& loop_;
  channel& channel_;
  interpreters& interpreters_;
  kernel_table& kernels_;
  const checkpoints& checkpoints_;
  workspace& files_;
  std::map<std::uint32_t, std::unique_ptr<job>> jobs_;
  waiting_bash bash_;
  /// The server said so, or a job was in Bash: another waits, then, for the next.
  bool bash_wanted_ = false;
  leftover_killer leftovers_;
  std::string wanted_spare_;
  /// Whether no code and no file of a user is in the machine yet, so that what a compiler makes of
  /// a source is what it would make of it anywhere.
  bool trusted_ = true;
  bool closing_ = false;
};

} // namespace berth::guest
