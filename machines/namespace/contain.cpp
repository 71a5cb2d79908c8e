// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/contain.hpp"

#include "machines/namespace/house.hpp"
#include "machines/namespace/layer_keeper.hpp"
#include "machines/namespace/packet_link.hpp"

#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <string>
#include <unistd.h>

namespace berth::machines {

namespace {

/// The descriptors after the guest's own.
constexpr int anchor_fd = 5;

/// What the steps share.
struct site {
  const containment_plan& plan;
  cgroup_handles handles;
  owned_fd proc;
  owned_fd guest;
  owned_fd anchor;
  /// Where the side socket is; it moves once.
  int side = -1;
  const char* detail = "";
};

// --- the steps, in their order -------------------------------------------------------------------

int forget_spawner(site&) {
  ::umask(022);
  return forget_parent();
}

/// Before anything is allocated on the machine's behalf: what follows is charged to it.
int join_cgroups(site& at) {
  return at.plan.cgroups->enter(at.plan.number, at.plan.limits, at.handles);
}

int set_hostname(site& at) {
  return result(::sethostname(at.plan.hostname.data(), at.plan.hostname.size()));
}

/// The descriptor goes to the server with the report, and does not stay here: what is connected to
/// it comes out there, and nothing else of the machine's reaches beyond its loopback.
int open_way_out(site& at) {
  return at.plan.port == 0 ? 0
                           : listen_on_loopback(at.plan.port, at.handles[spawner::handle_listener]);
}

/// One tmpfs holds all that the machine ever writes, so one number caps it, and another its files.
int mount_disk(site& at) {
  int restored = at.plan.beginning.disk;
  // One that archives were restored to is there already.
  if (restored >= 0
          ? ::move_mount(restored, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) != 0
          : ::mount("disk", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, at.plan.disk_options.c_str())
                != 0)
    return -errno;
  auto& disk = at.handles[spawner::handle_disk];
  disk.reset(::open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return disk ? 0 : -errno;
}

/// Disks of the machine that this one was forked from, read-only, twice each: as they are, for
/// forks of this one, and with the files of their agent as those of ours, for the tree.
int mount_parents_disks(site& at) {
  const tree_beginning& begins = at.plan.beginning;
  if (begins.disks.empty())
    return 0;
  owned_fd home{::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)};
  if (!home || ::setns(begins.parent_pidfd, CLONE_NEWNS) != 0)
    return -errno;
  int plain[disks_max];
  int mapped[disks_max];
  std::size_t count = 0;
  for (const auto& one : begins.disks) {
    plain[count] = ::open_tree(AT_FDCWD, one.from.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    mapped[count] = ::open_tree(AT_FDCWD, one.from.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (plain[count] < 0 || mapped[count] < 0)
      return at.detail = "the parent's disk", -errno;
    ++count;
  }
  if (::setns(home.get(), CLONE_NEWNS) != 0 || ::chdir("/tmp") != 0 || ::mkdir("disks", 0700) != 0
      || ::mkdir("mapped", 0755) != 0)
    return -errno;
  count = 0;
  for (const auto& one : begins.disks) {
    mount_attr only_read{};
    only_read.attr_set = MOUNT_ATTR_RDONLY;
    mount_attr wanted = only_read;
    if (one.ids >= 0) {
      wanted.attr_set |= MOUNT_ATTR_IDMAP;
      wanted.userns_fd = static_cast<std::uint64_t>(one.ids);
    }
    char places[2][48];
    std::snprintf(places[0], sizeof places[0], "disks/%llu",
                  static_cast<unsigned long long>(one.index));
    std::snprintf(places[1], sizeof places[1], "mapped/%llu",
                  static_cast<unsigned long long>(one.index));
    if (::mount_setattr(plain[count], "", AT_EMPTY_PATH, &only_read, sizeof only_read) != 0
        || ::mount_setattr(mapped[count], "", AT_EMPTY_PATH, &wanted, sizeof wanted) != 0)
      return at.detail = "map of ids", -errno;
    if (::mkdir(places[0], 0700) != 0 || ::mkdir(places[1], 0755) != 0
        || ::move_mount(plain[count], "", AT_FDCWD, places[0], MOVE_MOUNT_F_EMPTY_PATH) != 0
        || ::move_mount(mapped[count], "", AT_FDCWD, places[1], MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return at.detail = "the parent's disk", -errno;
    ++count;
  }
  return 0;
}

/// A top over layers that are there: its root is like theirs, for an overlay shows the top's.
int furnish_top(const std::string& lowers) {
  char first[64];
  std::snprintf(first, sizeof first, "%.*s",
                static_cast<int>(std::min(lowers.find(':'), lowers.size())), lowers.c_str());
  struct stat root {};
  return result(::chdir("/tmp") != 0 || ::stat(first, &root) != 0 || ::mkdir("0", 0755) != 0
                        || ::mkdir("0/work", 0755) != 0 || ::mkdir("0/up", 0755) != 0
                        || ::chown("0/up", root.st_uid, root.st_gid) != 0
                        || ::chmod("0/up", root.st_mode & 07777) != 0
                    ? -1
                    : 0);
}

/// The first layer with the writable places in it, owned by the machine's own uid.
int furnish_disk(site& at) {
  struct place {
    const char* path;
    mode_t mode;
    bool agents;
  };
  static constexpr place places[] = {{"/tmp/0", 0755, false},
                                     {"/tmp/0/work", 0755, false},
                                     {"/tmp/0/up", 0755, false},
                                     {"/tmp/0/up/home", 0755, false},
                                     {"/tmp/0/up/home/agent", 0755, true},
                                     {"/tmp/0/up/work", 0755, true},
                                     {"/tmp/0/up/tmp", 01777, false},
                                     {"/tmp/0/up/var", 0755, false},
                                     {"/tmp/0/up/var/tmp", 01777, false},
                                     {"/tmp/0/up/run", 0755, false},
                                     {"/tmp/0/up/run/lock", 01777, false},
                                     {"/tmp/0/up/run/shm", 01777, false}};
  if (!at.plan.beginning.lowers.empty())
    return furnish_top(at.plan.beginning.lowers);
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

/// The tree: what is written lies over the house's own small root, which no machine can change.
int mount_tree(site& at) {
  static char options[4'000];
  const char* lowers = at.plan.beginning.lowers.c_str();
  int size = std::snprintf(options, sizeof options, "lowerdir=%s%s/,upperdir=0/up,workdir=0/work%s",
                           lowers, *lowers == '\0' ? "" : ":", tree_options(at.plan.ordinary_user));
  if (size < 0 || static_cast<std::size_t>(size) >= sizeof options)
    return -E2BIG;
  // The layers' paths are short ones.
  if (::chdir("/tmp") != 0)
    return -errno;
  return result(::mount("root", "/mnt/machine/root", "overlay", MS_NOSUID | MS_NODEV, options));
}

/// The house's toolchains and devices came along read-only with the mount namespace: a move each.
int move_toolchains(site& at) {
  char target[512];
  for (const auto& path : *at.plan.mounts) {
    std::snprintf(target, sizeof target, "/mnt/machine/root%s", path.c_str());
    if (::mount(path.c_str(), target, nullptr, MS_MOVE, nullptr) != 0)
      return at.detail = "a path of the house", -errno;
  }
  if (::mount("/dev", "/mnt/machine/root/dev", nullptr, MS_MOVE, nullptr) != 0)
    return at.detail = "/dev", -errno;
  // Of the disk, so that shared memory is under its cap.
  if (::mount("/mnt/machine/root/run/shm", "/mnt/machine/root/dev/shm", nullptr, MS_BIND, nullptr)
      != 0)
    return at.detail = "/dev/shm", -errno;
  return 0;
}

/// The base becomes the namespace's root, and what is left of the house a directory of it. The
/// host's /proc goes. Confinement makes the tree the process's root; every descriptor that is open
/// here closes at the exec.
int leave_house(site& at) {
  if (::chdir("/mnt") != 0 || ::syscall(SYS_pivot_root, ".", "./house") != 0 || ::chdir("/") != 0)
    return -errno;
  if (::umount2("/house/proc", MNT_DETACH) != 0)
    return at.detail = "/proc", -errno;
  at.anchor.reset(::open(base_anchor, O_PATH | O_DIRECTORY | O_CLOEXEC));
  owned_fd tree{::open(base_tree, O_PATH | O_DIRECTORY | O_CLOEXEC)};
  at.guest.reset(::openat(tree.get(), house_guest + 1, O_PATH | O_CLOEXEC));
  at.proc.reset(::openat(tree.get(), "proc", O_DIRECTORY | O_RDONLY | O_CLOEXEC));
  return at.anchor && at.guest && at.proc ? 0 : -errno;
}

/// Hands the machine's handles to the spawner.
int report_prepared(site& at) {
  wall_report report{.step = walls_prepared};
  std::vector<int> fds;
  report.handles = at.handles.list(fds);
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

/// Three of /dev/null, the channel, the side socket; nothing else survives the exec. The anchor
/// waits at 5 for landlock.
int settle_descriptors(site& at) {
  owned_fd null{::open("/machine/root/dev/null", O_RDWR | O_CLOEXEC)};
  owned_fd guest{::fcntl(at.guest.get(), F_DUPFD_CLOEXEC, 10)};
  owned_fd channel{::fcntl(at.plan.channel, F_DUPFD_CLOEXEC, 10)};
  owned_fd side{::fcntl(at.plan.side, F_DUPFD_CLOEXEC, 10)};
  owned_fd anchor{::fcntl(at.anchor.get(), F_DUPFD_CLOEXEC, 10)};
  owned_fd high{::fcntl(null.get(), F_DUPFD_CLOEXEC, 10)};
  if (!null || !guest || !channel || !side || !anchor || !high)
    return -errno;
  at.guest = std::move(guest);
  at.anchor = std::move(anchor);
  (void)null.release(); // it may be one of the numbers that are about to be taken
  for (int stream : {0, 1, 2})
    if (::dup2(high.get(), stream) < 0)
      return -errno;
  if (::dup2(channel.get(), 3) < 0 || ::dup2(side.get(), 4) < 0
      || ::dup3(at.anchor.get(), anchor_fd, O_CLOEXEC) < 0)
    return -errno;
  at.side = 4;
  int keep = at.guest.get();
  // What is closed here belongs to objects whose destructors never run: this process becomes
  // another program or ends by _exit.
  if (::close_range(anchor_fd + 1, static_cast<unsigned>(keep) - 1, 0) != 0)
    return -errno;
  return result(::close_range(static_cast<unsigned>(keep) + 1, ~0U, 0));
}

/// Limits, identity, user namespace, chroot into the tree, capabilities, no_new_privs, landlock,
/// seccomp: the list is in confine/confine.c, for interpreters that are put into a machine later
/// take the same steps.
int confine(site& at) {
  berth_confinement wanted = at.plan.confinement;
  wanted.tree = base_tree;
  wanted.anchor = anchor_fd;
  return berth_confine(&wanted, &at.detail);
}

int become_guest(site& at) {
  char name[] = "berth-guest";
  char* arguments[] = {name, nullptr};
  // The guest tells its jobs.
  char port[32];
  std::snprintf(port, sizeof port, "BERTH_WAY_OUT=%u", unsigned{at.plan.port});
  char* environment[] = {at.plan.port == 0 ? nullptr : port, nullptr};
  ::syscall(SYS_execveat, at.guest.get(), "", arguments, environment, AT_EMPTY_PATH);
  return -errno;
}

/// The security argument: each step stands on those before it, the first that fails ends the
/// machine, none is left out.
constexpr wall_step<site> steps[] = {
    {"tie to the spawner's life", [](site&) { return die_with_parent(); }},
    {"session and signals", forget_spawner},
    {"cgroups", join_cgroups},
    {"namespaces", [](site&) { return unshare_namespaces(); }},
    {"hostname", set_hostname},
    {"loopback", [](site&) { return raise_loopback(); }},
    {"way out", open_way_out},
    {"disk", mount_disk},
    {"disks of the parent", mount_parents_disks},
    {"places on the disk", furnish_disk},
    {"root overlay", mount_tree},
    {"toolchains and devices", move_toolchains},
    {"proc", [](site&) { return mount_own_proc("/mnt/machine/root/proc"); }},
    {"pivot_root", leave_house},
    {"report", report_prepared},
    {"descriptors", settle_descriptors},
    {"confinement", confine},
    {"tie to the spawner's life again", [](site&) { return die_with_parent(); }},
    {"exec of the guest", become_guest},
};

} // namespace

std::string containment_failure(const wall_report& said) {
  return failed_step(steps, said);
}

const char* tree_options(bool ordinary_user) {
  // Marks are kept in an ordinary user's own attributes, where tmpfs has them. Directories are not
  // renamed by reference nor files copied by halves, so a layer can be read by itself.
  return ordinary_user ? ",userxattr" : ",index=off,redirect_dir=nofollow,metacopy=off";
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
  site& at = *new (room) site{plan, {}, {}, {}, {}, plan.side, ""};
  take_steps(steps, at);
}

} // namespace berth::machines
