// SPDX-License-Identifier: Apache-2.0
#include "store/durable.hpp"

#include "messages/limits.hpp"
#include "store/checksum.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace berth {

namespace {

error write_all(int fd, std::span<const char> data, const std::string& path) {
  while (!data.empty()) {
    ssize_t wrote = ::write(fd, data.data(), data.size());
    if (wrote < 0 && errno == EINTR)
      continue;
    if (wrote < 0)
      return file_error("cannot write", path);
    data = data.subspan(static_cast<std::size_t>(wrote));
  }
  return {};
}

/// Reads until `to` is full or the file ends: bytes read, or negative with errno.
ssize_t read_up_to(const owned_fd& file, std::span<char> to, std::uint64_t at) {
  std::size_t have = 0;
  while (have < to.size()) {
    ssize_t got =
        ::pread(file.get(), to.data() + have, to.size() - have, static_cast<off_t>(at + have));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return got;
    if (got == 0)
      break;
    have += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(have);
}

} // namespace

error file_error(const std::string& what, const std::string& path) {
  bool full = errno == ENOSPC || errno == EDQUOT;
  std::string text = what + " " + path + ": " + std::strerror(errno);
  return fail(full ? ec::no_capacity : ec::store_failed, std::move(text));
}

error sync_directory(const std::string& directory) {
  owned_fd opened{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!opened || fsync(opened.get()) != 0)
    return file_error("cannot sync", directory);
  return {};
}

error replace_file(const std::string& directory, const std::string& name,
                   std::span<const char> data) {
  std::string path = directory + "/" + name;
  std::string part = path + part_suffix;
  owned_fd file{::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!file)
    return file_error("cannot make", part);
  error failed = write_all(file.get(), data, part);
  if (!failed && fdatasync(file.get()) != 0)
    failed = file_error("cannot sync", part);
  if (!failed && std::rename(part.c_str(), path.c_str()) != 0)
    failed = file_error("cannot rename", part);
  if (failed)
    unlink(part.c_str());
  return failed;
}

expected<std::vector<char>> read_whole(const std::string& path, std::size_t bytes_max) {
  owned_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file)
    return file_error("cannot open", path);
  std::vector<char> data(bytes_max + 1);
  ssize_t got = read_up_to(file, data, 0);
  if (got < 0)
    return file_error("cannot read", path);
  auto size = static_cast<std::size_t>(got);
  if (size > bytes_max)
    return fail(ec::too_large, path + ": is larger than " + std::to_string(bytes_max) + " bytes");
  data.resize(size);
  return data;
}

expected<std::uint64_t> checksum_of(const owned_fd& file, std::uint64_t size) {
  struct stat facts {};
  if (fstat(file.get(), &facts) != 0)
    return file_error("cannot stat", "an archive");
  if (static_cast<std::uint64_t>(facts.st_size) != size)
    return fail(ec::store_failed, "has " + std::to_string(facts.st_size) + " bytes instead of "
                                      + std::to_string(size));
  std::vector<char> block(std::min<std::uint64_t>(std::max<std::uint64_t>(size, 1), limits::mib));
  std::uint64_t sum = 0;
  for (std::uint64_t at = 0; at < size;) {
    std::size_t wanted = std::min<std::uint64_t>(block.size(), size - at);
    ssize_t got = read_up_to(file, std::span{block}.first(wanted), at);
    if (got < 0)
      return file_error("cannot read", "an archive");
    if (static_cast<std::size_t>(got) < wanted)
      return fail(ec::store_failed, "ends early");
    std::array<char, sizeof sum> before{};
    std::memcpy(before.data(), &sum, sizeof sum);
    sum = checksum({before, std::span<const char>{block.data(), wanted}});
    at += wanted;
  }
  return sum;
}

} // namespace berth
