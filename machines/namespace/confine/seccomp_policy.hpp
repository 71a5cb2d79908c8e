// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace berth::machines {

/// The system calls a machine's processes may make, as a BPF program for
/// prctl(PR_SET_SECCOMP): an array of sock_filter, as bytes. It is an allow-list. A call that is
/// not on it fails with ENOSYS, as on an older kernel, so that programs take their fallback;
/// one that programs ask for to see whether they may fails with EPERM; calls of a foreign
/// architecture (32 bit, x32) kill the process. Throws std::system_error if libseccomp fails.
/// Takes about a millisecond: build it once.
[[nodiscard]] std::vector<char> build_seccomp_program();

} // namespace berth::machines
