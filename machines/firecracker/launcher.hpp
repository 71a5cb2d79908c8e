// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/firecracker/firecracker_settings.hpp"
#include "machines/image/image.hpp"
#include "machines/namespace/privileged_process.hpp"

#include <string>

namespace berth::machines {

/// Forks the launcher of Firecrackers; see vm/vm_launcher.hpp, and start_launcher of QEMU's, whose
/// rules hold here. Unlike that one it lives among the host's files, for Firecracker takes nothing
/// by descriptor: each machine has a directory below the instance's, which is its root where the
/// jailer builds it, and what it is made from is mounted in there.
///
///   <instance>/machines/firecracker/<machine>-<n>/root/
///     vm.sock    Firecracker's API
///     v.sock     to the guest's vsock
///     metrics    where they are asked for
///     kernel, initrd, disk, memory, devices    mounted for this machine alone, read-only
///     saved/     where it writes its states
///   <instance>/states/    the launcher's own: what machines can begin from, in memory
spawner_handle start_launcher(const firecracker_settings& settings, const image& from,
                              std::string& why);

} // namespace berth::machines
