// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/types.h>

#include <string>
#include <vector>

namespace berth::guest {

/// A program to start: as its own session, as the reaper of its orphans, with fresh signals, and
/// with no descriptors but those named here.
struct launch_request {
  std::string program;
  std::vector<std::string> argv;
  /// The whole environment, name=value.
  std::vector<std::string> env;
  std::string cwd;
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  /// Becomes descriptor 3; -1: none.
  int job_fd = -1;
};

/// A program that runs, or why it does not.
struct launched {
  pid_t pid = -1;
  /// Which step failed and how, for people; empty when the program runs.
  std::string error;
};

/// Starts a program; returns when it was exec'ed or failed to be.
launched launch(const launch_request& request);

/// Both ends of a new pipe, ours non-blocking.
struct pipe_pair {
  owned_fd ours;
  owned_fd theirs;
};
/// A pipe that we read from (`reading`) or write to; both invalid when there is none to be had.
pipe_pair make_pipe(bool reading);

/// A sealed file in memory with this content, at its start; invalid when memory is short.
owned_fd memory_file(const char* name, const char* data, std::size_t size);

/// Makes a process the first choice when memory runs out. Failure is of no account.
void prefer_as_oom_victim(pid_t pid);

} // namespace berth::guest
