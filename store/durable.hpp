// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"
#include "messages/fd.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// Files that are on disk when a function says so.
namespace berth {

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
expected<std::uint64_t> checksum_of(const owned_fd& file, std::uint64_t size);

/// The ending of files that are being written; what bears it after a crash is swept.
inline constexpr const char* part_suffix = ".part";

} // namespace berth
