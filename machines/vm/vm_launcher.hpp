// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/chores.hpp"
#include "machines/namespace/privileged_process.hpp"
#include "machines/vm/launcher_protocol.hpp"
#include "machines/vm/vm_settings.hpp"
#include "machines/vm/walls.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// The small privileged process that starts, confines and ends the processes of a hypervisor: the
/// LAUNCHER. Here is what is the same for all; a hypervisor's own adds what it needs around it.
class vm_launcher : public privileged_process {
public:
  [[noreturn]] void run();

protected:
  /// One process, from clone to nothing.
  struct living {
    std::uint64_t number = 0;
    std::uint32_t index = 0; ///< its uid's distance from the base
    wall_kind kind = wall_kind::qemu;
    std::string directory; ///< its own, if it has one
    pid_t pid = -1;
    owned_fd pidfd;
    owned_fd side;
    owned_fd memory_events;
    bool prepared = false;
    bool dead = false;
    std::string failed_step;
    int failed_error = 0;
  };

  /// `program` is what the processes are called.
  vm_launcher(const vm_settings& settings, std::string program, owned_fd server)
    : privileged_process(std::move(server))
    , settings_(settings)
    , program_(std::move(program))
    , chores_([this](int fd, std::uint64_t id) { add(fd, about::chore_end, id); }) {}
  ~vm_launcher() = default;

  /// Makes what the processes need. Returns why it cannot be.
  virtual std::string prepare() = 0;
  /// What holds the processes, a line each.
  virtual std::vector<std::string> walls() const = 0;
  /// Fills in a process's plan, its limits and identity being there. Returns why it cannot be.
  virtual std::string plan(const launcher::request& asked, std::vector<std::string> texts,
                           living& one, wall_plan& to) = 0;
  /// A request of the hypervisor's own. False: it is none.
  virtual bool on_request(const launcher::request& asked, std::string_view text,
                          std::vector<owned_fd>& fds) = 0;
  /// Something that the launcher waits for has happened.
  virtual void on_other(std::uint64_t) {}
  /// The process is gone.
  virtual void on_cleared(const living&) {}
  /// The server is gone, and so are all processes.
  virtual void on_end_of_all() {}

  const living* alive(std::uint64_t number) const;
  /// A uid's host number.
  std::uint32_t uid_of(const living& one) const;
  void watch_other(int fd, std::uint64_t number) { add(fd, about::other, number); }
  void destroy(std::uint64_t number);
  void tell(const launcher::report& what, std::span<const int> fds = {});
  /// The answer to a request.
  static launcher::report answer_to(const launcher::request& asked, int error = 0,
                                    std::string_view text = {});

  const vm_settings& settings_;
  const std::string program_;
  chores chores_;

private:
  /// What an event is about.
  enum class about : std::uint64_t { server, process_end, side, chore_end, other };

  void on_server(std::uint32_t events);
  void launch(const launcher::request& asked, std::string_view texts, std::vector<owned_fd>& fds);
  int clone(living& one, wall_plan& plan);
  void on_side(std::uint64_t number);
  void on_end(std::uint64_t number);
  void on_gone(std::uint64_t number) override;
  void tell_died(std::uint64_t number, int error, std::string_view why);
  [[noreturn]] void end();

  std::map<std::uint64_t, living> processes_;
};

} // namespace berth::machines
