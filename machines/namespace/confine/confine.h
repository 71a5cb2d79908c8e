// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A limit that is left as it was found.
#define BERTH_LIMIT_KEEP UINT64_MAX

/// Make a user namespace of our own in which `uid` is called `inside_uid`. For the guest. A process
/// that was put into a machine from outside has joined the machine's user namespace already and
/// must not set it: there `uid` is the inside uid.
#define BERTH_CONFINE_NEW_USER_NS 1u
/// Fail where the kernel has no landlock, instead of going on without it.
#define BERTH_CONFINE_NEED_LANDLOCK 2u

/// What a process gives up before it runs anything that is not trusted. Plain data, so that it can
/// be built before a fork and used after it; nothing in here is allocated or freed.
struct berth_confinement {
  /// BERTH_CONFINE_* bits.
  uint32_t flags;
  /// Identity to change to, as the namespace the caller is in counts.
  uint32_t uid;
  uint32_t gid;
  /// Names of that identity in the new user namespace; only with BERTH_CONFINE_NEW_USER_NS.
  uint32_t inside_uid;
  uint32_t inside_gid;
  /// Raised to this value (-1000..1000), never lowered: the kernel's memory killer takes us first.
  int32_t oom_score_adj;
  /// Niceness to take; lower than the present one is not tried.
  int32_t nice;
  /// Resource limits, soft and hard; bytes for the last two. Core dumps and locked memory are
  /// always limited to nothing.
  uint64_t nofile;
  uint64_t nproc;
  uint64_t address_space;
  uint64_t file_size;
  /// Where the machine's tree is, which becomes the root directory; NULL: it is that already.
  /// Entered between two steps, because the kernel makes no user namespace for a process whose root
  /// is not its mount namespace's, as it will not for anything in the machine.
  const char* tree;
  /// O_PATH descriptor of the directory above the one the machine's tree is mounted on; landlock's
  /// rule hangs there, for it stays when the tree is replaced by another state of itself. 0: the
  /// root directory. Below it files can be used as their owners and mounts allow, but no device be
  /// made; above it nothing. Closed by the step that uses it.
  int anchor;
  /// The seccomp program, `filter_length` instructions; 0 leaves the step out (tests only).
  const struct sock_filter* filter;
  uint16_t filter_length;
};

/// The last steps of containment, in order, for the calling process, which must have one thread.
/// Returns 0, or -errno with `*step` naming the step that failed; the caller must then end the
/// process, for some of the steps have been taken. Needs /proc. Takes no memory from the heap.
int berth_confine(const struct berth_confinement* confinement, const char** step);

/// The version of landlock the kernel offers, 0 if it has none.
int berth_landlock_abi(void);

#ifdef __cplusplus
}
#endif
