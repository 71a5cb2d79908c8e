// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/common.hpp"

#include <sys/types.h>

#include <string>
#include <vector>

namespace berth::bench {

/// How a command ended and what it wrote.
struct command_result {
  /// Exit status, or 128 plus the signal.
  int status = -1;
  std::string out;
  std::string err;
  /// From before the start until its end was seen.
  double wall_ms = 0;
};

/// Runs a command to its end and times it. `argv[0]` is a path; `env` is the whole environment.
/// Kills it after `limit` or on an interrupt, then throws.
command_result run_command(const std::vector<std::string>& argv,
                           const std::vector<std::string>& env = {},
                           const std::string& directory = {},
                           milliseconds limit = milliseconds{60'000});

/// A directory that goes with its owner.
class temporary_directory {
public:
  temporary_directory();
  ~temporary_directory();
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;

  const std::string& path() const { return path_; }

private:
  std::string path_;
};

/// All of a small file; empty when it cannot be read.
std::string read_text(const std::string& path);
/// Writes a file whole, or throws.
void write_text(const std::string& path, const std::string& text);

} // namespace berth::bench
