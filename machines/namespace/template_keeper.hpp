// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// What an inject of an interpreter needs to know of its machine.
struct inject_target {
  std::uint64_t machine = 0;
  int pidfd = -1;
  std::vector<int> procs;
  std::uint64_t nproc = 0;
};

/// The template processes of the spawner: one for each language, started in the house, restarted
/// with a growing pause when they die. A tool that is not there makes its language absent; its jobs
/// run cold (or not at all), which is told. A language that not every server has use for is started
/// when it is first asked for.
class template_keeper {
public:
  using clock = std::chrono::steady_clock;
  /// Called with each inject's end: 0, or errno.
  using injected = std::function<void(std::uint64_t machine, std::string_view language, int error,
                                      owned_fd guest_end)>;
  /// Called when a template is up (0), asleep until it is asked for (ENOTCONN), or down (errno).
  using changed = std::function<void(std::string_view language, int error)>;

  template_keeper(injected on_injected, changed on_changed)
    : on_injected_(std::move(on_injected))
    , on_changed_(std::move(on_changed)) {}

  /// Starts the templates of these languages, or when `lazy` lets them sleep. `filter` is the
  /// seccomp program.
  void start(const std::vector<std::string>& languages, const std::vector<char>& filter, bool lazy);
  /// Tells of those that are asleep.
  void tell_asleep();
  /// Asks a language's template for an interpreter in a machine; `on_injected` tells the end, maybe
  /// before this returns. Returns whether the template was started for it: descriptors are new
  /// then.
  bool inject(std::string_view language, const inject_target& target);
  /// Whether an interpreter is on its way into the machine.
  bool injecting(std::uint64_t machine) const;
  /// Kills all and waits for each.
  void stop();

  // For the owner's loop: descriptors by index, negative when there is none now.
  std::size_t count() const { return slots_.size(); }
  int socket_fd(std::size_t index) const { return slots_[index].socket.get(); }
  int process_fd(std::size_t index) const { return slots_[index].pidfd.get(); }
  void on_socket(std::size_t index);
  void on_exit(std::size_t index);
  /// Restarts what is due. Returns whether anything was started: descriptors are new then.
  bool restart_due(clock::time_point now);
  /// When the next restart is due; clock::time_point::max() for never.
  clock::time_point next_restart() const;

  /// A line for each language.
  std::vector<std::string> describe() const;

private:
  struct pending {
    std::uint64_t machine = 0;
    owned_fd guest_end;
  };
  struct slot {
    std::string language;
    std::vector<std::string> command;
    std::vector<std::string> environment;
    owned_fd socket;
    owned_fd pidfd;
    pid_t pid = -1;
    bool up = false;
    bool absent = false;
    /// Nobody has asked for it yet.
    bool asleep = false;
    std::chrono::milliseconds pause{100};
    clock::time_point due = clock::time_point::max();
    clock::time_point started;
    std::deque<pending> waiting;
  };

  bool launch(slot& one);
  void ask(slot& one, const inject_target& target);
  void fail_waiting(slot& one, int error);

  injected on_injected_;
  changed on_changed_;
  owned_fd filter_;
  std::vector<slot> slots_;
};

} // namespace berth::machines
