// SPDX-License-Identifier: Apache-2.0
// LD_PRELOADed into the Node template: V8 marks its memory MADV_DONTFORK, and a forked child would
// die at its first step. The template has one thread that matters, so its memory can be inherited.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>

#include <stdlib.h>
#include <unistd.h>

__attribute__((visibility("default"))) int madvise(void* address, size_t size, int advice) {
  if (advice == MADV_DONTFORK)
    return 0;
  return (int)syscall(SYS_madvise, address, size, advice);
}

/// Nothing the template starts, and no job, is to have it too.
__attribute__((constructor)) static void forget_preload(void) {
  unsetenv("LD_PRELOAD");
}
