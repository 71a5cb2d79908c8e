// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layer_restore.hpp"

#include "machines/namespace/archive.hpp"
#include "machines/namespace/directory.hpp"
#include "machines/namespace/layer_walk.hpp"
#include "messages/fd.hpp"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <vector>

namespace berth::machines {

namespace {

#if defined(__x86_64__)
constexpr std::uint32_t native_arch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t native_arch = AUDIT_ARCH_AARCH64;
#else
#  error "name this architecture for seccomp"
#endif

/// What restoring takes: files, memory for names, and a lock that the first exception takes.
constexpr long restorer_calls[] = {
    SYS_read,       SYS_pread64,   SYS_write,      SYS_pwrite64,     SYS_openat,
    SYS_openat2,    SYS_close,     SYS_fstat,      SYS_newfstatat,   SYS_mkdirat,
    SYS_mknodat,    SYS_symlinkat, SYS_linkat,     SYS_unlinkat,     SYS_renameat2,
    SYS_getdents64, SYS_lseek,     SYS_fchown,     SYS_fchownat,     SYS_fchmod,
    SYS_utimensat,  SYS_fsetxattr, SYS_ftruncate,  SYS_fcntl,        SYS_mmap,
    SYS_munmap,     SYS_mremap,    SYS_madvise,    SYS_brk,          SYS_rt_sigreturn,
    SYS_exit_group, SYS_fgetxattr, SYS_flistxattr, SYS_fremovexattr, SYS_futex};

#if defined(__SANITIZE_ADDRESS__) && defined(__x86_64__)
/// What the sanitizers ask: where the stack is, and whether memory can be read.
constexpr long sanitizer_calls[] = {SYS_sigaltstack, SYS_pipe,   SYS_pipe2,  SYS_getrlimit,
                                    SYS_prlimit64,   SYS_getpid, SYS_gettid, SYS_readlink};
#else
constexpr std::span<const long> sanitizer_calls;
#endif

constexpr unsigned kept_capabilities[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
                                          CAP_FOWNER, CAP_FSETID,       CAP_SYS_ADMIN};

/// Directories, files and links of one layer.
class restorer : public archive::sink {
public:
  restorer(const restored_disk& disk, int tree, std::span<const int> below)
    : disk_(disk)
    , below_(below, disk.ordinary_user) {
    open_.emplace_back(::openat(tree, ".", directory_flags));
  }

  int enter(std::string_view name, const archive::attributes& what, bool opaque) override {
    if (name.empty()) {
      below_.enter("", false);
      return open_.back() ? apply_to_dir(open_.back().get(), what) : EBADF;
    }
    const std::string text{name};
    struct stat old {};
    bool there = ::fstatat(here(), text.c_str(), &old, AT_SYMLINK_NOFOLLOW) == 0;
    // What was another thing, or is replaced whole, hides what older layers have.
    if (there && (opaque || !S_ISDIR(old.st_mode))) {
      if (int error = remove(text))
        return error;
      there = false;
      opaque = true;
    }
    if (!there && ::mkdirat(here(), text.c_str(), 0700) != 0)
      return errno;
    owned_fd dir{::openat(here(), text.c_str(), directory_flags)};
    if (!dir)
      return errno;
    if (opaque && ::fsetxattr(dir.get(), opaque_attribute(disk_.ordinary_user), "y", 1, 0) != 0)
      return errno;
    if (int error = apply_to_dir(dir.get(), what))
      return error;
    file_.reset(); // attributes that follow are the directory's
    below_.enter(text, is_opaque(dir.get(), disk_.ordinary_user));
    open_.push_back(std::move(dir));
    return 0;
  }

  int leave(const archive::attributes& what) override {
    int error = set_times(here(), what);
    if (open_.size() > 1)
      open_.pop_back();
    below_.leave();
    return error;
  }

  int file(std::string_view name, const archive::attributes&, std::uint64_t size) override {
    const std::string text{name};
    if (int error = remove(text))
      return error;
    file_.reset(
        ::openat(here(), text.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    return file_ && ::ftruncate(file_.get(), static_cast<off_t>(size)) == 0 ? 0 : errno;
  }

  int data(std::uint64_t offset, std::span<const char> bytes) override {
    while (!bytes.empty()) {
      ssize_t count = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR)
        continue;
      if (count <= 0)
        return count < 0 ? errno : EIO;
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::size_t>(count);
    }
    return 0;
  }

  int file_end(const archive::attributes& what) override {
    int error = apply(file_.get(), what);
    if (error == 0)
      error = set_times(file_.get(), what);
    return error;
  }

  int hard_link(std::string_view name, std::string_view target) override {
    const std::string text{name};
    const std::string path{target};
    open_how how{};
    how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    owned_fd first{static_cast<int>(
        ::syscall(SYS_openat2, open_.front().get(), path.c_str(), &how, sizeof how))};
    struct stat info {};
    if (!first || ::fstat(first.get(), &info) != 0)
      return errno;
    if (!S_ISREG(info.st_mode))
      return EINVAL;
    if (int error = remove(text))
      return error;
    return ::linkat(first.get(), "", here(), text.c_str(), AT_EMPTY_PATH) == 0 ? 0 : errno;
  }

  int symbolic_link(std::string_view name, const archive::attributes& what,
                    std::string_view target) override {
    const std::string text{name};
    if (int error = remove(text))
      return error;
    if (::symlinkat(std::string{target}.c_str(), here(), text.c_str()) != 0)
      return errno;
    return finish(text, what);
  }

  int pipe(std::string_view name, const archive::attributes& what) override {
    const std::string text{name};
    if (int error = remove(text))
      return error;
    if (::mknodat(here(), text.c_str(), S_IFIFO | 0600, 0) != 0)
      return errno;
    // Changing its owner takes the set-id bits away, which a program may have set; nobody is waited
    // for when it is opened for both.
    owned_fd made{::openat(here(), text.c_str(), O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)};
    if (!made)
      return errno;
    int error = apply(made.get(), what);
    return error != 0 ? error : set_times(made.get(), what);
  }

  int attribute(std::string_view name, std::span<const char> value) override {
    int fd = file_ ? file_.get() : here();
    return ::fsetxattr(fd, std::string{name}.c_str(), value.data(), value.size(), 0) == 0 ? 0
                                                                                          : errno;
  }

  int whiteout(std::string_view name) override {
    const std::string text{name};
    if (int error = remove(text))
      return error;
    // What it hides may have been in this very layer, by an archive before; an overlay would show a
    // mark that hides nothing.
    bool hides = false;
    if (int error = below_.look(hides))
      return error;
    return !hides || ::mknodat(here(), text.c_str(), S_IFCHR, ::makedev(0, 0)) == 0 ? 0 : errno;
  }

private:
  int here() const { return open_.back().get(); }
  std::uint32_t id(const archive::attributes& what) const {
    return what.whose == archive::owner::agent ? disk_.uid : 0;
  }

  /// What an older archive of the same layer had there.
  int remove(const std::string& name) {
    if (::unlinkat(here(), name.c_str(), 0) == 0 || errno == ENOENT)
      return 0;
    return errno == EISDIR ? remove_tree(here(), name.c_str(), disk_.root) : errno;
  }

  int apply(int fd, const archive::attributes& what) {
    // Root's set-id bits mean nothing in a machine, and are not brought in.
    mode_t mode = what.whose == archive::owner::root ? what.mode & 01777 : what.mode;
    return ::fchown(fd, id(what), id(what)) == 0 && ::fchmod(fd, mode) == 0 ? 0 : errno;
  }

  /// An older archive of the same layer may have given it attributes.
  int apply_to_dir(int dir, const archive::attributes& what) {
    std::vector<std::string> names;
    if (int error = list_attributes(dir, names))
      return error;
    for (const auto& name : names)
      if (is_program_attribute(name) && ::fremovexattr(dir, name.c_str()) != 0)
        return errno;
    return apply(dir, what);
  }

  static int set_times(int fd, const archive::attributes& what) {
    timespec times[2] = {{what.mtime_s, what.mtime_ns}, {what.mtime_s, what.mtime_ns}};
    return ::futimens(fd, times) == 0 ? 0 : errno;
  }

  int finish(const std::string& name, const archive::attributes& what) {
    timespec times[2] = {{what.mtime_s, what.mtime_ns}, {what.mtime_s, what.mtime_ns}};
    return ::fchownat(here(), name.c_str(), id(what), id(what), AT_SYMLINK_NOFOLLOW) == 0
                   && ::utimensat(here(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0
               ? 0
               : errno;
  }

  const restored_disk& disk_;
  directories_below below_;
  /// The last file, until a directory begins.
  owned_fd file_;
  std::vector<owned_fd> open_;
};

constexpr const char* no_directory = "directories of a layer: ";

owned_fd open_tree_of(int disk, std::uint64_t number) {
  return owned_fd{::openat(disk, (std::to_string(number) + "/tree").c_str(), directory_flags)};
}

std::string restore_one(const restored_disk& disk, const restored_layer& layer,
                        std::span<const int> below) {
  const std::string dir = std::to_string(layer.number);
  if ((::mkdirat(disk.root, dir.c_str(), 0755) != 0 && errno != EEXIST)
      || (::mkdirat(disk.root, (dir + "/tree").c_str(), 0755) != 0 && errno != EEXIST))
    return std::string{no_directory} + std::strerror(errno);
  owned_fd tree = open_tree_of(disk.root, layer.number);
  if (!tree)
    return std::string{no_directory} + std::strerror(errno);
  restorer to{disk, tree.get(), below};
  off_t at = 0;
  auto from = [&](std::span<char> buffer) {
    ssize_t got = 0;
    do
      got = ::pread(layer.archive, buffer.data(), buffer.size(), at);
    while (got < 0 && errno == EINTR);
    at += got > 0 ? got : 0;
    return got;
  };
  return archive::read(from, to);
}

} // namespace

int confine_restorer() {
  ::umask(0);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return errno;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  for (unsigned capability : kept_capabilities) {
    sets[capability / 32].permitted |= 1U << capability % 32;
    sets[capability / 32].effective |= 1U << capability % 32;
  }
  __user_cap_data_struct present[2] = {};
  if (::syscall(SYS_capget, &header, present) != 0)
    return errno;
  for (int i = 0; i < 2; ++i) {
    sets[i].permitted &= present[i].permitted;
    sets[i].effective &= present[i].permitted;
  }
  if (::syscall(SYS_capset, &header, sets) != 0)
    return errno;
  std::vector<sock_filter> program{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
                                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, native_arch, 1, 0),
                                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                                   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  auto allow = [&](std::span<const long> calls) {
    for (long call : calls) {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<__u32>(call), 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
  };
  allow(restorer_calls);
  allow(sanitizer_calls);
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  sock_fprog all{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all, 0, 0) == 0 ? 0 : errno;
}

std::string restore_layers(const restored_disk& disk, std::span<const restored_layer> layers) {
  std::vector<owned_fd> trees; // the oldest first
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && layers[i].number != layers[i - 1].number) {
      trees.push_back(open_tree_of(disk.root, layers[i - 1].number));
      if (!trees.back())
        return std::string{no_directory} + std::strerror(errno);
    }
    std::vector<int> below;
    for (auto one = trees.rbegin(); one != trees.rend(); ++one)
      below.push_back(one->get());
    if (disk.house >= 0)
      below.push_back(disk.house);
    if (auto why = restore_one(disk, layers[i], below); !why.empty())
      return why;
  }
  return {};
}

} // namespace berth::machines
