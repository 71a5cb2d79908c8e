// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/launcher_house.hpp"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <sched.h>
#include <unistd.h>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

/// What QEMU reads of the host's: libraries and its own modules, firmware.
constexpr const char* shown[] = {"/usr/lib", "/usr/lib64", "/usr/share/qemu", "/usr/share/seabios"};

step_result show(const std::string& path, const std::string& root) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    fs::create_directories(root + path, error);
  } else if (fs::exists(path, error)) {
    fs::create_directories(fs::path{root + path}.parent_path(), error);
    if (!write_file(root + path, ""))
      return failed("place for " + path);
  } else {
    return {};
  }
  if (::mount(path.c_str(), (root + path).c_str(), nullptr, MS_BIND, nullptr) != 0)
    return failed("bind of " + path);
  if (!restrict_mount(root + path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false))
    return failed("read-only " + path);
  return {};
}

step_result furnish(const std::string& binary, const std::string& root) {
  std::error_code error;
  for (const char* name : {"dev", "etc", "proc", "usr"})
    if (!fs::create_directories(fs::path{root} / name, error) && error)
      return errno = error.value(), failed("directories of the launcher's house");
  for (const char* name : {"bin", "lib", "lib64"})
    fs::create_directory_symlink(fs::path{"usr"} / name, fs::path{root} / name, error);
  fs::copy_file("/etc/ld.so.cache", fs::path{root} / "etc/ld.so.cache", error);
  for (const char* path : shown)
    if (auto result = show(path, root); !result.ok())
      return result;
  return show(binary, root);
}

} // namespace

step_result enter_launcher_house(const std::string& binary, bool with_kvm,
                                 const std::string& mount_point) {
  if (::unshare(CLONE_NEWNS) != 0)
    return failed("private mount namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return failed("private propagation");
  ::umask(022);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=8m,mode=755") != 0)
    return failed("tmpfs of the launcher's house");
  if (auto result = furnish(binary, mount_point); !result.ok())
    return result;
  if (auto result = make_devices(mount_point, with_kvm); !result.ok())
    return result;
  if (::mount("/proc", (mount_point + "/proc").c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return failed("bind of /proc");
  return settle_in(mount_point);
}

} // namespace berth::machines
