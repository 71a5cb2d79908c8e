// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/kept_states.hpp"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>

namespace berth::machines {

namespace {

/// Firecracker's state of devices is some tens of kilobytes.
constexpr std::uint64_t devices_bytes_max = 64ULL << 20;
constexpr std::size_t block_bytes = 64 * 1024;

std::string failed(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

} // namespace

std::string kept_states::open(const std::string& path) {
  path_ = path;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return failed(path);
  // Those below have names that are no secret, and rights of their own.
  if (::mount("berth-states", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=711")
      != 0)
    return failed("tmpfs of states");
  return {};
}

void kept_states::close() {
  if (!path_.empty())
    ::umount2(path_.c_str(), MNT_DETACH);
}

std::string kept_states::place(std::uint64_t state) const {
  return path_ + "/s" + std::to_string(state);
}

std::string kept_states::inbox(std::uint64_t number) const {
  return path_ + "/from-" + std::to_string(number);
}

std::string kept_states::make_inbox(std::uint64_t number, uid_t owner) const {
  const std::string path = inbox(number);
  if (::mkdir(path.c_str(), 0700) != 0 || ::chown(path.c_str(), owner, owner) != 0)
    return failed("directory for saved states");
  return {};
}

void kept_states::remove_inbox(std::uint64_t number) const {
  const std::string path = inbox(number);
  for (const char* name : {"/memory", "/devices"})
    ::unlink((path + name).c_str());
  ::rmdir(path.c_str());
}

/// By now it is where the writer cannot exchange it for another.
std::string kept_states::take_file(const std::string& path, uid_t owner, std::uint64_t least,
                                   std::uint64_t most) const {
  owned_fd file{::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0)
    return failed("a saved state");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (!S_ISREG(info.st_mode) || info.st_uid != owner || info.st_nlink != 1 || size < least
      || size > most)
    return "what the machine wrote is no state of its own";
  if (::fchown(file.get(), ::geteuid(), ::getegid()) != 0 || ::fchmod(file.get(), 0444) != 0)
    return failed("a saved state");
  return {};
}

std::uint64_t kept_states::take(std::uint64_t from, uid_t owner, std::uint64_t memory_bytes,
                                std::string& why) {
  const std::uint64_t state = make(why);
  if (state == 0)
    return 0;
  for (const char* name : {"/memory", "/devices"})
    if (::rename((inbox(from) + name).c_str(), (place(state) + name).c_str()) != 0)
      why = failed("the machine wrote no state");
  if (why.empty())
    why = take_file(memory(state), owner, memory_bytes, memory_bytes);
  if (why.empty())
    why = take_file(devices(state), owner, 1, devices_bytes_max);
  if (why.empty())
    return state;
  drop(state);
  return 0;
}

std::uint64_t kept_states::make(std::string& why) {
  const std::uint64_t state = ++last_;
  // Machines see single files of it, never the directory.
  if (::mkdir(place(state).c_str(), 0700) == 0)
    return state;
  why = failed("directory of a state");
  return 0;
}

void kept_states::drop(std::uint64_t state) const {
  ::unlink(memory(state).c_str());
  ::unlink(devices(state).c_str());
  ::rmdir(place(state).c_str());
}

bool kept_states::has(std::uint64_t state) const {
  return state != 0 && ::access(devices(state).c_str(), F_OK) == 0;
}

int dig_holes(int file) {
  struct stat info {};
  if (::fstat(file, &info) != 0)
    return errno;
  auto block = std::make_unique<char[]>(block_bytes);
  auto nothing = std::make_unique<char[]>(block_bytes);
  for (off_t at = 0; at < info.st_size;) {
    off_t data = ::lseek(file, at, SEEK_DATA);
    if (data < 0)
      return errno == ENXIO ? 0 : errno;
    at = data - data % static_cast<off_t>(block_bytes);
    ssize_t count = ::pread(file, block.get(), block_bytes, at);
    if (count <= 0)
      return count == 0 ? 0 : errno;
    if (std::memcmp(block.get(), nothing.get(), static_cast<std::size_t>(count)) == 0
        && ::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, count) != 0)
      return errno;
    at += static_cast<off_t>(block_bytes);
  }
  return 0;
}

} // namespace berth::machines
