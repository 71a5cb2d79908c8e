// SPDX-License-Identifier: Apache-2.0
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/// What a live interpreter does while the root of its machine is switched under it.

/// Before: remembers the directory and the regular files that are open, and goes to the root.
/// Returns 0, or -errno when it could not, with nothing changed.
int berth_rest(void);

/// After: goes back to the directory, or stays at the root when it is not there any more, and opens
/// the files anew by their paths, at their offsets, as the same descriptors. What is not there any
/// more stays open as it was. In every process that was forked since, too.
void berth_go_on(void);

#ifdef __cplusplus
}
#endif
