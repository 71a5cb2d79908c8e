// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/vm/vm_settings.hpp"

namespace berth::machines {

/// How virtual machines are made by Firecracker.
struct firecracker_settings : vm_settings {
  std::string binary = "/usr/bin/firecracker";
  /// Builds the walls around it where the server runs as root.
  std::string jailer = "/usr/bin/jailer";
  /// Whether a machine's memory comes by page faults that a process of ours answers; otherwise
  /// Firecracker maps the file itself.
  bool memory_by_faults = false;
  /// Whether each machine has a file of Firecracker's metrics beside its socket.
  bool metrics = false;
  /// The most that a machine reads of its disk in a second; 0: as much as it can.
  std::uint64_t disk_bytes_per_second = 0;
  std::uint64_t disk_operations_per_second = 0;
};

} // namespace berth::machines
