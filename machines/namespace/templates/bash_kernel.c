// SPDX-License-Identifier: Apache-2.0
// The bash builtin `_berth`, loaded by bash_kernel.sh into an interactive bash: runs one cell after
// the other in it. Bash reads its commands from a pipe in which nothing but lines with this
// builtin's name are; each takes one cell from the guest and evaluates it as `eval` would. So an
// interrupt, which makes an interactive bash drop the line it is at, ends the cell and nothing
// else.
#define _GNU_SOURCE
#include "machines/namespace/templates/kernel_link.h"

#include <sys/ioctl.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What we use of bash, as its loadable builtins do.
struct word_list;
struct builtin {
  const char* name;
  int (*function)(struct word_list*);
  int flags;
  const char* const* long_doc;
  const char* short_doc;
  char* handle;
};
enum { BUILTIN_ENABLED = 1, SEVAL_NONINT = 1, SEVAL_NOHIST = 4, SEVAL_RESETLINE = 16 };
extern int last_command_exit_value;
extern pid_t dollar_dollar_pid;
extern int parse_and_execute(char* text, const char* from, int flags);
extern void begin_unwind_frame(const char* name);
extern void add_unwind_protect(void (*cleanup)(char*), char* argument);
extern void run_unwind_frame(const char* name);
extern void* xmalloc(size_t size);
extern void seedrand(void);
extern void seedrand32(void);
extern volatile sig_atomic_t interrupt_state;
extern int already_making_children;
extern pid_t last_made_pid;
extern void kill_current_pipeline(void);

static const char line[] = "_berth\n";
enum { spare_lines = 4 };
/// $? after an interrupt.
enum { status_interrupted = 128 + SIGINT };

static struct {
  int control;
  int nowhere;
  /// The pipe that bash reads, and its other end.
  int lines;
  int more_lines;
  uint32_t cell;
  uint32_t cells;
  int status;
  /// What SIGINT does in cells; between them it is ignored.
  struct sigaction interrupt;
} kernel = {.control = -1};

/// Bash finds a line whatever an interrupt made it drop.
static void keep_lines(void) {
  int waiting = 0;
  ioctl(kernel.lines, FIONREAD, &waiting);
  for (int i = waiting / (int)(sizeof(line) - 1); i < spare_lines; ++i)
    (void)!write(kernel.more_lines, line, sizeof(line) - 1);
}

static void ignore_interrupts(void) {
  struct sigaction ignore;
  memset(&ignore, 0, sizeof(ignore));
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGINT, &ignore, &kernel.interrupt);
}

/// Puts bash's own streams in place: the pipe with its commands, and nowhere.
static void leave_streams(void) {
  dup2(kernel.lines, 0);
  dup2(kernel.nowhere, 1);
  dup2(kernel.nowhere, 2);
}

/// What an interrupted cell waited for. A child that has not exec'ed yet loses the interrupt, and
/// bash, where it comes between the start of one and the wait for it, would wait in the next cell.
static void end_children(void) {
  kill(0, SIGINT);
  if (already_making_children == 0)
    return;
  siginfo_t info;
  // Whoever has the machine rest next is not to find it. Bash itself collects it.
  if (last_made_pid > 0 && kill(last_made_pid, SIGKILL) == 0)
    waitid(P_PID, (id_t)last_made_pid, &info, WEXITED | WNOWAIT);
  kill_current_pipeline();
}

/// Runs however a cell ended, an interrupt included; not when bash itself exits.
static void cell_over(char* finished) {
  // A child that has not exec'ed yet unwinds this, too, when it is interrupted.
  if (getpid() != dollar_dollar_pid)
    return;
  ignore_interrupts();
  // One more that came since is not the next cell's.
  interrupt_state = 0;
  if (finished == NULL || !*finished) {
    kernel.status = last_command_exit_value;
    if (kernel.status == status_interrupted)
      end_children();
  }
  leave_streams();
  ++kernel.cells;
  if (berth_kernel_say_ended(kernel.control, kernel.cell, kernel.status & 0xFF, kernel.cells) != 0)
    _exit(0);
}

static char finished;

static void run_cell(struct berth_kernel_frame* frame) {
  memcpy(&kernel.cell, frame->data, sizeof(kernel.cell));
  int in_file = (frame->data[4] & BERTH_CELL_IN_FILE) != 0 && frame->fd_count == 4;
  size_t size = frame->size - 5;
  if (in_file)
    size = (size_t)lseek(frame->fds[3], 0, SEEK_END);
  // Bash frees it.
  char* code = xmalloc(size + 1);
  if (in_file)
    size = (size_t)pread(frame->fds[3], code, size, 0);
  else
    memcpy(code, frame->data + 5, size);
  code[size] = '\0';
  for (int stream = 0; stream < 3; ++stream)
    dup2(frame->fds[stream], stream);
  for (int i = 0; i < frame->fd_count; ++i)
    close(frame->fds[i]);
  free(frame->data);
  finished = 0;
  begin_unwind_frame("berth cell");
  add_unwind_protect(cell_over, &finished);
  // $? is what the cell before left.
  last_command_exit_value = kernel.status;
  sigaction(SIGINT, &kernel.interrupt, NULL);
  kernel.status = parse_and_execute(code, "cell", SEVAL_NOHIST | SEVAL_NONINT | SEVAL_RESETLINE);
  finished = 1;
  run_unwind_frame("berth cell");
}

/// In an interpreter that woke from a copy: the pipe is shared with others, and so would be what is
/// random.
static void woken(void) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    _exit(71);
  close(kernel.lines);
  close(kernel.more_lines);
  kernel.lines = berth_kernel_above(ends[0]);
  kernel.more_lines = berth_kernel_above(ends[1]);
  leave_streams();
  dollar_dollar_pid = getpid();
  seedrand();
  seedrand32();
}

/// The first call: the control socket is where standard input is.
static int begin(void) {
  int ends[2];
  int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere < 0 || pipe2(ends, O_CLOEXEC) != 0)
    _exit(71);
  kernel.control = fcntl(0, F_DUPFD_CLOEXEC, BERTH_KERNEL_FD_MIN);
  kernel.nowhere = berth_kernel_above(nowhere);
  kernel.lines = berth_kernel_above(ends[0]);
  kernel.more_lines = berth_kernel_above(ends[1]);
  leave_streams();
  keep_lines();
  ignore_interrupts();
  return 0;
}

static int berth_builtin(struct word_list* words) {
  (void)words;
  static int is_up;
  if (kernel.control < 0)
    return begin();
  if (!is_up && berth_kernel_say_ready(kernel.control) != 0)
    _exit(0);
  is_up = 1;
  for (;;) {
    keep_lines();
    struct berth_kernel_frame frame;
    if (berth_kernel_receive(kernel.control, &frame) != 1)
      _exit(0);
    if (frame.letter == 'C' && frame.fd_count >= 3 && frame.size >= 5) {
      run_cell(&frame);
      return kernel.status;
    }
    if (frame.letter == 'F')
      berth_kernel_rest(&kernel.control, &frame, NULL, woken);
    else if (frame.letter == 'T')
      berth_kernel_go_on(kernel.control);
    else
      _exit(1);
    free(frame.data);
  }
}

static const char* const description[] = {"Runs cells that Berth sends.", NULL};
__attribute__((visibility("default"))) struct builtin _berth_struct = {
    "_berth", berth_builtin, BUILTIN_ENABLED, description, "_berth", NULL};
