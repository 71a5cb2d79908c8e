// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/launcher.hpp"

#include "machines/namespace/chores.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/mounts.hpp"
#include "machines/qemu/launcher_house.hpp"
#include "machines/qemu/launcher_protocol.hpp"
#include "machines/qemu/vm_memory.hpp"
#include "machines/qemu/walls.hpp"

#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <memory>
#include <sched.h>
#include <set>
#include <unistd.h>

namespace berth::machines {

namespace {

using launcher::report;
using launcher::report_kind;
using launcher::request;
using launcher::request_kind;
using spawner::packet_link;

/// One QEMU, from clone to nothing.
struct living {
  std::uint64_t number = 0;
  std::uint32_t index = 0; ///< its uid's distance from the base
  pid_t pid = -1;
  owned_fd pidfd;
  owned_fd side;
  owned_fd memory_events;
  bool prepared = false;
  bool dead = false;
  std::string failed_step;
  int failed_error = 0;
};

/// What an event is about.
enum class about : std::uint64_t { server, process_end, side, chore_end };

class launcher_process final : public privileged_process {
public:
  launcher_process(const qemu_settings& settings, owned_fd server)
    : privileged_process(std::move(server))
    , settings_(settings)
    , chores_([this](int fd, std::uint64_t id) { add(fd, about::chore_end, id); }) {}

  [[noreturn]] void run();

private:
  std::string prepare();
  void tell_ready();

  void on_server(std::uint32_t events);
  void launch(const request& asked, std::string_view arguments, std::vector<owned_fd>& fds);
  int clone(living& one, wall_plan& plan);
  void destroy(std::uint64_t number);
  void on_memory(const request& asked, std::vector<owned_fd>& fds);
  void on_side(std::uint64_t number);
  void on_end(std::uint64_t number);
  void on_gone(std::uint64_t number) override;

  void tell(const report& what, std::span<const int> fds = {});
  void tell_died(std::uint64_t number, int error, std::string_view why);
  [[noreturn]] void end();

  const qemu_settings& settings_;
  owned_fd proc_;
  chores chores_;
  std::map<std::uint64_t, living> processes_;
};

// --- start ---------------------------------------------------------------------------------------

/// Each part returns why it cannot be; the first reason ends the launcher.
std::string launcher_process::prepare() {
  proc_.reset(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!proc_)
    return std::string{"/proc: "} + std::strerror(errno);
  if (::access(settings_.binary.c_str(), X_OK) != 0)
    return settings_.binary + ": " + std::strerror(errno)
           + " (install QEMU: apt-get install qemu-system-x86)";
  if (std::string why = claim(settings_.runtime_dir); !why.empty())
    return why;
  if (settings_.need_cgroups && (!cgroups_.memory() || !cgroups_.pids()))
    return "cgroups are required: run berth as root, or in a unit with Delegate=yes";
  if (settings_.need_landlock && berth_landlock_abi() == 0)
    return "landlock is required: this kernel has none";
  bool with_kvm = settings_.runs_by == accelerator::kvm;
  auto result = enter_launcher_house(settings_.binary, with_kvm, instance_.path() + "/root");
  return result.ok() ? std::string{} : result.text();
}

void launcher_process::tell_ready() {
  std::vector<std::string> lines{
      "QEMU's walls: namespaces user, pid, mount, network (none at all), ipc, uts, "
      "cgroup; read-only root with QEMU and libraries only"};
  lines.push_back(ordinary_user_
                      ? "QEMU's identity: the uid of the server's user, in user namespaces of "
                        "their own"
                      : "QEMU's identity: a host uid of its own for each machine, from "
                            + std::to_string(settings_.uid_base));
  lines.emplace_back("QEMU's privileges: no capabilities, no_new_privs, its own seccomp filter "
                     "(-sandbox on)");
  add_wall_lines(lines);
  for (auto& line : facts_)
    lines.push_back(std::move(line));
  say_ready(lines);
}

// --- processes -----------------------------------------------------------------------------------

void launcher_process::tell_died(std::uint64_t number, int error, std::string_view why) {
  report note{.kind = report_kind::died, .number = number, .error = error};
  note.text[why.copy(note.text, sizeof note.text - 1)] = '\0';
  tell(note);
}

/// The texts between NULs.
std::vector<std::string> split_arguments(std::string_view packed) {
  std::vector<std::string> all;
  while (!packed.empty() && all.size() <= launcher::arguments_max) {
    auto end = packed.find('\0');
    if (end == std::string_view::npos)
      return {};
    all.emplace_back(packed.substr(0, end));
    packed.remove_prefix(end + 1);
  }
  return all;
}

void launcher_process::launch(const request& asked, std::string_view arguments,
                              std::vector<owned_fd>& fds) {
  bool known = processes_.contains(asked.number);
  wall_plan plan{.number = asked.number,
                 .limits = {.memory_bytes = asked.memory_bytes, .processes = asked.processes},
                 .cgroups = &cgroups_,
                 .binary = settings_.binary,
                 .arguments = split_arguments(arguments)};
  std::string why;
  if (known || asked.number == 0 || asked.number >> kind_shift != 0 || fds.empty()
      || plan.arguments.empty() || plan.arguments.size() > launcher::arguments_max)
    why = "the request for a process is not one";
  else if (processes_.size() >= settings_.processes_max)
    why = "as many processes as uids";
  if (!why.empty()) {
    tell_died(asked.number, EINVAL, why);
    if (!known)
      tell({.kind = report_kind::gone, .number = asked.number});
    return;
  }
  living& one = processes_[asked.number];
  one.number = asked.number;
  one.index = take_index();
  plan.uid = ordinary_user_ ? 0 : settings_.uid_base + one.index;
  for (const auto& fd : fds)
    plan.descriptors.push_back(fd.get());
  if (int error = clone(one, plan)) {
    tell_died(one.number, error, "clone");
    one.dead = true;
    dying_.emplace(one.number, one.index);
    return clear_dead();
  }
  add(one.pidfd.get(), about::process_end, one.number);
  add(one.side.get(), about::side, one.number);
}

int launcher_process::clone(living& one, wall_plan& plan) {
  int side[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, side) != 0)
    return errno;
  one.side.reset(side[0]);
  owned_fd theirs{side[1]};
  plan.side = theirs.get();
  int pidfd = -1;
  long pid =
      ::syscall(SYS_clone, CLONE_NEWPID | CLONE_PIDFD | SIGCHLD, nullptr, &pidfd, nullptr, 0);
  if (pid == 0)
    become_vmm(plan);
  if (pid < 0) {
    int error = errno;
    one.side.reset();
    return error;
  }
  one.pid = static_cast<pid_t>(pid);
  one.pidfd.reset(pidfd);
  return 0;
}

void launcher_process::destroy(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found != processes_.end() && !found->second.dead)
    ::syscall(SYS_pidfd_send_signal, found->second.pidfd.get(), SIGKILL, nullptr, 0);
}

void launcher_process::on_side(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found == processes_.end() || !found->second.side)
    return;
  living& one = found->second;
  packet_link link{owned_fd{::fcntl(one.side.get(), F_DUPFD_CLOEXEC, 3)}};
  wall_report said{};
  std::size_t size = 0;
  std::vector<owned_fd> fds;
  auto got = link.receive(std::as_writable_bytes(std::span{&said, 1}), size, fds);
  if (got == packet_link::received::nothing)
    return;
  if (got == packet_link::received::end || size != sizeof said) {
    // The exec closed it, or the end of the process did.
    one.side.reset();
    return;
  }
  if (said.step != walls_prepared) {
    one.failed_step = walls_failure(said);
    one.failed_error = said.error == 0 ? EPROTO : said.error;
    return;
  }
  if (one.prepared || fds.size() != static_cast<std::size_t>(__builtin_popcount(said.handles)))
    return;
  one.prepared = true;
  std::vector<int> handles;
  for (const auto& fd : fds)
    handles.push_back(fd.get());
  tell({.kind = report_kind::launched, .number = number, .handles = said.handles}, handles);
  // Ours is the counter of kills alone.
  cgroup_handles taken;
  taken.take(said.handles, fds);
  one.memory_events = std::move(taken[spawner::handle_memory_events]);
}

void launcher_process::on_end(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found == processes_.end() || found->second.dead)
    return;
  living& one = found->second;
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(one.pidfd.get()), &info, WEXITED | WNOHANG) != 0
      || info.si_pid == 0)
    return;
  one.dead = true;
  for (int round = 0; round < 2 && one.side; ++round)
    on_side(number);
  chores_.end_of(number);
  bool killed = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  std::string why = one.failed_step;
  if (one.failed_error == 0)
    why = std::string{"QEMU "} + (killed ? "was ended by signal " : "ended with status ")
          + std::to_string(info.si_status);
  report note{.kind = report_kind::died,
              .number = number,
              .error = one.failed_error,
              .oom_kills = read_group_key(one.memory_events.get(), "oom_kill")};
  note.out_of_memory = killed && info.si_status == SIGKILL && note.oom_kills > 0;
  note.text[why.copy(note.text, sizeof note.text - 1)] = '\0';
  tell(note);
  one.memory_events.reset();
  one.side.reset();
  one.pidfd.reset();
  cgroups_.kill(number);
  dying_.emplace(number, one.index);
  clear_dead();
}

void launcher_process::on_gone(std::uint64_t number) {
  processes_.erase(number);
  tell({.kind = report_kind::gone, .number = number});
}

/// In a process of its own: it takes as long as there is memory to copy.
void launcher_process::on_memory(const request& asked, std::vector<owned_fd>& fds) {
  report note{.kind = report_kind::memory, .ticket = asked.ticket, .number = asked.number};
  auto found = processes_.find(asked.number);
  if (found == processes_.end() || found->second.dead || fds.size() != 1) {
    note.error = ESRCH;
    return tell(note);
  }
  auto file = std::make_shared<owned_fd>(std::move(fds.front()));
  chore work{.machine = asked.number, .urgent = true, .keep = {proc_.get(), file->get()}};
  bool reads = asked.kind == request_kind::read_memory;
  work.work = [proc = proc_.get(), pid = found->second.pid, fd = file->get(), reads,
               most = asked.bytes_max](chore_result& result) {
    auto done =
        reads ? vm_memory::read_pages(proc, pid, fd, most) : vm_memory::write_pages(proc, pid, fd);
    result.error = done.error;
    result.bytes = done.bytes;
    std::snprintf(result.text, sizeof result.text, "%s", done.text.c_str());
  };
  work.done = [this, note, file](const chore_result& result) mutable {
    note.error = result.error;
    note.bytes = result.bytes;
    std::snprintf(note.text, sizeof note.text, "%.*s", static_cast<int>(sizeof note.text - 1),
                  result.text);
    tell(note);
  };
  chores_.add(std::move(work));
}

// --- loop ----------------------------------------------------------------------------------------

void launcher_process::tell(const report& what, std::span<const int> fds) {
  // A server that is gone is noticed by the loop.
  (void)server_.send_pod(what, fds);
}

void launcher_process::on_server(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !server_.flush())
    end();
  for (int round = 0; round < 32 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0; ++round) {
    std::array<std::byte, sizeof(request) + launcher::argument_bytes_max> packet;
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    auto got = server_.receive(packet, size, fds);
    if (got == packet_link::received::nothing)
      break;
    request asked{};
    if (got == packet_link::received::end || size < sizeof asked)
      end();
    std::memcpy(&asked, packet.data(), sizeof asked);
    if (size != sizeof asked + asked.argument_bytes)
      end();
    switch (asked.kind) {
    case request_kind::launch:
      launch(asked,
             {reinterpret_cast<const char*>(packet.data()) + sizeof asked, asked.argument_bytes},
             fds);
      // It took a while: others are heard before the next.
      return;
    case request_kind::destroy:
      destroy(asked.number);
      break;
    case request_kind::read_memory:
    case request_kind::write_memory:
      on_memory(asked, fds);
      break;
    default:
      end();
    }
  }
}

/// The server is gone: nothing of the instance stays.
void launcher_process::end() {
  for (auto& [number, one] : processes_)
    destroy(number);
  chores_.stop();
  end_with(processes_, [this](std::uint64_t number) { on_end(number); });
}

void launcher_process::run() {
  if (auto why = prepare(); !why.empty())
    refuse(why);
  tell_ready();
  for (;;) {
    hear<about>(next_clear_, [this](about kind, std::uint64_t number, std::uint32_t events) {
      switch (kind) {
      case about::server:
        on_server(events);
        break;
      case about::process_end:
        on_end(number);
        break;
      case about::side:
        on_side(number);
        break;
      case about::chore_end:
        chores_.on_end(number);
        break;
      }
    });
    if (clock::now() >= next_clear_)
      clear_dead();
  }
}

} // namespace

spawner_handle start_launcher(const qemu_settings& settings, std::string& why) {
  return start_privileged(
      "berth-launcher",
      [&settings](owned_fd server) {
        launcher_process{settings, std::move(server)}.run();
      },
      why);
}

} // namespace berth::machines
