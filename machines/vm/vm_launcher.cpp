// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_launcher.hpp"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

namespace berth::machines {

using launcher::report;
using launcher::report_kind;
using launcher::request;
using launcher::request_kind;
using spawner::packet_link;

// --- processes -----------------------------------------------------------------------------------

void vm_launcher::tell_died(std::uint64_t number, int error, std::string_view why) {
  report note{.kind = report_kind::died, .number = number, .error = error};
  note.text[why.copy(note.text, sizeof note.text - 1)] = '\0';
  tell(note);
}

namespace {

/// The texts between NULs.
std::vector<std::string> split_texts(std::string_view packed) {
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

} // namespace

report vm_launcher::answer_to(const request& asked, int error, std::string_view text) {
  report note{.kind = report_kind::answered,
              .ticket = asked.ticket,
              .number = asked.number,
              .error = error};
  note.text[text.copy(note.text, sizeof note.text - 1)] = '\0';
  return note;
}

const vm_launcher::living* vm_launcher::alive(std::uint64_t number) const {
  auto found = processes_.find(number);
  return found == processes_.end() || found->second.dead ? nullptr : &found->second;
}

std::uint32_t vm_launcher::uid_of(const living& one) const {
  return ordinary_user_ ? 0 : settings_.uid_base + one.index;
}

void vm_launcher::launch(const request& asked, std::string_view texts, std::vector<owned_fd>& fds) {
  bool known = processes_.contains(asked.number);
  auto split = split_texts(texts);
  std::string why;
  if (known || asked.number == 0 || asked.number >> kind_shift != 0 || fds.empty() || split.empty()
      || split.size() > launcher::arguments_max)
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
  wall_plan wanted{.number = asked.number,
                   .limits = {.memory_bytes = asked.memory_bytes, .processes = asked.processes},
                   .cgroups = &cgroups_,
                   .uid = uid_of(one),
                   .port = asked.port};
  for (const auto& fd : fds)
    wanted.descriptors.push_back(fd.get());
  why = plan(asked, std::move(split), one, wanted);
  one.kind = wanted.kind;
  int error = why.empty() ? clone(one, wanted) : EIO;
  if (error != 0) {
    tell_died(one.number, error, why.empty() ? "clone" : why);
    one.dead = true;
    dying_.emplace(one.number, one.index);
    return clear_dead();
  }
  add(one.pidfd.get(), about::process_end, one.number);
  add(one.side.get(), about::side, one.number);
}

int vm_launcher::clone(living& one, wall_plan& plan) {
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

void vm_launcher::destroy(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found != processes_.end() && !found->second.dead)
    ::syscall(SYS_pidfd_send_signal, found->second.pidfd.get(), SIGKILL, nullptr, 0);
}

void vm_launcher::on_side(std::uint64_t number) {
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
    one.failed_step = walls_failure(one.kind, said);
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

void vm_launcher::on_end(std::uint64_t number) {
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
    why = program_ + " " + (killed ? "was ended by signal " : "ended with status ")
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

void vm_launcher::on_gone(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found != processes_.end()) {
    on_cleared(found->second);
    processes_.erase(found);
  }
  tell({.kind = report_kind::gone, .number = number});
}

// --- loop ----------------------------------------------------------------------------------------

void vm_launcher::tell(const report& what, std::span<const int> fds) {
  // A server that is gone is noticed by the loop.
  (void)server_.send_pod(what, fds);
}

void vm_launcher::on_server(std::uint32_t events) {
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
    std::string_view text{reinterpret_cast<const char*>(packet.data()) + sizeof asked,
                          asked.argument_bytes};
    if (asked.kind == request_kind::launch)
      // It takes a while: others are heard before the next.
      return launch(asked, text, fds);
    if (asked.kind == request_kind::destroy)
      destroy(asked.number);
    else if (!on_request(asked, text, fds))
      end();
  }
}

/// The server is gone: nothing of the instance stays.
void vm_launcher::end() {
  for (auto& [number, one] : processes_)
    destroy(number);
  chores_.stop();
  end_with(
      processes_, [this](std::uint64_t number) { on_end(number); }, [this] { on_end_of_all(); });
}

void vm_launcher::run() {
  if (auto why = prepare(); !why.empty())
    refuse(why);
  auto lines = walls();
  add_wall_lines(lines);
  for (auto& line : facts_)
    lines.push_back(std::move(line));
  say_ready(lines);
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
      case about::other:
        on_other(number);
        break;
      }
    });
    if (clock::now() >= next_clear_)
      clear_dead();
  }
}

} // namespace berth::machines
