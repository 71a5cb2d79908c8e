// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/packet_link.hpp"
#include "machines/namespace/sweep.hpp"
#include "messages/fd.hpp"

#include <sys/epoll.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

/// What the small processes have in common that keep privileges for a server: the spawner of
/// namespace machines and the launcher of virtual ones.
namespace berth::machines {

/// A running spawner or launcher, as its server holds it. Closing the socket ends it and with it
/// every machine; waiting for the pid then ends within some seconds.
struct spawner_handle {
  owned_fd socket;
  pid_t pid = -1;
  /// What holds the machines, a line each; the process probes and writes it.
  std::vector<std::string> isolation;
  /// Id of the instance: part of the names of its cgroups and of its directory.
  std::string instance;

  explicit operator bool() const { return static_cast<bool>(socket); }
};

/// Forks such a process: it has a name, its end of the socket, standard error and nothing else, and
/// runs `be`, which never returns. Waits at most half a minute for it to say whether it works; on
/// failure the handle is empty and `why` says so.
spawner_handle start_privileged(const char* name, const std::function<void(owned_fd)>& be,
                                std::string& why);

/// Waits for a spawner whose socket was closed; kills it when it takes longer than the limit.
/// Returns whether it ended by itself.
bool wait_for_spawner(pid_t pid, std::chrono::milliseconds limit);

/// Such a process from the inside: its server's socket, its instance, and the groups and indices of
/// what it keeps, each known by a number. One thread.
class privileged_process {
public:
  privileged_process(const privileged_process&) = delete;
  privileged_process& operator=(const privileged_process&) = delete;

protected:
  using clock = std::chrono::steady_clock;
  /// What an epoll event is about: a kind in the high byte, a number below. All zero is the server.
  static constexpr int kind_shift = 56;

  explicit privileged_process(owned_fd server)
    : server_(std::move(server)) {}
  ~privileged_process() = default;

  // Start.

  /// Makes the instance and its groups, after sweeping what dead ones left; as an ordinary user
  /// also the outer user namespace. Returns why it cannot.
  std::string claim(const std::string& runtime_dir);
  /// Ends with the reason as the first packet.
  [[noreturn]] void refuse(const std::string& why);
  /// The first packet: the instance's id and the lines.
  void say_ready(const std::vector<std::string>& lines);
  /// Lines about landlock and the cgroups.
  void add_wall_lines(std::vector<std::string>& to) const;

  // What it keeps.

  /// The distance of a uid from the base; clear_dead() takes it back.
  std::uint32_t take_index();
  /// Removes the groups of what is in dying_; what has none any more is gone, its index free.
  void clear_dead();
  virtual void on_gone(std::uint64_t number) = 0;

  // Loop.

  void add(int fd, std::uint64_t tag);
  template <class Kind>
  void add(int fd, Kind kind, std::uint64_t number) {
    add(fd, static_cast<std::uint64_t>(kind) << kind_shift | number);
  }
  /// Waits until the time at most, and hands each event to `on` as kind, number and what happened.
  template <class Kind, class Handler>
  void hear(clock::time_point until, Handler on) {
    for (const auto& event : wait(until))
      on(static_cast<Kind>(event.data.u64 >> kind_shift),
         event.data.u64 & ((std::uint64_t{1} << kind_shift) - 1), event.events);
  }
  /// The server is gone, and all that is kept was told to end: `on_end` is called with the numbers
  /// of those that are not dead until nothing is left, and `last` once. Then nothing of the
  /// instance stays.
  template <class Living, class Handler>
  [[noreturn]] void end_with(
      const std::map<std::uint64_t, Living>& kept, Handler on_end,
      const std::function<void()>& last = [] {}) {
    auto until = clock::now() + end_within;
    while (!kept.empty() && clock::now() < until) {
      std::vector<std::uint64_t> numbers;
      for (const auto& [number, one] : kept)
        if (!one.dead)
          numbers.push_back(number);
      for (auto number : numbers)
        on_end(number);
      clear_dead();
      if (!kept.empty())
        ::usleep(1'000);
    }
    last();
    leave();
  }

  spawner::packet_link server_;
  instance_dir instance_;
  cgroup_tree cgroups_;
  bool ordinary_user_ = false;
  std::vector<std::string> facts_;
  /// Those that are dead and have groups still, and their indices.
  std::map<std::uint64_t, std::uint32_t> dying_;
  std::vector<std::uint32_t> free_indices_;
  clock::time_point next_clear_ = clock::time_point::max();

private:
  /// How long the end of everything may take when the server is gone.
  static constexpr std::chrono::seconds end_within{10};

  std::span<const epoll_event> wait(clock::time_point until);
  [[noreturn]] void leave();

  owned_fd epoll_;
  std::array<epoll_event, 64> events_{};
  bool server_wants_out_ = false;
  std::uint32_t next_index_ = 0;
};

} // namespace berth::machines
