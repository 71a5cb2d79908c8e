// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/mounts.hpp"

#include <string>

namespace berth::machines {

/// The house the launcher lives in, of which each QEMU gets a copy: a small read-only tmpfs with
/// the program, the host's libraries and firmware, read-only, and a few harmless devices. No other
/// path of the host is in it: images, memory and sockets come as descriptors.
///
///   /usr/bin/qemu-system-x86_64, /usr/lib, /usr/share/qemu, /usr/share/seabios
///   /dev     null, zero, random and their like; kvm where it is used
///   /proc    the host's; a QEMU mounts its own over it
///
/// To be called by a process of one thread. `mount_point` is an empty directory.
step_result enter_launcher_house(const std::string& binary, bool with_kvm,
                                 const std::string& mount_point);

} // namespace berth::machines
