// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/languages/language.hpp"
#include "messages/fd.hpp"

#include <sys/types.h>

namespace berth::guest {

/// A bash that is up and waits for its script, with the pipes that will be the job's.
struct waiting_bash {
  pid_t pid = -1;
  std::string directory;
  owned_fd stdin_pipe;
  owned_fd stdout_pipe;
  owned_fd stderr_pipe;
};

/// Starts a bash that waits; pid -1 when that fails.
waiting_bash start_waiting_bash(workspace& files);

/// Whether a bash that is up already can run this job exactly as one started for it would.
bool fits_waiting_bash(const start_job& start);

/// Gives the waiting bash its script and all else it must know, but for standard input.
bool hand_over(const waiting_bash& bash, const start_job& start);

} // namespace berth::guest
