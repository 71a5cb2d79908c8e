// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/contain.hpp"

#include "machines/namespace/house.hpp"
#include "machines/namespace/packet_link.hpp"

#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string>
#include <unistd.h>

namespace berth::machines {

namespace {

/// What the steps share.
struct site {
  const containment_plan& plan;
  cgroup_handles handles;
  owned_fd proc;
  owned_fd guest;
  /// Where the side socket is; it moves once.
  int side = -1;
  const char* detail = "";
};

int result(long value) {
  return value < 0 ? -errno : 0;
}

// --- the steps, in their order -------------------------------------------------------------------

/// If the spawner dies, however it does, the machine dies. Said again after the last change of
/// identity, which forgets it.
int die_with_spawner(site&) {
  return result(::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

/// A session and signals of its own. The spawner ignores some; ignoring would be inherited.
int forget_spawner(site&) {
  for (int number = 1; number < NSIG; ++number)
    ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::umask(022);
  return result(::setsid());
}

/// Before anything is allocated on the machine's behalf: what follows is charged to it.
int join_cgroups(site& at) {
  return at.plan.cgroups->enter(at.plan.number, at.plan.limits, at.handles);
}

/// The pid namespace came with the clone. The cgroup namespace is rooted at the groups just joined.
int unshare_namespaces(site&) {
  return result(
      ::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
}

int set_hostname(site& at) {
  return result(::sethostname(at.plan.hostname.data(), at.plan.hostname.size()));
}

/// The only interface there is. Programs expect to reach themselves.
int raise_loopback(site&) {
  owned_fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return socket ? result(::ioctl(socket.get(), SIOCSIFFLAGS, &request)) : -errno;
}

/// One tmpfs holds all that the machine ever writes, so one number caps it, and another its files.
int mount_disk(site& at) {
  if (::mount("disk", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, at.plan.disk_options.c_str()) != 0)
    return -errno;
  auto& disk = at.handles.files[static_cast<std::size_t>(__builtin_ctz(spawner::handle_disk))];
  disk.reset(::open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return disk ? 0 : -errno;
}

/// The upper layer with the writable places in it, owned by the machine's own uid.
int furnish_disk(site& at) {
  struct place {
    const char* path;
    mode_t mode;
    bool agents;
  };
  static constexpr place places[] = {
      {"/tmp/work", 0755, false},          {"/tmp/upper", 0755, false},
      {"/tmp/upper/home", 0755, false},    {"/tmp/upper/home/agent", 0755, true},
      {"/tmp/upper/work", 0755, true},     {"/tmp/upper/tmp", 01777, false},
      {"/tmp/upper/var", 0755, false},     {"/tmp/upper/var/tmp", 01777, false},
      {"/tmp/upper/run", 0755, false},     {"/tmp/upper/run/lock", 01777, false},
      {"/tmp/upper/run/shm", 01777, false}};
  for (const auto& one : places) {
    if (::mkdir(one.path, one.mode) != 0)
      return -errno;
    if ((one.mode & S_ISVTX) != 0 && ::chmod(one.path, one.mode) != 0)
      return -errno;
    if (one.agents && ::chown(one.path, at.plan.confinement.uid, at.plan.confinement.gid) != 0)
      return -errno;
  }
  return 0;
}

/// The root: what is written lies over the house's own small root, which no machine can change.
int mount_root(site& at) {
  // An ordinary user's overlay keeps its marks in user attributes, where tmpfs has them.
  const char* options = at.plan.ordinary_user
                            ? "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work,userxattr"
                            : "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work";
  return result(::mount("root", "/mnt", "overlay", MS_NOSUID | MS_NODEV, options));
}

/// The house's toolchains and devices came along read-only with the mount namespace: a move each.
int move_toolchains(site& at) {
  for (const auto& path : at.plan.settings->visible)
    if (::mount(path.c_str(), ("/mnt" + path).c_str(), nullptr, MS_MOVE, nullptr) != 0)
      return at.detail = "visible path", -errno;
  if (::mount("/dev", "/mnt/dev", nullptr, MS_MOVE, nullptr) != 0)
    return at.detail = "/dev", -errno;
  // Of the disk, so that shared memory is under its cap.
  if (::mount("/mnt/run/shm", "/mnt/dev/shm", nullptr, MS_BIND, nullptr) != 0)
    return at.detail = "/dev/shm", -errno;
  return 0;
}

/// Processes of this machine only, nobody else's, and nothing of the kernel's own files.
int mount_proc(site&) {
  return result(::mount("proc", "/mnt/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                        "subset=pid,hidepid=2"));
}

/// From here on the host's files do not exist, not even by a descriptor: every one that is open
/// here closes at the exec.
int leave_house(site& at) {
  if (::chdir("/mnt") != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0)
    return -errno;
  if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return -errno;
  at.guest.reset(::open(house_guest, O_PATH | O_CLOEXEC));
  at.proc.reset(::open("/proc", O_DIRECTORY | O_RDONLY | O_CLOEXEC));
  return at.guest && at.proc ? 0 : -errno;
}

/// Hands the machine's handles to the spawner.
int report_prepared(site& at) {
  containment_report report{.step = step_prepared};
  std::vector<int> fds;
  for (std::size_t i = 0; i < at.handles.files.size(); ++i) {
    if (!at.handles.files[i])
      continue;
    report.handles |= 1U << i;
    fds.push_back(at.handles.files[i].get());
  }
  for (const auto& one : at.handles.procs) {
    if (!one)
      continue;
    ++report.procs;
    fds.push_back(one.get());
  }
  fds.push_back(at.proc.get());
  spawner::packet_link link{owned_fd{::fcntl(at.plan.side, F_DUPFD_CLOEXEC, 3)}};
  return link.send_pod(report, fds) ? 0 : -EPIPE;
}

/// Three of /dev/null, the channel, the side socket; nothing else survives the exec.
int settle_descriptors(site& at) {
  owned_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  owned_fd guest{::fcntl(at.guest.get(), F_DUPFD_CLOEXEC, 10)};
  owned_fd channel{::fcntl(at.plan.channel, F_DUPFD_CLOEXEC, 10)};
  owned_fd side{::fcntl(at.plan.side, F_DUPFD_CLOEXEC, 10)};
  owned_fd high{::fcntl(null.get(), F_DUPFD_CLOEXEC, 10)};
  if (!null || !guest || !channel || !side || !high)
    return -errno;
  at.guest = std::move(guest);
  (void)null.release(); // it may be one of the numbers that are about to be taken
  for (int stream : {0, 1, 2})
    if (::dup2(high.get(), stream) < 0)
      return -errno;
  if (::dup2(channel.get(), 3) < 0 || ::dup2(side.get(), 4) < 0)
    return -errno;
  at.side = 4;
  int keep = at.guest.get();
  // What is closed here belongs to objects whose destructors never run: this process becomes
  // another program or ends by _exit.
  if (::close_range(5, static_cast<unsigned>(keep) - 1, 0) != 0)
    return -errno;
  return result(::close_range(static_cast<unsigned>(keep) + 1, ~0U, 0));
}

/// Limits, identity, user namespace, capabilities, no_new_privs, landlock, seccomp: the list is in
/// confine/confine.c, for interpreters that are put into a machine later take the same steps.
int confine(site& at) {
  return berth_confine(&at.plan.confinement, &at.detail);
}

int become_guest(site& at) {
  char name[] = "berth-guest";
  char* arguments[] = {name, nullptr};
  char* environment[] = {nullptr};
  ::syscall(SYS_execveat, at.guest.get(), "", arguments, environment, AT_EMPTY_PATH);
  return -errno;
}

struct step {
  const char* name;
  int (*take)(site&);
};

/// The security argument: each step stands on those before it, the first that fails ends the
/// machine, none is left out.
constexpr step steps[] = {
    {"tie to the spawner's life", die_with_spawner},
    {"session and signals", forget_spawner},
    {"cgroups", join_cgroups},
    {"namespaces", unshare_namespaces},
    {"hostname", set_hostname},
    {"loopback", raise_loopback},
    {"disk", mount_disk},
    {"places on the disk", furnish_disk},
    {"root overlay", mount_root},
    {"toolchains and devices", move_toolchains},
    {"proc", mount_proc},
    {"pivot_root", leave_house},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"confinement", confine},
    {"tie to the spawner's life again", die_with_spawner},
    {"exec of the guest", become_guest},
};

} // namespace

const char* containment_step_name(std::uint32_t number) {
  return number < std::size(steps) ? steps[number].name : "unknown step";
}

std::uint64_t disk_inodes(const namespace_settings& settings, std::uint64_t disk_bytes) {
  std::uint64_t each = settings.disk_bytes_per_inode == 0 ? 4096 : settings.disk_bytes_per_inode;
  return std::max<std::uint64_t>(disk_bytes / each, 1024);
}

std::string disk_options(const namespace_settings& settings, std::uint64_t disk_bytes) {
  return "mode=755,size=" + std::to_string(disk_bytes)
         + ",nr_inodes=" + std::to_string(disk_inodes(settings, disk_bytes));
}

void contain(const containment_plan& plan) {
  // Never destroyed: _exit and exec do not unwind, and descriptors are closed by number. So it owns
  // no memory, which is the spawner's.
  alignas(site) static std::byte room[sizeof(site)];
  site& at = *new (room) site{plan, {}, {}, {}, plan.side, ""};
  for (std::uint32_t number = 0; number < std::size(steps); ++number) {
    int error = steps[number].take(at);
    if (error == 0)
      continue;
    containment_report report{.step = number, .error = -error};
    std::snprintf(report.detail, sizeof report.detail, "%s", at.detail);
    (void)::send(at.side, &report, sizeof report, MSG_NOSIGNAL | MSG_DONTWAIT);
    break;
  }
  ::_exit(127);
}

} // namespace berth::machines
