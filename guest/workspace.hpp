// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace berth::guest {

/// Where the guest keeps what a job needs on disk: one private directory for each job, below one
/// that is the guest's own.
class workspace {
public:
  /// `root` is a directory such as /tmp. Nothing is made before it is needed.
  explicit workspace(std::string root)
    : root_(std::move(root)) {}

  /// A new empty directory; empty text when there is none to be had (errno tells).
  std::string make_directory();
  /// The guest's own directory; made when it is missing, empty text when that fails.
  const std::string& base();

private:
  std::string root_;
  std::string base_;
  unsigned count_ = 0;
};

/// Writes a whole new file. False with errno when that fails.
bool write_file(const std::string& path, std::string_view content, unsigned mode);

/// Makes a directory and its parents. Returns an error text for people, empty when it is there.
std::string make_directories(const std::string& path);

/// Removes a private directory: the plain files in it and itself. What a program made deeper inside
/// stays, which is the program's own disk space.
void remove_directory(const std::string& path);

} // namespace berth::guest
