// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Forks; the new process becomes a child of the caller's parent, so that it does not depend on the
/// caller and is no child that a program in the caller could wait for. Returns 0 in the new
/// process, 1 in the caller, or -errno.
int berth_fork_beside(void);

#ifdef __cplusplus
}
#endif
