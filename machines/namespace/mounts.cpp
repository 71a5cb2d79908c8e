// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/mounts.hpp"

#include "messages/fd.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <unistd.h>
#include <utility>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

constexpr unsigned kvm_minor = 232;

struct node {
  const char* name;
  unsigned major;
  unsigned minor;
};
constexpr node nodes[] = {{"null", 1, 3},        {"zero", 1, 5},    {"full", 1, 7},
                          {"random", 1, 8},      {"urandom", 1, 9}, {"tty", 5, 0},
                          {"kvm", 10, kvm_minor}};

} // namespace

std::string step_result::text() const {
  return ok() ? "ok" : step + ": " + std::strerror(error);
}

step_result failed(std::string step) {
  return {std::move(step), errno != 0 ? errno : EIO};
}

bool write_file(const fs::path& path, std::string_view text) {
  std::ofstream out{path};
  out << text;
  out.close();
  return out.good();
}

bool restrict_mount(const std::string& path, std::uint64_t attributes, bool below) {
  mount_attr wanted{};
  wanted.attr_set = attributes;
  return ::mount_setattr(AT_FDCWD, path.c_str(), below ? AT_RECURSIVE : 0, &wanted, sizeof wanted)
         == 0;
}

/// Nodes are made where that is allowed; elsewhere the host's own are bound, one mount each.
step_result make_devices(const std::string& root, bool with_kvm) {
  const std::string dev = root + "/dev";
  if (::mount("tmpfs", dev.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "size=16k,mode=755") != 0)
    return failed("/dev");
  std::error_code error;
  for (const auto& one : nodes) {
    if (one.minor == kvm_minor && !with_kvm)
      continue;
    const std::string path = dev + "/" + one.name;
    if (::mknod(path.c_str(), S_IFCHR | 0666, ::makedev(one.major, one.minor)) == 0) {
      // A container may allow mknod and still refuse to open what was made. A terminal cannot be
      // opened here in any case.
      bool usable = one.major != 1 || owned_fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
      if (usable && ::chmod(path.c_str(), 0666) == 0)
        continue;
      ::unlink(path.c_str());
    }
    const std::string host = std::string{"/dev/"} + one.name;
    if (!write_file(path, "")
        || ::mount(host.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return failed("bind of " + host);
  }
  for (const auto& [name, to] : {std::pair{"fd", "/proc/self/fd"},
                                 {"stdin", "/proc/self/fd/0"},
                                 {"stdout", "/proc/self/fd/1"},
                                 {"stderr", "/proc/self/fd/2"}})
    fs::create_symlink(to, fs::path{dev} / name, error);
  fs::create_directory(fs::path{dev} / "shm", error);
  if (!restrict_mount(dev, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false))
    return failed("read-only /dev");
  return {};
}

step_result enter_outer_user_namespace() {
  uid_t uid = ::geteuid();
  gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER) != 0)
    return failed("outer user namespace");
  // A process that changed its uid is not dumpable, and its /proc/self is then root's.
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  auto write = [](const char* path, const std::string& text) {
    owned_fd file{::open(path, O_WRONLY | O_CLOEXEC)};
    return file
           && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  };
  if (!write("/proc/self/setgroups", "deny")
      || !write("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1\n")
      || !write("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1\n"))
    return failed("id map of the outer user namespace");
  return {};
}

step_result settle_in(const std::string& mount_point) {
  if (::chdir(mount_point.c_str()) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0)
    return failed("pivot_root into the house");
  if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return failed("leaving the host's root");
  if (!restrict_mount("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false))
    return failed("read-only house");
  return {};
}

} // namespace berth::machines
