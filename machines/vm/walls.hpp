// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/wall_steps.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// Which list of steps a process takes.
enum class wall_kind {
  /// QEMU, in the launcher's house.
  qemu,
  /// Firecracker, started directly by an ordinary user.
  firecracker,
  /// Firecracker's jailer, which builds the inner walls itself.
  jailer,
};

/// A file or directory of the host's that the process is to see in its own directory.
struct shown_path {
  std::string from;
  /// Its name there, where something of its sort is already.
  std::string as;
  bool writable = false;
};

/// All that the process needs to know that becomes a hypervisor; made by the launcher.
struct wall_plan {
  wall_kind kind = wall_kind::qemu;
  std::uint64_t number = 0;
  machine_limits limits;
  const cgroup_tree* cgroups = nullptr;
  /// Host identity of the process.
  std::uint32_t uid = 0;
  /// Of QEMU: where its machine's way out listens; 0: it has none.
  std::uint16_t port = 0;
  std::string binary;
  std::vector<std::string> arguments;
  /// Where it starts; empty: where the launcher is.
  std::string directory;
  /// What is mounted in that directory, and what is out of sight then.
  std::vector<shown_path> shown;
  std::string hidden;
  /// Standard error, then 3, 4 and so on.
  std::vector<int> descriptors;
  /// Where it says how far it got; closed by the exec.
  int side = -1;
};

/// Builds the walls around the calling process, the first of a new pid namespace, and becomes what
/// the plan says.
/// The list of steps in walls.cpp is the security argument.
[[noreturn]] void become_vmm(const wall_plan& plan);

/// What a report says that is not about success.
std::string walls_failure(wall_kind kind, const wall_report& said);

} // namespace berth::machines
