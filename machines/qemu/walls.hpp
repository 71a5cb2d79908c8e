// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"

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

/// What the new process says on its side socket: once when its walls stand, with descriptors
/// (handle_bit), and once when a step failed.
struct wall_report {
  std::uint32_t step = 0;
  std::int32_t error = 0;
  std::uint32_t handles = 0;
  char detail[32] = {};
};

/// The value of wall_report::step that means success so far.
inline constexpr std::uint32_t walls_prepared = UINT32_MAX;

/// Builds the walls around the calling process, the first of a new pid namespace, and becomes QEMU.
/// The list of steps in walls.cpp is the security argument.
[[noreturn]] void become_vmm(const wall_plan& plan);

/// Name of a step, for reports. Any number is safe.
const char* wall_step_name(std::uint32_t step);

} // namespace berth::machines
