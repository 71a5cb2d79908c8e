// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// What a language's runtime wants done around a fork. Each may be NULL.
struct berth_warm_hooks {
  void (*before_fork)(void* context);
  /// In the parent (`child` 0, also when the fork failed) and in the new process (`child` 1), where
  /// 3 and 4 are the control socket and another one, both not the runtime's business.
  void (*after_fork)(void* context, int child);
  /// Runs in a new warm interpreter, confined, with /dev/null as its streams: does what a job will
  /// do, so that the pages a job writes to are its own before the job comes.
  void (*rehearse)(void* context);
  void* context;
  /// Set by a runtime that has descriptors of its own: in a new process its `after_fork` closes
  /// all from 5 on that it does not need. Otherwise all but the control socket are closed.
  int keeps_descriptors;
  /// What /proc shall show as the command line: NUL-terminated words, `command_line_size` bytes in
  /// all. The true one, and the first environment, name paths of the host and are blanked.
  const char* command_line;
  size_t command_line_size;
};

/// A job as it came: `size` bytes and a NUL behind them, from malloc.
struct berth_job {
  char* data;
  size_t size;
};

/// The life of a template, and of the warm interpreters forked from it: serves the socket at
/// BERTH_TEMPLATE_FD until its other end is closed. Never returns in a template, nor in a warm
/// interpreter that is not needed; returns once, in a process that is to become a job, whose
/// streams are in place and whose other descriptors are closed. The calling process must have
/// one thread that matters, and be trusted: it reads nothing that comes out of a machine.
void berth_serve(const struct berth_warm_hooks* hooks, struct berth_job* job);

/// Reads a whole descriptor that can be seeked (a job's memfd). Returns 0, or -errno.
int berth_read_job(int fd, struct berth_job* job);

#ifdef __cplusplus
}
#endif
