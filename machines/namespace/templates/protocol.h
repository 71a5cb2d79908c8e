// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What spawner, templates, warm interpreters and guest say to each other: one SEQPACKET message
// each, whose first byte is one of the letters below. README.md beside this file tells the story.

/// Where a template finds its socket to the spawner, and a memfd with the seccomp program.
#define BERTH_TEMPLATE_FD 3
#define BERTH_TEMPLATE_FILTER_FD 4
/// Most cgroup.procs descriptors one request may carry, and so most descriptors: those, the pidfd
/// and the control socket.
#define BERTH_INJECT_CGROUPS_MAX 4
#define BERTH_INJECT_FDS_MAX (2 + BERTH_INJECT_CGROUPS_MAX)
/// Most bytes a job description may have.
#define BERTH_JOB_BYTES_MAX (64u << 20)
/// Where the root of a machine's mount namespace has the machine's tree, and the directory above
/// it.
#define BERTH_MACHINE_ANCHOR "/machine"
#define BERTH_MACHINE_TREE "/machine/root"
/// Where a machine finds what a cold interpreter runs: python_job.py, node_job.js.
#define BERTH_JOBS_DIR "/opt/berth"

enum berth_letter {
  /// template -> spawner: up. No more bytes.
  BERTH_TEMPLATE_READY = 'T',
  /// spawner -> template: put a warm interpreter into a machine. struct berth_inject_request, with
  /// descriptors [pidfd of the guest, interpreter's end of a control socket, cgroup.procs ...].
  BERTH_INJECT = 'I',
  /// template -> spawner: the answer to each inject, in order. struct berth_inject_reply.
  BERTH_INJECTED = 'i',
  /// warm interpreter -> guest: ready for a job. struct berth_warm_ready.
  BERTH_WARM_READY = 'w',
  /// guest -> warm interpreter: make another one, that speaks on the one descriptor sent along.
  BERTH_FORK = 'F',
  /// warm interpreter -> guest: the fork failed. struct berth_fork_failed.
  BERTH_FORK_FAILED = 'f',
  /// guest -> warm interpreter: become the job. Descriptors [stdin, stdout, stderr, job memfd].
  BERTH_RUN = 'R',
};

/// Put a warm interpreter into a machine.
struct berth_inject_request {
  uint8_t letter;
  uint8_t reserved[3];
  /// CLONE_NEW* of all namespaces the guest has for itself, for setns(pidfd, namespaces).
  uint32_t namespaces;
  /// How many cgroup.procs descriptors follow the first two.
  uint32_t cgroups;
  /// BERTH_CONFINE_NEED_LANDLOCK or 0.
  uint32_t flags;
  /// The ids inside the machine.
  uint32_t uid;
  uint32_t gid;
  int32_t oom_score_adj;
  int32_t nice;
  /// Limits as in struct berth_confinement; BERTH_LIMIT_KEEP leaves one alone.
  uint64_t nofile;
  uint64_t nproc;
  uint64_t address_space;
  uint64_t file_size;
};

struct berth_inject_reply {
  uint8_t letter;
  uint8_t reserved[3];
  /// 0 when the interpreter is in the machine and confined, else -errno.
  int32_t error;
  /// The step that failed, NUL-terminated.
  char step[24];
};

struct berth_warm_ready {
  uint8_t letter;
  uint8_t reserved[3];
  /// The interpreter's process id as the machine counts.
  int32_t pid;
};

struct berth_fork_failed {
  uint8_t letter;
  uint8_t reserved[3];
  int32_t error;
};

#ifdef __cplusplus
}
#endif
