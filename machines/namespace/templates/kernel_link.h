// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What a live interpreter and the guest say to each other over a stream socket. Each frame: 4 bytes
// of length, little-endian, then a letter and what belongs to it. guest/kernel_words.hpp is the
// other end.
//
//   guest to interpreter
//     C u32 number, u8 flags (1: it takes input, 2: the code is in the fourth descriptor), code;
//       descriptors [stdin, stdout, stderr(, code)]: run a cell
//     I u32 number: ends this cell, beside a SIGINT, which is lost on a cell that has not begun.
//     Not
//       to Bash, to which the signal is repeated
//     F u64 number; descriptor [socket of the copy] unless the number is 0: come to rest
//     T: go on. To a parked copy, with descriptor [socket]: fork one that lives, and speaks on it
//   interpreter to guest
//     R u32 pid: up          X text: cannot be         P u32 pid: this copy is parked
//     f text: at rest, or (text) why not               t: goes on
//     D u8 main, u16 count, count times (u32 size, MIME type, u32 size, content): shows something
//     L u8 main, u16 count, u64 size: would have shown more than fits a frame
//     E u32 number, i32 status, u32 cells so far, u64 peak of memory, u8 raised(, three times (u32
//       size, text): name, value, traceback): the cell ended

enum { BERTH_KERNEL_FDS_MAX = 4, BERTH_CELL_STDIN = 1, BERTH_CELL_IN_FILE = 2 };

/// The control socket goes here or above: out of the way of programs that count from 3.
enum { BERTH_KERNEL_FD_MIN = 900 };

/// One frame from the guest.
struct berth_kernel_frame {
  /// The body after the letter, with a NUL behind it; from malloc.
  char* data;
  size_t size;
  char letter;
  int fds[BERTH_KERNEL_FDS_MAX];
  int fd_count;
};

/// Receives one frame. Returns 1, 0 at the end, or -errno.
int berth_kernel_receive(int socket, struct berth_kernel_frame* frame);
/// Sends one frame. Returns 0 or -errno.
int berth_kernel_send(int socket, char letter, const void* data, size_t size);

/// The words a language without results of its own needs.
int berth_kernel_say_ready(int socket);
int berth_kernel_say_ended(int socket, uint32_t number, int32_t status, uint32_t cells);

/// Moves a descriptor to BERTH_KERNEL_FD_MIN or above. Returns the new one.
int berth_kernel_above(int fd);

/// Comes to rest at the guest's word F and answers it. Parks a copy where one is wanted; returns 1
/// in each interpreter that wakes from it, whose socket `socket` then is and who has said that it
/// is up, after `woken` was called in it; else 0.
int berth_kernel_rest(int* socket, struct berth_kernel_frame* frame, void (*after_fork)(int child),
                      void (*woken)(void));
/// Goes on after a rest at the guest's word T, and says so.
void berth_kernel_go_on(int socket);

#ifdef __cplusplus
}
#endif
