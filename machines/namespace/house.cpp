// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/house.hpp"

#include "machines/namespace/mounts.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sched.h>
#include <unistd.h>
#include <vector>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

constexpr const char* passwd_text = "root:x:0:0:root:/root:/usr/sbin/nologin\n"
                                    "agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
                                    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
constexpr const char* group_text = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n";
constexpr const char* hosts_text = "127.0.0.1 localhost\n::1 localhost\n";
constexpr const char* nsswitch_text = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"
                                      "services: files\nprotocols: files\n";

/// What of the host's /etc programs in /usr need. None of it tells anything about this host but
/// which packages it has.
constexpr const char* etc_copied[] = {"alternatives",
                                      "ld.so.cache",
                                      "ld.so.conf",
                                      "ld.so.conf.d",
                                      "ssl/openssl.cnf",
                                      "ssl/certs/ca-certificates.crt",
                                      "ca-certificates.conf",
                                      "mime.types",
                                      "services",
                                      "protocols",
                                      "bash.bashrc",
                                      "profile",
                                      "inputrc",
                                      "python3",
                                      "python3.9",
                                      "python3.10",
                                      "python3.11",
                                      "python3.12",
                                      "python3.13",
                                      "debian_version",
                                      "locale.alias",
                                      "fonts",
                                      "matplotlibrc"};

/// What no machine changes, even where all of it belongs to one user: read-only mounts of their
/// own.
constexpr const char* fixed_places[] = {"/etc", "/opt"};

/// Largest copy of anything: a mistaken path must not fill memory.
constexpr std::uintmax_t copy_bytes_max = 256ULL << 20;

/// Copies a file, a link or a directory's content; what is not there is passed over.
bool copy_in(const fs::path& from, const fs::path& to, std::uintmax_t& budget) {
  std::error_code error;
  auto status = fs::symlink_status(from, error);
  if (status.type() == fs::file_type::not_found)
    return true;
  if (status.type() == fs::file_type::symlink)
    return fs::copy_symlink(from, to, error), true;
  if (status.type() == fs::file_type::regular) {
    std::uintmax_t size = fs::file_size(from, error);
    if (size > budget)
      return errno = EFBIG, false;
    budget -= size;
    fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
    return !error || error == std::errc::permission_denied;
  }
  if (status.type() != fs::file_type::directory)
    return true;
  fs::create_directories(to, error);
  for (const auto& entry : fs::directory_iterator{from, error})
    if (!copy_in(entry.path(), to / entry.path().filename(), budget))
      return false;
  return true;
}

/// What is there already is Berth's own and stays.
step_result copy_etc(const namespace_settings& settings, const fs::path& to,
                     std::uintmax_t& budget) {
  std::vector<std::string> names{std::begin(etc_copied), std::end(etc_copied)};
  std::error_code error;
  if (settings.own_etc) {
    names.clear();
    for (const auto& entry : fs::directory_iterator{"/etc", error})
      if (std::string name = entry.path().filename(); !fs::is_regular_file(to / name, error))
        names.push_back(std::move(name));
  }
  for (const auto& name : names)
    if (!copy_in(fs::path{"/etc"} / name, to / name, budget))
      return failed("copy of /etc/" + name);
  return {};
}

step_result furnish(const namespace_settings& settings, const fs::path& root) {
  std::error_code error;
  for (const char* name :
       {"etc", "etc/ssl/certs", "opt/berth", "usr", "dev", "proc", "tmp", "mnt", "root"})
    if (!fs::create_directories(root / name, error) && error)
      return errno = error.value(), failed("directories of the house");
  for (const char* name : {"bin", "sbin", "lib", "lib32", "lib64", "libx32"})
    if (fs::is_directory(fs::path{"/usr"} / name, error))
      fs::create_directory_symlink(fs::path{"usr"} / name, root / name, error);
  if (!write_file(root / "etc/passwd", passwd_text) || !write_file(root / "etc/group", group_text)
      || !write_file(root / "etc/hosts", hosts_text)
      || !write_file(root / "etc/nsswitch.conf", nsswitch_text)
      || !write_file(root / "etc/resolv.conf", ""))
    return failed("files of the house");
  std::uintmax_t budget = copy_bytes_max;
  if (auto result = copy_etc(settings, root / "etc", budget); !result.ok())
    return result;
  // A link would lead out of the house: the zone's own data is copied.
  fs::copy_file("/etc/localtime", root / "etc/localtime", error);
  if (!copy_in(settings.lib_dir, root / "opt/berth", budget))
    return failed("copy of " + settings.lib_dir);
  fs::permissions(root / "root", fs::perms::owner_all, error);
  if (::access((root / "opt/berth/berth-guest").c_str(), X_OK) != 0)
    return failed("berth-guest in " + settings.lib_dir);
  return {};
}

step_result fix_places(const std::string& root) {
  for (const char* place : fixed_places) {
    const std::string path = root + place;
    if (::mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0
        || !restrict_mount(path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false))
      return failed(std::string{"read-only "} + place);
  }
  return {};
}

step_result make_base(const std::string& root) {
  const std::string base = root + "/mnt";
  if (::mount("base", base.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=16k,nr_inodes=16,mode=755")
      != 0)
    return failed("tmpfs of the base");
  for (const char* path : {base_house, base_next, base_anchor, base_tree})
    if (::mkdir((base + path).c_str(), 0755) != 0)
      return failed("directories of the base");
  if (!restrict_mount(base, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false))
    return failed("read-only base");
  return {};
}

step_result show_toolchains(const namespace_settings& settings, const std::string& root) {
  std::error_code error;
  for (const auto& path : settings.visible) {
    fs::create_directories(root + path, error);
    if (::mount(path.c_str(), (root + path).c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
      return failed("bind of " + path);
  }
  for (const auto& path : settings.hidden) {
    if (!fs::is_directory(root + path, error))
      continue;
    if (::mount("tmpfs", (root + path).c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                "size=4k,nr_inodes=2,mode=755")
        != 0)
      return failed("cover over " + path);
  }
  for (const auto& path : settings.visible)
    if (!restrict_mount(root + path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                        true))
      return failed("read-only " + path);
  return {};
}

} // namespace

std::vector<std::string> house_mounts(const namespace_settings& settings) {
  std::vector<std::string> all{std::begin(fixed_places), std::end(fixed_places)};
  for (const auto& path : settings.visible)
    if (std::none_of(all.begin(), all.end(),
                     [&](const auto& other) { return path.starts_with(other + "/"); }))
      all.push_back(path);
  return all;
}

step_result enter_house(const namespace_settings& settings, const std::string& mount_point) {
  if (::unshare(CLONE_NEWNS) != 0)
    return failed("private mount namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return failed("private propagation");
  ::umask(022);
  if (::mount("tmpfs", mount_point.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=512m,mode=755")
      != 0)
    return failed("tmpfs of the house");
  if (auto result = furnish(settings, mount_point); !result.ok())
    return result;
  if (auto result = fix_places(mount_point); !result.ok())
    return result;
  if (auto result = make_base(mount_point); !result.ok())
    return result;
  if (auto result = show_toolchains(settings, mount_point); !result.ok())
    return result;
  if (auto result = make_devices(mount_point); !result.ok())
    return result;
  if (::mount("/proc", (mount_point + "/proc").c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return failed("bind of /proc");
  return settle_in(mount_point);
}

} // namespace berth::machines
