// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/wall_steps.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// All that the process needs to know that becomes a QEMU; made by the launcher.
struct wall_plan {
  std::uint64_t number = 0;
  machine_limits limits;
  const cgroup_tree* cgroups = nullptr;
  /// Host identity of the process.
  std::uint32_t uid = 0;
  std::string binary;
  std::vector<std::string> arguments;
  /// Standard error, then 3, 4 and so on.
  std::vector<int> descriptors;
  /// Where it says how far it got; closed by the exec.
  int side = -1;
};

/// Builds the walls around the calling process, the first of a new pid namespace, and becomes QEMU.
/// The list of steps in walls.cpp is the security argument.
[[noreturn]] void become_vmm(const wall_plan& plan);

/// What a report says that is not about success.
std::string walls_failure(const wall_report& said);

} // namespace berth::machines
