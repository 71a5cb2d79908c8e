// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <string_view>

namespace berth::machines {

/// Opens a directory, and no link to one.
inline constexpr int directory_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct close_dir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
/// A directory that is being read.
using open_dir = std::unique_ptr<DIR, close_dir>;

/// Begins to read what openat gave. None, with errno, when it is none or cannot be read.
inline open_dir read_directory(owned_fd fd) {
  open_dir dir{fd ? ::fdopendir(fd.get()) : nullptr};
  if (dir)
    (void)fd.release();
  return dir;
}

/// Whether a name that was read is the directory itself, or the one above.
inline bool is_dots(std::string_view name) {
  return name == "." || name == "..";
}

} // namespace berth::machines
