// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/walls.hpp"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/packet_link.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

namespace berth::machines {

namespace {

/// Identity of a QEMU as it sees itself.
constexpr std::uint32_t vmm_id = 1000;
/// Descriptors that QEMU may have open.
constexpr std::uint64_t vmm_descriptors = 256;
/// Where descriptors wait until the low numbers are free.
constexpr int parked_from = 512;

struct site {
  const wall_plan& plan;
  cgroup_handles handles;
  int side = -1;
  const char* detail = "";
};

int result(long value) {
  return value < 0 ? -errno : 0;
}

// --- the steps, in their order -------------------------------------------------------------------

/// If the launcher dies, however it does, the machine dies. Said again after the last change of
/// identity, which forgets it.
int die_with_launcher(site&) {
  return result(::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

int forget_launcher(site&) {
  for (int number = 1; number < NSIG; ++number)
    ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  return result(::setsid());
}

/// Before anything is allocated on the machine's behalf: what follows is charged to it.
int join_cgroups(site& at) {
  return at.plan.cgroups->enter(at.plan.number, at.plan.limits, at.handles);
}

/// The pid namespace came with the clone. A network namespace without even a loopback.
int unshare_namespaces(site&) {
  return result(
      ::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
}

/// Of this process alone. It is how descriptors are opened by their numbers.
int mount_proc(site&) {
  // The host's is below and cannot be reached any more.
  return result(
      ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2"));
}

int report_prepared(site& at) {
  wall_report report{.step = walls_prepared};
  std::vector<int> fds;
  report.handles = at.handles.list(fds);
  spawner::packet_link link{owned_fd{::fcntl(at.side, F_DUPFD_CLOEXEC, 3)}};
  return link.send_pod(report, fds) ? 0 : -EPIPE;
}

/// Nothing on standard input and output, what came with the request, nothing else.
int settle_descriptors(site& at) {
  std::vector<int> parked;
  for (int fd : at.plan.descriptors) {
    parked.push_back(::fcntl(fd, F_DUPFD_CLOEXEC, parked_from));
    if (parked.back() < 0)
      return -errno;
  }
  int side = ::fcntl(at.side, F_DUPFD_CLOEXEC, parked_from);
  int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  null = ::fcntl(null, F_DUPFD_CLOEXEC, parked_from);
  if (side < 0 || null < 0)
    return -errno;
  at.side = side;
  if (::dup2(null, 0) < 0 || ::dup2(null, 1) < 0)
    return -errno;
  int number = 2;
  for (int fd : parked)
    if (::dup2(fd, number++) < 0)
      return -errno;
  return result(::close_range(static_cast<unsigned>(number), parked_from - 1, 0));
}

/// Limits, identity, user namespace, capabilities, no_new_privs, landlock: the list is that of the
/// namespace machines, in namespace/confine/confine.c. The filter of system calls is QEMU's own
/// (-sandbox), which knows what it needs and when.
int confine(site& at) {
  berth_confinement wanted{};
  wanted.flags = BERTH_CONFINE_NEW_USER_NS;
  wanted.uid = wanted.gid = at.plan.uid;
  wanted.inside_uid = wanted.inside_gid = vmm_id;
  wanted.oom_score_adj = 300;
  wanted.nofile = vmm_descriptors;
  wanted.nproc = wanted.address_space = wanted.file_size = BERTH_LIMIT_KEEP;
  return berth_confine(&wanted, &at.detail);
}

int become_qemu(site& at) {
  std::vector<char*> arguments;
  for (const auto& one : at.plan.arguments)
    arguments.push_back(const_cast<char*>(one.c_str()));
  arguments.push_back(nullptr);
  char home[] = "HOME=/";
  char* environment[] = {home, nullptr};
  ::execve(at.plan.binary.c_str(), arguments.data(), environment);
  return -errno;
}

struct step {
  const char* name;
  int (*take)(site&);
};

/// The security argument: each step stands on those before it, the first that fails ends the
/// process, none is left out.
constexpr step steps[] = {
    {"tie to the launcher's life", die_with_launcher},
    {"session and signals", forget_launcher},
    {"cgroups", join_cgroups},
    {"namespaces", unshare_namespaces},
    {"proc", mount_proc},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"confinement", confine},
    {"tie to the launcher's life again", die_with_launcher},
    {"exec of QEMU", become_qemu},
};

} // namespace

const char* wall_step_name(std::uint32_t number) {
  return number < std::size(steps) ? steps[number].name : "unknown step";
}

void become_vmm(const wall_plan& plan) {
  site at{.plan = plan, .handles = {}, .side = plan.side};
  for (std::uint32_t number = 0; number < std::size(steps); ++number) {
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

} // namespace berth::machines
