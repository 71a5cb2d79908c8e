// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

/// Files that are on disk when a function says so.
namespace berth {

/// An open file that closes itself.
class open_file {
public:
  open_file() = default;
  explicit open_file(int fd)
    : fd_(fd) {}
  open_file(open_file&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}
  open_file& operator=(open_file&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (fd_ >= 0)
      ::close(fd_);
  }

  int fd() const { return fd_; }
  /// Gives the descriptor away.
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

private:
  int fd_ = -1;
};

/// What went wrong with a file, from errno: no_capacity when the disk is full, else store_failed.
error file_error(const std::string& what, const std::string& path);

/// Puts the names of a directory on disk.
error sync_directory(const std::string& directory);

/// Writes a file whole: under a temporary name first, synced, then renamed over `name`. When it
/// fails the old file is as it was. The caller syncs the directory.
error replace_file(const std::string& directory, const std::string& name,
                   std::span<const char> data);

/// A whole file, or too_large beyond `bytes_max`.
expected<std::vector<char>> read_whole(const std::string& path, std::size_t bytes_max);

/// The checksum of an open file's bytes from its start; fails when its size is not `size`.
expected<std::uint64_t> checksum_of(const open_file& file, std::uint64_t size);

/// The ending of files that are being written; what bears it after a crash is swept.
inline constexpr const char* part_suffix = ".part";

} // namespace berth
