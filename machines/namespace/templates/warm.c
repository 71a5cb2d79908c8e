// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
// longjmp between stacks is the point here; the fortified one refuses it.
#undef _FORTIFY_SOURCE
#include "machines/namespace/templates/warm.h"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/templates/protocol.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/// Longest a new interpreter may take to confine itself; a hostile machine may stop it.
static const int confine_wait_ms = 2000;
/// The control socket's number in every warm interpreter, and the report's beside it.
enum { control_fd = 3, report_fd = 4 };

/// One for the process. The intermediate processes of a fork chain share it with the process that
/// started them, and the new process gets a copy as of its fork.
static struct {
  const struct berth_warm_hooks* hooks;
  struct sock_filter filter[4096];
  uint16_t filter_length;
  int null_fd;
  struct berth_inject_request request;
  int fds[BERTH_INJECT_FDS_MAX];
  int fd_count;
  int report[2];
  /// What landlock's rule hangs on, see struct berth_confinement.
  int anchor;
  sigset_t signals;
  /// Where the new process goes on, on the main stack.
  jmp_buf resume;
  int error;
  const char* step;
  _Alignas(64) char stacks[2][64 * 1024];
} warm;

static void close_fd(int* fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

/// Receives one message and its descriptors (close-on-exec). Returns its length, 0 at the end, or
/// -errno. More descriptors than asked for are closed by the kernel.
static ssize_t receive(int socket, void* data, size_t size, int* fds, int max, int* count) {
  union {
    char bytes[CMSG_SPACE(sizeof(int) * BERTH_INJECT_FDS_MAX)];
    struct cmsghdr header;
  } control;
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)max)};
  *count = 0;
  ssize_t got;
  do
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0)
    return -errno;
  for (struct cmsghdr* part_of = CMSG_FIRSTHDR(&message); part_of != NULL;
       part_of = CMSG_NXTHDR(&message, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS)
      continue;
    int here = (int)((part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < here && *count < max; ++i)
      memcpy(&fds[(*count)++], CMSG_DATA(part_of) + (size_t)i * sizeof(int), sizeof(int));
  }
  return got;
}

static int send_all(int socket, const void* data, size_t size) {
  ssize_t sent;
  do
    sent = send(socket, data, size, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == (ssize_t)size ? 0 : -errno;
}

/// Starts `run` on a stack of its own in a process that shares our memory and keeps us waiting.
/// Far cheaper than a fork, and what it does to its namespaces and cgroups does not touch us.
static int start_sharing(int (*run)(void*), int stack) {
  pid_t pid = clone(run, warm.stacks[stack + 1], CLONE_VM | CLONE_VFORK, NULL);
  if (pid < 0)
    return -errno;
  while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {
  }
  return 0;
}

/// The last process of a chain: forks the interpreter and ends, so that the interpreter becomes a
/// child of the machine's first process.
static int fork_and_leave(void* unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0)
    longjmp(warm.resume, 1);
  if (pid < 0) {
    warm.error = -errno;
    warm.step = "fork";
  }
  _exit(0);
}

/// The first process of an inject: goes into the machine's cgroups and namespaces. It cannot enter
/// the pid namespace itself, only its children can.
static int join_machine(void* unused) {
  (void)unused;
  for (int i = 2; i < warm.fd_count; ++i)
    if (write(warm.fds[i], "0", 1) != 1) {
      warm.error = -errno;
      warm.step = "cgroup";
      _exit(0);
    }
  if (syscall(SYS_setns, warm.fds[0], (int)warm.request.namespaces) != 0) {
    warm.error = -errno;
    warm.step = "setns";
    _exit(0);
  }
  // The namespace's root is above the machine's tree.
  warm.anchor = open(BERTH_MACHINE_ANCHOR, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (warm.anchor < 0 || chdir(BERTH_MACHINE_TREE) != 0 || chroot(".") != 0) {
    warm.error = -errno;
    warm.step = "chroot";
    _exit(0);
  }
  int error = start_sharing(fork_and_leave, 1);
  if (error != 0) {
    warm.error = error;
    warm.step = "clone";
  }
  _exit(0);
}

/// Runs a chain of processes whose last one forks. Returns 1 in the new process, else 0 or -errno
/// (with warm.step).
static int run_chain(int (*first)(void*)) {
  const struct berth_warm_hooks* hooks = warm.hooks;
  warm.error = 0;
  warm.step = "";
  if (hooks->before_fork != NULL)
    hooks->before_fork(hooks->context);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &warm.signals);
  if (_setjmp(warm.resume) != 0)
    return 1;
  int error = start_sharing(first, 0);
  sigprocmask(SIG_SETMASK, &warm.signals, NULL);
  if (error != 0) {
    warm.error = error;
    warm.step = "clone";
  }
  if (hooks->after_fork != NULL)
    hooks->after_fork(hooks->context, 0);
  return warm.error;
}

/// In a new interpreter: `fd` becomes the control socket, the streams lead nowhere, everything else
/// is closed (or, by a runtime that has descriptors of its own, has been).
static void settle_descriptors(int fd, int keep_report) {
  for (int stream = 0; stream < 3; ++stream)
    dup2(warm.null_fd, stream);
  int report = keep_report ? fcntl(warm.report[1], F_DUPFD_CLOEXEC, 16) : -1;
  int anchor = keep_report ? fcntl(warm.anchor, F_DUPFD_CLOEXEC, 16) : -1;
  int control = fcntl(fd, F_DUPFD_CLOEXEC, 16);
  close_fd(&warm.null_fd);
  for (int i = 0; i < warm.fd_count; ++i)
    close_fd(&warm.fds[i]);
  if (keep_report) {
    close_fd(&warm.report[0]);
    close_fd(&warm.report[1]);
    close_fd(&warm.anchor);
    warm.anchor = anchor;
  }
  dup3(control, control_fd, O_CLOEXEC);
  close(control);
  close(report_fd);
  if (report >= 0) {
    dup3(report, report_fd, O_CLOEXEC);
    close(report);
  }
  if (warm.hooks->keeps_descriptors)
    return;
  unsigned first = (unsigned)(keep_report ? report_fd : control_fd) + 1;
  if (anchor >= 0) {
    close_range(first, (unsigned)anchor - 1, 0);
    first = (unsigned)anchor + 1;
  }
  close_range(first, ~0u, 0);
}

static int confine_interpreter(const char** step) {
  const struct berth_inject_request* request = &warm.request;
  const struct berth_confinement confinement = {
      .flags = request->flags & BERTH_CONFINE_NEED_LANDLOCK,
      .uid = request->uid,
      .gid = request->gid,
      .oom_score_adj = request->oom_score_adj,
      .nice = request->nice,
      .nofile = request->nofile,
      .nproc = request->nproc,
      .address_space = request->address_space,
      .file_size = request->file_size,
      .anchor = warm.anchor,
      .filter = warm.filter,
      .filter_length = warm.filter_length,
  };
  // Jobs of one machine have one uid: none may look into an interpreter that waits.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    *step = "dumpable";
    return -errno;
  }
  return berth_confine(&confinement, step);
}

static struct berth_inject_reply reply_of(int error, const char* step) {
  struct berth_inject_reply reply = {.letter = BERTH_INJECTED, .error = error};
  if (error != 0)
    snprintf(reply.step, sizeof(reply.step), "%s", step);
  return reply;
}

static void after_fork_in_child(void) {
  if (warm.hooks->after_fork != NULL)
    warm.hooks->after_fork(warm.hooks->context, 1);
}

/// First moments of an interpreter in a machine: confined before anything else, or gone.
static void begin_in_machine(void) {
  settle_descriptors(warm.fds[1], 1);
  umask(022);
  const char* step = "";
  int error = confine_interpreter(&step);
  if (error == 0)
    after_fork_in_child();
  struct berth_inject_reply reply = reply_of(error, step);
  send_all(report_fd, &reply, sizeof(reply));
  close(report_fd);
  if (error != 0)
    _exit(1);
}

static void announce(void) {
  const struct berth_warm_hooks* hooks = warm.hooks;
  sigprocmask(SIG_SETMASK, &warm.signals, NULL);
  if (hooks->rehearse != NULL)
    hooks->rehearse(hooks->context);
  struct berth_warm_ready ready = {.letter = BERTH_WARM_READY, .pid = getpid()};
  if (send_all(control_fd, &ready, sizeof(ready)) != 0)
    _exit(0);
}

/// The template's answer to an inject: what the new interpreter reports of its confinement, which
/// is the last word, or what went wrong on the way to it.
static struct berth_inject_reply await_report(int error) {
  close_fd(&warm.report[1]);
  struct berth_inject_reply reply = reply_of(error, warm.step);
  if (error == 0) {
    struct pollfd ready = {.fd = warm.report[0], .events = POLLIN};
    int count;
    do
      count = poll(&ready, 1, confine_wait_ms);
    while (count < 0 && errno == EINTR);
    if (count <= 0)
      reply = reply_of(-ETIMEDOUT, "confine");
    else if (recv(warm.report[0], &reply, sizeof(reply), 0) != (ssize_t)sizeof(reply))
      reply = reply_of(-EPIPE, "confine");
  }
  close_fd(&warm.report[0]);
  return reply;
}

/// Returns 1 in the new interpreter, 0 in the template, which has answered.
static int inject(ssize_t size) {
  struct berth_inject_reply reply;
  if (size != (ssize_t)sizeof(warm.request) || warm.request.letter != BERTH_INJECT
      || warm.request.cgroups > BERTH_INJECT_CGROUPS_MAX
      || warm.fd_count != 2 + (int)warm.request.cgroups)
    reply = reply_of(-EPROTO, "request");
  else if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, warm.report) != 0)
    reply = reply_of(-errno, "socketpair");
  else {
    int result = run_chain(join_machine);
    if (result == 1) {
      begin_in_machine();
      announce();
      return 1;
    }
    reply = await_report(result);
  }
  for (int i = 0; i < warm.fd_count; ++i)
    close_fd(&warm.fds[i]);
  if (send_all(BERTH_TEMPLATE_FD, &reply, sizeof(reply)) != 0)
    _exit(0);
  return 0;
}

/// Serves injects until this process is an interpreter in a machine.
static void template_loop(void) {
  const uint8_t ready = BERTH_TEMPLATE_READY;
  if (send_all(BERTH_TEMPLATE_FD, &ready, 1) != 0)
    _exit(0);
  for (;;) {
    ssize_t size = receive(BERTH_TEMPLATE_FD, &warm.request, sizeof(warm.request), warm.fds,
                           BERTH_INJECT_FDS_MAX, &warm.fd_count);
    if (size <= 0)
      _exit(0);
    if (inject(size) == 1)
      return;
  }
}

/// Makes another interpreter that speaks on warm.fds[0]. Returns 1 in it.
static int fork_sibling(void) {
  int result = warm.fd_count == 1 ? run_chain(fork_and_leave) : -EPROTO;
  if (result == 1) {
    // The machine's first process is the new one's parent by now, or will be at once.
    warm.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    settle_descriptors(warm.fds[0], 0);
    after_fork_in_child();
    announce();
    return 1;
  }
  for (int i = 0; i < warm.fd_count; ++i)
    close_fd(&warm.fds[i]);
  if (result != 0) {
    struct berth_fork_failed failed = {.letter = BERTH_FORK_FAILED, .error = result};
    send_all(control_fd, &failed, sizeof(failed));
  }
  return 0;
}

int berth_read_job(int fd, struct berth_job* job) {
  struct stat info;
  if (fstat(fd, &info) != 0)
    return -errno;
  if (info.st_size < 0 || info.st_size > (off_t)BERTH_JOB_BYTES_MAX)
    return -EFBIG;
  job->data = malloc((size_t)info.st_size + 1);
  if (job->data == NULL)
    return -ENOMEM;
  job->size = 0;
  while (job->size < (size_t)info.st_size) {
    ssize_t got =
        pread(fd, job->data + job->size, (size_t)info.st_size - job->size, (off_t)job->size);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      break;
    job->size += (size_t)got;
  }
  job->data[job->size] = '\0';
  return 0;
}

/// Turns this process into the job: its streams, a session of its own, and the adoption of every
/// process it will leave behind, so that none outlives it unseen.
static void become_job(struct berth_job* job) {
  if (warm.fd_count != 4 || berth_read_job(warm.fds[3], job) != 0)
    _exit(126);
  for (int stream = 0; stream < 3; ++stream)
    if (dup2(warm.fds[stream], stream) < 0)
      _exit(126);
  close(control_fd);
  for (int i = 0; i < warm.fd_count; ++i)
    close_fd(&warm.fds[i]);
  if (!warm.hooks->keeps_descriptors)
    close_range(3, ~0u, 0);
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
    _exit(126);
  setsid();
}

/// Waits in the machine until the guest has a job for us.
static void interpreter_loop(struct berth_job* job) {
  for (;;) {
    uint8_t letter = 0;
    ssize_t size = receive(control_fd, &letter, 1, warm.fds, 4, &warm.fd_count);
    if (size != 1)
      _exit(0);
    if (letter == BERTH_RUN) {
      become_job(job);
      return;
    }
    if (letter != BERTH_FORK)
      _exit(1);
    fork_sibling();
  }
}

static void load_filter(void) {
  ssize_t size = pread(BERTH_TEMPLATE_FILTER_FD, warm.filter, sizeof(warm.filter), 0);
  if (size <= 0 || (size_t)size % sizeof(struct sock_filter) != 0) {
    fprintf(stderr, "template: no seccomp program on descriptor %d\n", BERTH_TEMPLATE_FILTER_FD);
    _exit(1);
  }
  warm.filter_length = (uint16_t)((size_t)size / sizeof(struct sock_filter));
  close(BERTH_TEMPLATE_FILTER_FD);
}

/// Moves the environment to the heap, then blanks what the process was started with and writes the
/// runtime's command line over it.
static void hide_origin(const char* line, size_t size) {
  size_t count = 0;
  while (environ[count] != NULL)
    ++count;
  char** copy = calloc(count + 1, sizeof(*copy));
  for (size_t i = 0; copy != NULL && i < count; ++i)
    if ((copy[i] = strdup(environ[i])) == NULL)
      return;
  char text[2048];
  int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (copy == NULL || fd < 0)
    return;
  ssize_t got = read(fd, text, sizeof(text) - 1);
  close(fd);
  text[got > 0 ? got : 0] = '\0';
  // Fields 48 to 51 are the bounds of arguments and environment; the second may hold blanks.
  char* at = strrchr(text, ')');
  for (int field = 2; at != NULL && field < 48; ++field)
    at = strchr(at + 1, ' ');
  unsigned long arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  if (at == NULL || sscanf(at, "%lu %lu %lu %lu", &arg_start, &arg_end, &env_start, &env_end) != 4
      || arg_start == 0 || arg_end <= arg_start || env_end < env_start)
    return;
  environ = copy;
  size_t room = arg_end - arg_start;
  memset((void*)arg_start, 0, room);
  memcpy((void*)arg_start, line, size < room ? size : room - 1);
  memset((void*)env_start, 0, env_end - env_start);
}

void berth_serve(const struct berth_warm_hooks* hooks, struct berth_job* job) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (hooks->command_line != NULL)
    hide_origin(hooks->command_line, hooks->command_line_size);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  // As an ordinary user's "root" this is denied, and the groups stay (see drop_groups).
  (void)!setgroups(0, NULL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  warm.hooks = hooks;
  load_filter();
  fcntl(BERTH_TEMPLATE_FD, F_SETFD, FD_CLOEXEC);
  warm.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  template_loop();
  interpreter_loop(job);
}
