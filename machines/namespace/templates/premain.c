// SPDX-License-Identifier: Apache-2.0
// LD_PRELOADed into any dynamically linked program (rustc): makes a template of it that is loaded,
// relocated and constructed, and stands before its main(). A job is NUL-separated: the working
// directory, then the arguments, the program's name first.
#define _GNU_SOURCE
#include "machines/namespace/templates/warm.h"

#include <sys/mman.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int main_function(int, char**, char**);
typedef int start_function(main_function*, int, char**, void (*)(void), void (*)(void),
                           void (*)(void), void*);

static main_function* program;

/// Puts arguments into a file that `@file` names, one a line, and returns the name.
static char* argument_file(char* const* arguments) {
  int fd = memfd_create("arguments", 0);
  char* name = NULL;
  if (fd < 0 || asprintf(&name, "@/proc/self/fd/%d", fd) < 0)
    return NULL;
  FILE* file = fdopen(dup(fd), "w");
  if (file == NULL)
    return NULL;
  for (; *arguments != NULL; ++arguments)
    fprintf(file, "%s\n", *arguments);
  return fclose(file) == 0 ? name : NULL;
}

/// Some run times (Rust's) took argc and argv when they were constructed, before main(). They see
/// as many arguments as the template had: the name, and one, behind which all others are.
static int replace_captured(int argc, char** argv, int job_argc, char** job_argv) {
  if (argc != 2)
    return 0;
  argv[0] = job_argv[0];
  argv[1] = job_argc == 2 ? job_argv[1] : argument_file(job_argv + 1);
  return argv[1] != NULL ? 0 : -1;
}

/// No job and nothing it starts is to have this library too. Not by unsetenv: a program may have
/// one of its own (bash does).
static void forget_preload(void) {
  char** kept = environ;
  for (char** at = environ; *at != NULL; ++at)
    if (strncmp(*at, "LD_PRELOAD=", 11) != 0)
      *kept++ = *at;
  *kept = NULL;
}

static int serve(int argc, char** argv, char** envp) {
  (void)envp;
  forget_preload();
  char* name = strdup(argv[0]);
  struct berth_warm_hooks hooks = {.command_line = name, .command_line_size = strlen(name) + 1};
  struct berth_job job = {NULL, 0};
  berth_serve(&hooks, &job);
  size_t words = 0;
  for (size_t i = 0; i < job.size; i += strlen(job.data + i) + 1)
    ++words;
  if (words < 2)
    return 126;
  char** job_argv = calloc(words, sizeof(*job_argv));
  if (job_argv == NULL)
    return 126;
  char* at = job.data + strlen(job.data) + 1;
  for (size_t i = 0; i + 1 < words; ++i, at += strlen(at) + 1)
    job_argv[i] = at;
  if (chdir(job.data) != 0) {
    fprintf(stderr, "cannot enter %s: %s\n", job.data, strerror(errno));
    return 126;
  }
  if (replace_captured(argc, argv, (int)words - 1, job_argv) != 0)
    return 126;
  return program((int)words - 1, job_argv, environ);
}

__attribute__((visibility("default"))) int
__libc_start_main(main_function* main, int argc, char** argv, void (*init)(void),
                  void (*fini)(void), void (*rtld_fini)(void), void* stack_end) {
  start_function* start = NULL;
  *(void**)&start = dlsym(RTLD_NEXT, "__libc_start_main");
  program = main;
  return start(serve, argc, argv, init, fini, rtld_fini, stack_end);
}
