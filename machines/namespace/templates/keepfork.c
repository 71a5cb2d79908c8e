// SPDX-License-Identifier: Apache-2.0
// LD_PRELOADed into the Node template, and into a live Node that is started cold. V8 marks its
// memory MADV_DONTFORK, and a forked child would die at its first step. The template has one thread
// that matters, so its memory can be inherited.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((visibility("default"))) int madvise(void* address, size_t size, int advice) {
  if (advice == MADV_DONTFORK)
    return 0;
  return (int)syscall(SYS_madvise, address, size, advice);
}

static int survives_interrupts;

static void do_nothing(int number) {
  (void)number;
}

typedef int sigaction_function(int, const struct sigaction*, struct sigaction*);

/// Node's guard against endless scripts leaves SIGINT deadly behind for a moment, and in every
/// thread. In a live interpreter an interrupt that comes then is lost, and will be repeated.
__attribute__((visibility("default"))) int sigaction(int number, const struct sigaction* wanted,
                                                     struct sigaction* before) {
  static sigaction_function* next;
  if (next == NULL)
    *(void**)&next = dlsym(RTLD_NEXT, "sigaction");
  struct sigaction harmless;
  if (survives_interrupts && number == SIGINT && wanted != NULL
      && (wanted->sa_handler == SIG_DFL || (wanted->sa_flags & (int)SA_RESETHAND) != 0)) {
    harmless = *wanted;
    harmless.sa_handler = do_nothing;
    harmless.sa_flags = SA_RESTART;
    wanted = &harmless;
  }
  return next(number, wanted, before);
}

/// From here on no SIGINT ends this process by default.
__attribute__((visibility("default"))) void berth_survive_interrupts(void) {
  survives_interrupts = 1;
  struct sigaction initial = {.sa_handler = SIG_DFL};
  sigaction(SIGINT, &initial, NULL);
}

/// Nothing the template starts, and no job, is to have it too.
__attribute__((constructor)) static void forget_preload(void) {
  unsetenv("LD_PRELOAD");
}
