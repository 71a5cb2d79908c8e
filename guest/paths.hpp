// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/errors.hpp"
#include "messages/fd.hpp"

#include <sys/stat.h>

#include <string>
#include <string_view>

/// How the guest finds files. It looks with the rights of the programs, which may swap anything for
/// anything at any moment: what was opened is looked at, not what was named; the kernel's own links
/// under /proc, which would lead into the guest itself, are never followed; and nothing is held
/// from one request to the next, because the root may have been changed meanwhile.
namespace berth::guest {

/// Where a relative path begins when nothing else is said.
inline constexpr const char* default_directory = "/work";

/// Why something about a path was not done; `ec::none` when it was.
struct path_error {
  ec code = ec::none;
  std::string text;

  explicit operator bool() const { return code != ec::none; }
};

/// What an errno says of a path, in the words of our errors.
path_error error_of(const std::string& path, int number);

/// An absolute path of a request's text, or why it is none.
struct request_path {
  std::string path;
  path_error error;
};
request_path path_of(std::string_view text, const std::string& cwd = {});

/// The directory of a path, and its last part. Trailing slashes are no part of it; the last part of
/// the root is empty.
struct split_path {
  std::string directory;
  std::string name;
};
split_path split(const std::string& path);

/// openat2 that follows none of the kernel's own links. Negative with errno.
int open_at(int directory, const std::string& path, int flags, unsigned mode = 0);

/// Opens a directory for its entries or (O_PATH) for what is in it.
owned_fd open_directory(const std::string& path, int flags);

/// A regular file, or why there is none. Pipes, devices, sockets and what the kernel shows under
/// /proc are refused by their kind, without being opened.
struct opened_file {
  owned_fd file;
  struct stat info {};
  bool made = false;
  path_error error;
};
opened_file open_for_reading(const std::string& path);
/// With `create` it is made, with its directories, or emptied.
opened_file open_for_writing(const std::string& path, bool create);

/// Makes a directory and those above it. `made` tells whether the last one was not there before.
path_error make_directory_path(const std::string& path, bool& made);

/// Whether a descriptor leads into a file system that the kernel makes up as it is read.
bool is_made_up(int fd);

} // namespace berth::guest
