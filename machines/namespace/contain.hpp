// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/namespace_settings.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// Ids inside a machine.
inline constexpr std::uint32_t agent_id = 1000;

struct tree_beginning;

/// All a machine's first process needs to know; made by the spawner before the process.
struct containment_plan {
  std::uint64_t number = 0;
  std::string hostname;
  machine_limits limits;
  /// Mount options of the disk: its size and inodes.
  std::string disk_options;
  /// What house_mounts said.
  const std::vector<std::string>* mounts = nullptr;
  const cgroup_tree* cgroups = nullptr;
  /// What the tree begins with.
  const tree_beginning& beginning;
  /// Whether the mounts are made by an ordinary user in a namespace of its own.
  bool ordinary_user = false;
  berth_confinement confinement{};
  /// The guest's ends: channel to the server, side socket to the spawner.
  int channel = -1;
  int side = -1;
};

/// What the new process says on its side socket, once when its walls stand (`step` is `prepared`,
/// with descriptors), or once when a step failed. Nothing that comes later is from Berth's code.
struct containment_report {
  std::uint32_t step = 0;
  std::int32_t error = 0;
  /// handle_bit of the descriptors that come along, in order; then `procs` of cgroup.procs; then
  /// the machine's /proc.
  std::uint32_t handles = 0;
  std::uint32_t procs = 0;
  /// Which of confinement's steps failed.
  char detail[32] = {};
};

/// The value of containment_report::step that means success so far.
inline constexpr std::uint32_t step_prepared = UINT32_MAX;

/// Builds the machine's walls around the calling process, which is the first of a new pid
/// namespace, and becomes the guest. The list of steps in contain.cpp is the security argument.
/// The process runs in the spawner's memory, on a stack of its own, while the spawner waits: it
/// must leave nothing there.
[[noreturn]] void contain(const containment_plan& plan);

/// Name of a step, for reports. Any number is safe.
const char* containment_step_name(std::uint32_t step);

/// Options of an overlay that hold for every state of a machine's tree, to follow the directories.
const char* tree_options(bool ordinary_user);
/// Options for the tmpfs that is a machine's disk.
std::string disk_options(const namespace_settings& settings, std::uint64_t disk_bytes);
/// Inodes that go with a disk of this size.
std::uint64_t disk_inodes(const namespace_settings& settings, std::uint64_t disk_bytes);

} // namespace berth::machines
