// SPDX-License-Identifier: Apache-2.0
// The Node addon `berth_warm`: what a warm Node interpreter needs from below.
#define _GNU_SOURCE
#include "machines/namespace/templates/node_kernel.h"
#include "machines/namespace/templates/warm.h"

#include <sys/stat.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <node_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/// In node_exit.cpp and node_alone.cpp.
void berth_leave_later(int code);
void berth_work_alone(void);

/// First descriptor that is not the streams' or warm.c's, and the last that is looked at.
enum { own_fd_min = 5, own_fd_max = 255 };

static struct {
  napi_env env;
  napi_value rehearse;
  uv_loop_t* loop;
  /// What was open before the fork; inode 0 is nothing.
  struct stat before[own_fd_max + 1];
} addon;

static void before_fork(void* context) {
  (void)context;
  for (int fd = own_fd_min; fd <= own_fd_max; ++fd)
    if (fstat(fd, &addon.before[fd]) != 0)
      addon.before[fd].st_ino = 0;
}

/// Whether the main loop holds this descriptor; uv_loop_fork replaces those itself.
static int held_by_loop(int fd) {
  const uv_loop_t* loop = addon.loop;
  return fd == loop->backend_fd || fd == loop->async_io_watcher.fd || fd == loop->async_wfd
         || fd == loop->signal_pipefd[0] || fd == loop->signal_pipefd[1] || fd == loop->emfile_fd
         || fd == loop->inotify_fd;
}

/// Takes away what belonged to the parent's other threads and loops, which do not exist here: each
/// is shared with the parent, and nothing of a trusted process may be within a job's reach. Node
/// still writes to some when it ends, and aborts if it cannot, so /dev/null takes their places. A
/// pipe that was not there before is libuv's own signal lock, made anew by its fork handler.
static void replace_foreign(void) {
  int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = own_fd_min; fd <= own_fd_max; ++fd) {
    const struct stat* before = &addon.before[fd];
    struct stat now;
    if (fd == nowhere || held_by_loop(fd) || fstat(fd, &now) != 0)
      continue;
    if (!S_ISFIFO(now.st_mode) || (now.st_ino == before->st_ino && now.st_dev == before->st_dev))
      dup3(nowhere, fd, O_CLOEXEC);
  }
  if (nowhere >= 0)
    close(nowhere);
  close_range(own_fd_max + 1, ~0u, 0);
}

/// OpenSSL sees a fork by a new process id, but ids repeat from one pid namespace to the next.
void berth_node_reseed(void) {
  int (*poll_entropy)(void) = NULL;
  *(void**)&poll_entropy = dlsym(RTLD_DEFAULT, "RAND_poll");
  if (poll_entropy != NULL)
    poll_entropy();
}

static void after_fork(void* context, int child) {
  (void)context;
  if (!child)
    return;
  replace_foreign();
  if (uv_loop_fork(addon.loop) != 0)
    _exit(1);
  berth_node_reseed();
}

static void rehearse(void* context) {
  (void)context;
  napi_value global;
  napi_get_global(addon.env, &global);
  if (napi_call_function(addon.env, global, addon.rehearse, 0, NULL, NULL)
      == napi_pending_exception) {
    napi_value error;
    napi_get_and_clear_last_exception(addon.env, &error);
  }
}

static napi_value serve(napi_env env, napi_callback_info info) {
  static const char command_line[] = "node\0main.js";
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &addon.rehearse, NULL, NULL);
  addon.env = env;
  if (napi_get_uv_event_loop(env, &addon.loop) != napi_ok)
    _exit(1);
  struct berth_warm_hooks hooks = {.before_fork = before_fork,
                                   .after_fork = after_fork,
                                   .rehearse = rehearse,
                                   .keeps_descriptors = 1,
                                   .command_line = command_line,
                                   .command_line_size = sizeof(command_line)};
  berth_work_alone();
  struct berth_job job = {NULL, 0};
  berth_serve(&hooks, &job);
  berth_node_kernel_can_fork();
  // The machine may have been copied while we waited.
  berth_node_reseed();
  // The loop's clock stood still while we waited; timers count from it.
  uv_update_time(addon.loop);
  napi_value text;
  napi_status status = napi_create_string_utf8(env, job.data, job.size, &text);
  free(job.data);
  if (status != napi_ok)
    _exit(126);
  return text;
}

/// leave(code): ends the process at once. Node's own way out joins threads that a forked process
/// does not have.
static napi_value leave(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  int32_t code = 0;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_int32(env, argument, &code);
  fflush(NULL);
  _exit(code);
}

/// leaveLater(code): as leave, once Node has displayed an uncaught exception.
static napi_value leave_later(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  int32_t code = 0;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_get_value_int32(env, argument, &code);
  berth_leave_later(code);
  return NULL;
}

/// getpid(): Node reads it once, before any fork.
static napi_value process_id(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value result;
  napi_create_int32(env, getpid(), &result);
  return result;
}

/// pipe(): both ends of a new pipe, [reading, writing]; -1 each if there is none.
static napi_value make_pipe(napi_env env, napi_callback_info info) {
  (void)info;
  int ends[2] = {-1, -1};
  napi_value result, part;
  napi_create_array_with_length(env, 2, &result);
  if (pipe2(ends, O_CLOEXEC) != 0)
    ends[0] = ends[1] = -1;
  for (uint32_t i = 0; i < 2; ++i) {
    napi_create_int32(env, ends[i], &part);
    napi_set_element(env, result, i, part);
  }
  return result;
}

NAPI_MODULE_INIT() {
  const struct {
    const char* name;
    napi_callback run;
  } functions[] = {{"serve", serve},
                   {"leave", leave},
                   {"leaveLater", leave_later},
                   {"getpid", process_id},
                   {"pipe", make_pipe}};
  for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); ++i) {
    napi_value function;
    napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].run, NULL,
                         &function);
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  berth_node_kernel_export(env, exports);
  return exports;
}
