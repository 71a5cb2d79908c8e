// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "machines/namespace/templates/kernel_link.h"

#include "machines/namespace/templates/beside.h"
#include "machines/namespace/templates/rest.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/// As messages/limits.hpp has it: the guest says nothing longer.
enum { frame_bytes_max = 4 << 20 };

/// Reads exactly so much; descriptors that come with the first byte are kept. Returns 1, 0, -errno.
static int read_whole(int socket, char* to, size_t size, struct berth_kernel_frame* frame) {
  for (size_t done = 0; done < size;) {
    union {
      char bytes[CMSG_SPACE(sizeof(int) * BERTH_KERNEL_FDS_MAX)];
      struct cmsghdr header;
    } control;
    struct iovec part = {.iov_base = to + done, .iov_len = size - done};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return got == 0 ? 0 : -errno;
    for (struct cmsghdr* each = CMSG_FIRSTHDR(&message); each != NULL;
         each = CMSG_NXTHDR(&message, each)) {
      if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
        continue;
      int count = (int)((each->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      for (int i = 0; i < count; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(each) + (size_t)i * sizeof(int), sizeof(int));
        if (frame->fd_count < BERTH_KERNEL_FDS_MAX)
          frame->fds[frame->fd_count++] = fd;
        else
          close(fd);
      }
    }
    done += (size_t)got;
  }
  return 1;
}

int berth_kernel_receive(int socket, struct berth_kernel_frame* frame) {
  memset(frame, 0, sizeof(*frame));
  unsigned char head[5];
  int result = read_whole(socket, (char*)head, sizeof(head), frame);
  if (result != 1)
    return result;
  size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
  if (size == 0 || size > frame_bytes_max)
    return -EPROTO;
  frame->letter = (char)head[4];
  frame->size = size - 1;
  frame->data = malloc(frame->size + 1);
  if (frame->data == NULL)
    return -ENOMEM;
  frame->data[frame->size] = '\0';
  return frame->size == 0 ? 1 : read_whole(socket, frame->data, frame->size, frame);
}

int berth_kernel_send(int socket, char letter, const void* data, size_t size) {
  char* whole = malloc(size + 5);
  if (whole == NULL)
    return -ENOMEM;
  uint32_t length = (uint32_t)size + 1;
  memcpy(whole, &length, sizeof(length));
  whole[4] = letter;
  if (size > 0)
    memcpy(whole + 5, data, size);
  int error = 0;
  for (size_t done = 0; done < size + 5 && error == 0;) {
    ssize_t sent = send(socket, whole + done, size + 5 - done, MSG_NOSIGNAL);
    if (sent >= 0)
      done += (size_t)sent;
    else if (errno != EINTR)
      error = -errno;
  }
  free(whole);
  return error;
}

int berth_kernel_say_ready(int socket) {
  uint32_t pid = (uint32_t)getpid();
  return berth_kernel_send(socket, 'R', &pid, sizeof(pid));
}

int berth_kernel_say_ended(int socket, uint32_t number, int32_t status, uint32_t cells) {
  struct rusage usage = {0};
  getrusage(RUSAGE_SELF, &usage);
  struct __attribute__((packed)) {
    uint32_t number;
    int32_t status;
    uint32_t cells;
    uint64_t memory_peak_bytes;
    uint8_t raised;
  } body = {number, status, cells, (uint64_t)usage.ru_maxrss * 1024, 0};
  return berth_kernel_send(socket, 'E', &body, sizeof(body));
}

int berth_kernel_above(int fd) {
  int high = fcntl(fd, F_DUPFD_CLOEXEC, BERTH_KERNEL_FD_MIN);
  close(fd);
  return high;
}

static void take_socket(int* socket, int fd) {
  close(*socket);
  *socket = berth_kernel_above(fd);
}

static int fork_copy(void (*after_fork)(int child)) {
  int result = berth_fork_beside();
  if (after_fork != NULL)
    after_fork(result == 0);
  return result;
}

/// The life of a parked copy. Returns in each interpreter that wakes from it.
static void stay_parked(int* socket, int fd, void (*after_fork)(int child)) {
  take_socket(socket, fd);
  // Programs of this machine have its uid, and are not to look into it while it waits.
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  uint32_t pid = (uint32_t)getpid();
  berth_kernel_send(*socket, 'P', &pid, sizeof(pid));
  for (;;) {
    struct berth_kernel_frame frame;
    if (berth_kernel_receive(*socket, &frame) != 1 || frame.letter != 'T' || frame.fd_count != 1)
      _exit(0);
    free(frame.data);
    if (fork_copy(after_fork) == 0) {
      take_socket(socket, frame.fds[0]);
      prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
      // An interrupt is for this one and its children.
      setsid();
      return;
    }
    close(frame.fds[0]);
  }
}

int berth_kernel_rest(int* socket, struct berth_kernel_frame* frame, void (*after_fork)(int child),
                      void (*woken)(void)) {
  int error = berth_rest();
  const char* why = error != 0 ? strerror(-error) : "";
  if (error == 0 && frame->fd_count == 1) {
    int result = fork_copy(after_fork);
    if (result == 0) {
      stay_parked(socket, frame->fds[0], after_fork);
      if (woken != NULL)
        woken();
      berth_go_on();
      berth_kernel_say_ready(*socket);
      return 1;
    }
    if (result < 0) {
      why = strerror(-result);
      berth_go_on();
    }
  }
  for (int i = 0; i < frame->fd_count; ++i)
    close(frame->fds[i]);
  berth_kernel_send(*socket, 'f', why, strlen(why));
  return 0;
}

void berth_kernel_go_on(int socket) {
  berth_go_on();
  berth_kernel_send(socket, 't', NULL, 0);
}
