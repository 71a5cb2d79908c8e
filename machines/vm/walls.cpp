// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/walls.hpp"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/mounts.hpp"
#include "machines/namespace/packet_link.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace berth::machines {

namespace {

/// Identity of a hypervisor as it sees itself.
constexpr std::uint32_t vmm_id = 1000;
/// Descriptors that it may have open.
constexpr std::uint64_t vmm_descriptors = 256;
/// Where descriptors wait until the low numbers are free.
constexpr int parked_from = 512;

struct site {
  const wall_plan& plan;
  cgroup_handles handles;
  int side = -1;
  const char* detail = "";
};

// --- the steps, in their order -------------------------------------------------------------------

/// Before anything is allocated on the machine's behalf: what follows is charged to it.
int join_cgroups(site& at) {
  return at.plan.cgroups->enter(at.plan.number, at.plan.limits, at.handles);
}

/// QEMU's own network (slirp) turns what its guest sends to 10.0.2.2 into connections to this
/// loopback. There is one socket, and the descriptor goes to the server: whatever QEMU does, it
/// reaches who serves that and nobody else.
int open_way_out(site& at) {
  if (at.plan.port == 0)
    return 0;
  int failed = raise_loopback();
  return failed != 0 ? failed
                     : listen_on_loopback(at.plan.port, at.handles[spawner::handle_listener]);
}

int report_prepared(site& at) {
  wall_report report{.step = walls_prepared};
  std::vector<int> fds;
  report.handles = at.handles.list(fds);
  spawner::packet_link link{owned_fd{::fcntl(at.side, F_DUPFD_CLOEXEC, 3)}};
  return link.send_pod(report, fds) ? 0 : -EPIPE;
}

/// Nothing on standard input and output but what Firecracker's serial console says, what came with
/// the request, nothing else.
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
  const bool console = at.plan.kind != wall_kind::qemu && !parked.empty();
  if (::dup2(null, 0) < 0 || ::dup2(console ? parked.front() : null, 1) < 0)
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

/// What a machine uses is counted by pages. A huge one holds what was never touched, and a machine
/// that idles pays for it.
int small_pages(site&) {
  return result(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
}

int become_program(site& at) {
  std::vector<char*> arguments;
  for (const auto& one : at.plan.arguments)
    arguments.push_back(const_cast<char*>(one.c_str()));
  arguments.push_back(nullptr);
  char home[] = "HOME=/";
  // Few threads, little memory: one heap is enough.
  char heaps[] = "MALLOC_ARENA_MAX=1";
  char* environment[] = {home, heaps, nullptr};
  ::execve(at.plan.binary.c_str(), arguments.data(), environment);
  return -errno;
}

/// The jailer looks into the /proc it finds, with its own number in the new pid namespace. Whole:
/// it reads /proc/mounts.
int own_whole_proc(site&) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return -errno;
  return result(::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr));
}

/// Runtime directories are often mounted so that no program and no device can be in them, and the
/// jailer puts both there. In this mount namespace only.
int open_jail(site& at) {
  const char* jail = at.plan.directory.c_str();
  if (::mount(jail, jail, nullptr, MS_BIND, nullptr) != 0)
    return -errno;
  return result(::mount(nullptr, jail, nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID, nullptr));
}

/// What the machine is made from, by names in its directory: nothing is copied. Files that are not
/// its own cannot be written, whoever they belong to.
int show_files(site& at) {
  for (const auto& one : at.plan.shown) {
    at.detail = one.as.c_str();
    const std::string place = at.plan.directory + "/" + one.as;
    if (::mount(one.from.c_str(), place.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return -errno;
    const std::uint64_t rights = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
                                 | (one.writable ? 0 : MOUNT_ATTR_RDONLY);
    if (!restrict_mount(place, rights, false))
      return -errno;
  }
  at.detail = "";
  return result(::umount2(at.plan.hidden.c_str(), MNT_DETACH));
}

int go_home(site& at) {
  return result(::chdir(at.plan.directory.c_str()));
}

/// The security argument: each step stands on those before it, the first that fails ends the
/// process, none is left out.
constexpr wall_step<site> qemu_steps[] = {
    {"tie to the launcher's life", [](site&) { return die_with_parent(); }},
    {"session and signals", [](site&) { return forget_parent(); }},
    {"cgroups", join_cgroups},
    // A network namespace without even a loopback, unless the machine has a way out.
    {"namespaces", [](site&) { return unshare_namespaces(); }},
    {"way out", open_way_out},
    // It is how descriptors are opened by their numbers. The host's is below, out of reach.
    {"proc", [](site&) { return mount_own_proc("/proc"); }},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"small pages", small_pages},
    {"confinement", confine},
    {"tie to the launcher's life again", [](site&) { return die_with_parent(); }},
    {"exec of QEMU", become_program},
};

/// Firecracker without its jailer, for an ordinary user: it sees the host's files as that user
/// does, and its own filter of system calls is what holds it.
constexpr wall_step<site> firecracker_steps[] = {
    {"tie to the launcher's life", [](site&) { return die_with_parent(); }},
    {"session and signals", [](site&) { return forget_parent(); }},
    {"cgroups", join_cgroups},
    {"namespaces", [](site&) { return unshare_namespaces(); }},
    {"proc", own_whole_proc},
    {"files", show_files},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"directory", go_home},
    {"confinement", confine},
    {"tie to the launcher's life again", [](site&) { return die_with_parent(); }},
    {"exec of Firecracker", become_program},
};

/// The jailer changes root and identity itself, makes the devices, and becomes Firecracker. Its
/// change of identity unties it from the launcher's life: what outlives a killed launcher is found
/// in its cgroup by the next start.
constexpr wall_step<site> jailer_steps[] = {
    {"tie to the launcher's life", [](site&) { return die_with_parent(); }},
    {"session and signals", [](site&) { return forget_parent(); }},
    {"cgroups", join_cgroups},
    {"namespaces", [](site&) { return unshare_namespaces(); }},
    {"proc", own_whole_proc},
    {"jail", open_jail},
    {"files", show_files},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"exec of the jailer", become_program},
};

} // namespace

std::string walls_failure(wall_kind kind, const wall_report& said) {
  switch (kind) {
  case wall_kind::firecracker:
    return failed_step(firecracker_steps, said);
  case wall_kind::jailer:
    return failed_step(jailer_steps, said);
  case wall_kind::qemu:
    break;
  }
  return failed_step(qemu_steps, said);
}

void become_vmm(const wall_plan& plan) {
  site at{.plan = plan, .handles = {}, .side = plan.side};
  switch (plan.kind) {
  case wall_kind::firecracker:
    take_steps(firecracker_steps, at);
  case wall_kind::jailer:
    take_steps(jailer_steps, at);
  case wall_kind::qemu:
    break;
  }
  take_steps(qemu_steps, at);
}

} // namespace berth::machines
