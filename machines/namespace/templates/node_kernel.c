// SPDX-License-Identifier: Apache-2.0
// The part of the Node addon that live interpreters need: the socket to the guest, watched by
// Node's own loop so that timers and servers go on between cells.
#define _GNU_SOURCE
#include "machines/namespace/templates/node_kernel.h"

#include "machines/namespace/templates/kernel_link.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

static struct {
  napi_env env;
  uv_loop_t* loop;
  uv_poll_t* poll;
  napi_ref on_frame;
  napi_async_context context;
  int control;
  int nowhere;
  /// Whether this process's memory can be forked: it came from a template.
  int can_fork;
} kernel = {.control = -1, .nowhere = -1};

static void leave_streams(void) {
  for (int stream = 0; stream < 3; ++stream)
    dup2(kernel.nowhere, stream);
}

static void free_handle(uv_handle_t* handle) {
  free(handle);
}

static void stop_watching(void) {
  uv_poll_stop(kernel.poll);
  uv_close((uv_handle_t*)kernel.poll, free_handle);
  kernel.poll = NULL;
}

static void hand_over(struct berth_kernel_frame* frame) {
  napi_env env = kernel.env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value arguments[3], function, receiver, fd;
  char letter[2] = {frame->letter, '\0'};
  napi_create_string_utf8(env, letter, 1, &arguments[0]);
  napi_create_buffer_copy(env, frame->size, frame->data, NULL, &arguments[1]);
  napi_create_array_with_length(env, (size_t)frame->fd_count, &arguments[2]);
  for (int i = 0; i < frame->fd_count; ++i) {
    napi_create_int32(env, frame->fds[i], &fd);
    napi_set_element(env, arguments[2], (uint32_t)i, fd);
  }
  free(frame->data);
  napi_get_reference_value(env, kernel.on_frame, &function);
  napi_get_global(env, &receiver);
  napi_make_callback(env, kernel.context, receiver, function, 3, arguments, NULL);
  napi_close_handle_scope(env, scope);
}

static void on_readable(uv_poll_t* poll, int status, int events) {
  (void)poll;
  (void)status;
  (void)events;
  struct berth_kernel_frame frame;
  if (berth_kernel_receive(kernel.control, &frame) != 1)
    _exit(0);
  hand_over(&frame);
}

static void watch(void) {
  kernel.poll = calloc(1, sizeof(*kernel.poll));
  if (kernel.poll == NULL || uv_poll_init(kernel.loop, kernel.poll, kernel.control) != 0
      || uv_poll_start(kernel.poll, UV_READABLE, on_readable) != 0)
    _exit(71);
  // Frames are read whole; uv_poll_init made the socket refuse to wait.
  fcntl(kernel.control, F_SETFL, fcntl(kernel.control, F_GETFL) & ~O_NONBLOCK);
}

/// begin(onFrame): takes the control socket from descriptor 0.
static napi_value begin(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value on_frame, name;
  napi_get_cb_info(env, info, &count, &on_frame, NULL, NULL);
  // In keepfork.c, where that was preloaded.
  void (*survive_interrupts)(void) = NULL;
  *(void**)&survive_interrupts = dlsym(RTLD_DEFAULT, "berth_survive_interrupts");
  if (survive_interrupts != NULL)
    survive_interrupts();
  kernel.env = env;
  napi_get_uv_event_loop(env, &kernel.loop);
  napi_create_reference(env, on_frame, 1, &kernel.on_frame);
  napi_create_string_utf8(env, "berth", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &kernel.context);
  kernel.nowhere = berth_kernel_above(open("/dev/null", O_RDWR | O_CLOEXEC));
  kernel.control = fcntl(0, F_DUPFD_CLOEXEC, BERTH_KERNEL_FD_MIN);
  leave_streams();
  watch();
  return NULL;
}

/// say(letter, buffer): a frame to the guest.
static napi_value say(napi_env env, napi_callback_info info) {
  size_t count = 2, size = 0, length = 0;
  napi_value arguments[2];
  char letter[2] = "";
  void* data = NULL;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  napi_get_value_string_utf8(env, arguments[0], letter, sizeof(letter), &length);
  napi_get_buffer_info(env, arguments[1], &data, &size);
  if (berth_kernel_send(kernel.control, letter[0], data, size) != 0)
    _exit(0);
  return NULL;
}

static napi_value say_ready(napi_env env, napi_callback_info info) {
  (void)env;
  (void)info;
  berth_kernel_say_ready(kernel.control);
  return NULL;
}

/// Descriptors of an array; how many.
static int read_fds(napi_env env, napi_value array, int* fds) {
  uint32_t count = 0;
  napi_get_array_length(env, array, &count);
  if (count > BERTH_KERNEL_FDS_MAX)
    count = BERTH_KERNEL_FDS_MAX;
  for (uint32_t i = 0; i < count; ++i) {
    napi_value fd;
    napi_get_element(env, array, i, &fd);
    napi_get_value_int32(env, fd, &fds[i]);
  }
  return (int)count;
}

/// connect(fds): the first three become the streams; all are closed.
static napi_value connect_streams(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value array;
  int fds[BERTH_KERNEL_FDS_MAX];
  napi_get_cb_info(env, info, &count, &array, NULL, NULL);
  int given = read_fds(env, array, fds);
  for (int i = 0; i < given; ++i) {
    if (i < 3)
      dup2(fds[i], i);
    close(fds[i]);
  }
  return NULL;
}

/// openInput(): a descriptor of its own for what the cell reads. One that read 0 would go on with
/// the next cell's input when a read was under way at the end of its own.
static napi_value open_input(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value number;
  napi_create_int32(env, fcntl(0, F_DUPFD_CLOEXEC, 3), &number);
  return number;
}

static napi_value disconnect(napi_env env, napi_callback_info info) {
  (void)env;
  (void)info;
  leave_streams();
  return NULL;
}

static void after_fork(int child) {
  if (child && uv_loop_fork(kernel.loop) != 0)
    _exit(1);
}

/// rest(fds): comes to rest; true in each interpreter that wakes from the copy that was parked.
static napi_value rest(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value array, result;
  struct berth_kernel_frame frame = {.letter = 'F'};
  napi_get_cb_info(env, info, &count, &array, NULL, NULL);
  frame.fd_count = read_fds(env, array, frame.fds);
  if (!kernel.can_fork)
    // V8's memory would not be there in the copy. No word of a copy: the guest does without.
    while (frame.fd_count > 0)
      close(frame.fds[--frame.fd_count]);
  stop_watching();
  int is_woken = berth_kernel_rest(&kernel.control, &frame, after_fork, berth_node_reseed);
  watch();
  napi_get_boolean(env, is_woken, &result);
  return result;
}

static napi_value go_on(napi_env env, napi_callback_info info) {
  (void)env;
  (void)info;
  berth_kernel_go_on(kernel.control);
  return NULL;
}

void berth_node_kernel_can_fork(void) {
  kernel.can_fork = 1;
}

void berth_node_kernel_export(napi_env env, napi_value exports) {
  const struct {
    const char* name;
    napi_callback run;
  } functions[] = {{"begin", begin},
                   {"say", say},
                   {"sayReady", say_ready},
                   {"connect", connect_streams},
                   {"openInput", open_input},
                   {"disconnect", disconnect},
                   {"rest", rest},
                   {"goOn", go_on}};
  for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); ++i) {
    napi_value function;
    napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].run, NULL,
                         &function);
    napi_set_named_property(env, exports, functions[i].name, function);
  }
}
