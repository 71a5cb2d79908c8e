// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <unistd.h>

/// What the lists of steps share that a process takes to be walled in: contain.cpp for namespace
/// machines, vm/walls.cpp for hypervisors. A step returns 0 or -errno. The process may run in its
/// parent's memory, so a step leaves nothing there.
namespace berth::machines {

/// What the process says on its side socket: once when its walls stand (`step` is walls_prepared,
/// with descriptors), and once when a step failed.
struct wall_report {
  std::uint32_t step = 0;
  std::int32_t error = 0;
  /// handle_bit of the descriptors that come along, in order.
  std::uint32_t handles = 0;
  /// Of a namespace machine: so many of cgroup.procs, and its /proc, come after them.
  std::uint32_t procs = 0;
  /// Where in the step it failed.
  char detail[32] = {};
};

/// The value of wall_report::step that means success so far.
inline constexpr std::uint32_t walls_prepared = UINT32_MAX;

inline int result(long value) {
  return value < 0 ? -errno : 0;
}

/// If the parent dies, however it does, the caller dies. To be said again after the last change of
/// identity, which forgets it.
int die_with_parent();
/// A session and signals of its own. The parent ignores some; ignoring would be inherited.
int forget_parent();
/// The pid namespace came with the clone. The cgroup namespace is rooted at the caller's groups.
int unshare_namespaces();
/// The only interface there is. Programs expect to reach themselves.
int raise_loopback();
/// A socket that listens on the loopback of the caller's network namespace, whoever has it later.
int listen_on_loopback(std::uint16_t port, owned_fd& to);
/// Processes of the pid namespace only, nobody else's, and nothing of the kernel's own files.
int mount_own_proc(const char* place);

/// A step of a site.
template <class Site>
struct wall_step {
  const char* name;
  int (*take)(Site&);
};

/// Takes the steps in order. The last one does not return; the first that fails is reported on
/// `at.side`, with `at.detail`, and ends the process.
template <class Site, std::size_t count>
[[noreturn]] void take_steps(const wall_step<Site> (&steps)[count], Site& at) {
  for (std::uint32_t number = 0; number < count; ++number) {
    int error = steps[number].take(at);
    if (error == 0)
      continue;
    wall_report report{.step = number, .error = -error};
    std::snprintf(report.detail, sizeof report.detail, "%s", at.detail);
    (void)::send(at.side, &report, sizeof report, MSG_NOSIGNAL | MSG_DONTWAIT);
    break;
  }
  ::_exit(127);
}

/// The name of the step that a report is about, and where in it. A hostile process may have sent
/// it, too: it is text about its own end, and any number is safe.
template <class Site, std::size_t count>
std::string failed_step(const wall_step<Site> (&steps)[count], const wall_report& said) {
  std::string text = said.step < count ? steps[said.step].name : "unknown step";
  if (said.detail[0] != '\0')
    text.append(" (").append(said.detail, ::strnlen(said.detail, sizeof said.detail)).append(")");
  return text;
}

} // namespace berth::machines
