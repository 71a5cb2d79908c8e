// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
// longjmp between stacks is the point here; the fortified one refuses it.
#undef _FORTIFY_SOURCE
#include "machines/namespace/templates/beside.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { stack_bytes = 64 * 1024 };

static jmp_buf resume;
static volatile int error;

/// A process for the length of one fork: it shares the caller's memory and keeps the caller
/// waiting, and its parent is the caller's. What it forks is orphaned at once, and goes to that
/// parent.
static int fork_and_leave(void* unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0)
    longjmp(resume, 1);
  if (pid < 0)
    error = -errno;
  _exit(0);
}

int berth_fork_beside(void) {
  char* stack = malloc(stack_bytes);
  if (stack == NULL)
    return -ENOMEM;
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  error = 0;
  if (_setjmp(resume) != 0) {
    // The stack of the one in between is this process's copy; it is left where it is.
    sigprocmask(SIG_SETMASK, &before, NULL);
    return 0;
  }
  if (clone(fork_and_leave, stack + stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_PARENT, NULL) < 0)
    error = -errno;
  sigprocmask(SIG_SETMASK, &before, NULL);
  free(stack);
  return error != 0 ? error : 1;
}
