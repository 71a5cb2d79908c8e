// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layer_switch.hpp"

#include "machines/namespace/contain.hpp"
#include "machines/namespace/directory.hpp"
#include "machines/namespace/house.hpp"

#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#  include <sanitizer/asan_interface.h>
#endif

namespace berth::machines {

namespace {

/// Names in the tree's root directory; a frozen top's are moved one by one.
constexpr std::size_t root_names_max = 1024;
/// The kernel takes mount options of one page.
constexpr std::size_t options_bytes_max = 4'000;

/// Opens what a machine's tree has at a path without following any link in it: as an ordinary user
/// the agent owns the tree's directories.
owned_fd open_in(int tree, const char* path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return owned_fd{static_cast<int>(::syscall(SYS_openat2, tree, path, &how, sizeof how))};
}

int set_writable(const char* path, bool writable) {
  mount_attr wanted{};
  (writable ? wanted.attr_clr : wanted.attr_set) = MOUNT_ATTR_RDONLY;
  return ::mount_setattr(AT_FDCWD, path, 0, &wanted, sizeof wanted);
}

/// Moves every name of one directory to another. Returns 0 or errno; with EOVERFLOW there are too
/// many.
int move_names(int from, int to) {
  open_dir dir = read_directory(owned_fd{::openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)});
  if (!dir)
    return errno;
  int error = 0;
  std::size_t count = 0;
  // A name that is moved while the directory is read may be passed over: it is read again until it
  // is empty.
  for (bool any = true; any && error == 0; ::rewinddir(dir.get())) {
    any = false;
    while (dirent* entry = error == 0 ? ::readdir(dir.get()) : nullptr) {
      if (is_dots(entry->d_name))
        continue;
      any = true;
      if (++count > root_names_max)
        error = EOVERFLOW;
      else if (::renameat(from, entry->d_name, to, entry->d_name) != 0)
        error = errno;
    }
  }
  return error;
}

/// The steps, in a process that shares the caller's memory: it leaves nothing there.
class switcher {
public:
  explicit switcher(tree_switch& wanted)
    : wanted_(wanted) {}

  void run() {
    if (!enter() || !prepare() || !(wanted_.freeze ? close_top() : true) || !mount_next()
        || !furnish_next() || !take_place())
      undo();
    else
      clear();
    if (wanted_.step == nullptr)
      wanted_.old_tree = std::move(tree_);
  }

private:
  bool fail(const char* step, int error = errno) {
    wanted_.step = step;
    wanted_.error = error != 0 ? error : EIO;
    return false;
  }

  bool enter() {
    if (::setns(wanted_.pidfd, CLONE_NEWNS) != 0)
      return fail("the machine's mounts");
    ::umask(0);
    base_.reset(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    tree_.reset(::open(base_tree, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!base_ || !tree_ || ::chdir(base_disk) != 0)
      return fail("the machine's disk");
    std::snprintf(top_, sizeof top_, "%llu", static_cast<unsigned long long>(wanted_.top));
    std::snprintf(fresh_, sizeof fresh_, "%llu", static_cast<unsigned long long>(wanted_.fresh));
    return true;
  }

  /// The new top's directories. Its root is what the tree's root is: an overlay shows the top's.
  bool prepare() {
    struct stat root {};
    if (::fstatat(tree_.get(), "", &root, AT_EMPTY_PATH) != 0)
      return fail("the tree's root");
    made_ = ::mkdir(fresh_, 0700) == 0;
    if (!made_ || ::mkdir(path(fresh_, "work"), 0700) != 0 || !make_like(path(fresh_, "up"), root)
        || ::chmod(fresh_, 0755) != 0)
      return fail("directories of a layer");
    return true;
  }

  static bool make_like(const char* path, const struct stat& other) {
    return ::mkdir(path, 0700) == 0 && ::chown(path, other.st_uid, other.st_gid) == 0
           && ::chmod(path, other.st_mode & 07777) == 0;
  }

  /// Nobody can write to the present tree any more, and its names are where a layer has them. They
  /// move because the kernel takes note, in its log, of a lower layer that is still somebody's
  /// upper one; who has a file of it open keeps it.
  bool close_top() {
    shut_ = true;
    if (set_writable(shm_path, false) != 0 || set_writable(base_tree, false) != 0)
      return fail("unwritable");
    struct stat root {};
    if (::stat(path(top_, "up"), &root) != 0 || !make_like(path(top_, "tree"), root))
      return fail("directories of a layer");
    moved_ = true;
    if (int error = move_top("up", "tree"))
      return fail("names of the root directory", error);
    timespec times[2] = {root.st_atim, root.st_mtim};
    ::utimensat(AT_FDCWD, path(top_, "tree"), times, 0);
    return true;
  }

  int move_top(const char* from, const char* to) {
    owned_fd source{::open(path(top_, from), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    owned_fd target{::open(path(top_, to), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    return source && target ? move_names(source.get(), target.get()) : errno;
  }

  bool mount_next() {
    char options[options_bytes_max];
    int size = std::snprintf(options, sizeof options,
                             "lowerdir=%s%s%s%s%s,upperdir=%s/up,workdir=%s/work%s",
                             wanted_.freeze ? top_ : "", wanted_.freeze ? "/tree:" : "",
                             wanted_.lowers.c_str(), wanted_.lowers.empty() ? "" : ":", base_house,
                             fresh_, fresh_, tree_options(wanted_.ordinary_user));
    if (size < 0 || static_cast<std::size_t>(size) >= sizeof options)
      return fail("too many layers", E2BIG);
    if (::mount("root", base_next, "overlay", MS_NOSUID | MS_NODEV, options) != 0)
      return fail("overlay");
    mounted_ = true;
    next_.reset(::open(base_next, O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct statfs info {};
    if (!next_ || ::fstatfs(next_.get(), &info) != 0)
      return fail("overlay");
    // What the kernel makes of an overlay whose working directory found no inode.
    return (info.f_flags & ST_RDONLY) == 0 ? true : fail("overlay", ENOSPC);
  }

  /// Clones a mount of the present tree to the same place in the next one.
  bool clone(const char* name, bool below) {
    owned_fd from = open_in(tree_.get(), name);
    owned_fd to = open_in(next_.get(), name);
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    owned_fd copy{from && to ? ::open_tree(from.get(), "", flags | (below ? AT_RECURSIVE : 0))
                             : -1};
    if (!copy
        || ::move_mount(copy.get(), "", to.get(), "",
                        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
               != 0)
      return fail(name);
    return true;
  }

  bool furnish_next() {
    for (const auto& mount : *wanted_.mounts)
      if (!clone(mount.c_str() + 1, true))
        return false;
    // Where device nodes had to be bound they come along, and the old shared memory with them.
    struct stat dev {};
    struct stat null {};
    owned_fd old = open_in(tree_.get(), "dev");
    bool bound = old && ::fstat(old.get(), &dev) == 0 && ::fstatat(old.get(), "null", &null, 0) == 0
                 && dev.st_dev != null.st_dev;
    if (!clone("dev", bound) || !clone("proc", false))
      return false;
    if (bound && ::umount2("/next/dev/shm", MNT_DETACH) != 0)
      return fail("dev/shm");
    owned_fd memory = open_in(next_.get(), "run/shm");
    owned_fd place = open_in(next_.get(), "dev/shm");
    owned_fd copy{memory && place ? ::open_tree(memory.get(), "",
                                                OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
                                  : -1};
    if (!copy
        || ::move_mount(copy.get(), "", place.get(), "",
                        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
               != 0)
      return fail("dev/shm");
    return true;
  }

  /// pivot_root wants the new root below the caller's old one: it is put on top of it first.
  bool take_place() {
    if (::chdir(base_tree) != 0 || ::chroot(".") != 0)
      return fail("chroot");
    if (::move_mount(base_.get(), "next", AT_FDCWD, ".", 0) != 0)
      return fail("move of the next tree");
    stacked_ = true;
    if (::fchdir(next_.get()) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0)
      return fail("pivot_root");
    mounted_ = false;
    placed_ = true;
    // Without the old tree's mount its files live as long as somebody has them open.
    return ::umount2(".", MNT_DETACH) == 0 ? true : fail("the old tree");
  }

  /// The machine is as it was, or broken.
  void undo() {
    if (placed_) {
      wanted_.broken = true;
      return;
    }
    if (!base_)
      return;
    bool whole = true;
    if (mounted_ && stacked_)
      whole = ::fchdir(next_.get()) == 0 && ::umount2(".", MNT_DETACH) == 0;
    if (::fchdir(base_.get()) != 0 || ::chroot(".") != 0 || ::chdir(base_disk) != 0) {
      wanted_.broken = moved_ || shut_ || mounted_;
      return;
    }
    if (mounted_ && !stacked_)
      whole = ::umount2(base_next, MNT_DETACH) == 0;
    if (moved_)
      whole = move_top("tree", "up") == 0 && whole;
    if (shut_) {
      ::rmdir(path(top_, "tree"));
      whole = set_writable(base_tree, true) == 0 && set_writable(shm_path, true) == 0 && whole;
    }
    wanted_.broken = !whole;
    if (made_)
      remove_working(fresh_), ::rmdir(path(fresh_, "up")), ::rmdir(fresh_);
  }

  /// What the old overlay needed of its own.
  void clear() {
    if (!wanted_.freeze || ::fchdir(base_.get()) != 0 || ::chroot(".") != 0
        || ::chdir(base_disk) != 0)
      return;
    remove_working(top_);
    ::rmdir(path(top_, "up"));
  }

  void remove_working(const char* layer) {
    for (const char* name : {"work/work", "work/index", "work"})
      ::unlinkat(AT_FDCWD, path(layer, name), AT_REMOVEDIR);
  }

  const char* path(const char* layer, const char* name) {
    std::snprintf(path_, sizeof path_, "%s/%s", layer, name);
    return path_;
  }

  static constexpr const char* shm_path = "/machine/root/dev/shm";

  tree_switch& wanted_;
  owned_fd base_;
  owned_fd tree_;
  owned_fd next_;
  char top_[24] = {};
  char fresh_[24] = {};
  char path_[64] = {};
  bool made_ = false;    ///< the new directory is there
  bool shut_ = false;    ///< the present tree is read-only, or part of it
  bool moved_ = false;   ///< the top's names are under `tree`, or some
  bool mounted_ = false; ///< the next tree is mounted and not in its place
  bool stacked_ = false; ///< it lies on the present one
  bool placed_ = false;  ///< it is the machine's
};

alignas(16) char switch_stack[128 * 1024];

int run_switch(void* wanted) {
  switcher{*static_cast<tree_switch*>(wanted)}.run();
  ::_exit(0);
}

} // namespace

void switch_tree(tree_switch& wanted) {
#ifdef __SANITIZE_ADDRESS__
  // It never returns from its frames, and what they marked would trip the next one.
  ASAN_UNPOISON_MEMORY_REGION(switch_stack, sizeof switch_stack);
#endif
  int status = 0;
  // In our memory, as by vfork: copying it would cost as much as the switch. With our descriptors,
  // for the old tree's is to stay.
  pid_t pid = ::clone(run_switch, switch_stack + sizeof switch_stack,
                      CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, &wanted);
  if (pid < 0) {
    wanted.step = "clone";
    wanted.error = errno;
    return;
  }
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0 && wanted.step == nullptr) {
    wanted.step = "the process that switches trees";
    wanted.error = ECHILD;
    wanted.broken = true;
  }
}

} // namespace berth::machines
