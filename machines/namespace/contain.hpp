// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/namespace_settings.hpp"
#include "machines/namespace/wall_steps.hpp"

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
  /// Where the machine's way out listens; 0: it has none.
  std::uint16_t port = 0;
  berth_confinement confinement{};
  /// The guest's ends: channel to the server, side socket to the spawner.
  int channel = -1;
  int side = -1;
};

/// Builds the machine's walls around the calling process, which is the first of a new pid
/// namespace, and becomes the guest. The list of steps in contain.cpp is the security argument.
/// The process runs in the spawner's memory, on a stack of its own, while the spawner waits: it
/// must leave nothing there.
[[noreturn]] void contain(const containment_plan& plan);

/// What a report says that is not about success. Nothing that comes after the walls stand is from
/// Berth's code.
std::string containment_failure(const wall_report& said);

/// Options of an overlay that hold for every state of a machine's tree, to follow the directories.
const char* tree_options(bool ordinary_user);
/// Options for the tmpfs that is a machine's disk.
std::string disk_options(const namespace_settings& settings, std::uint64_t disk_bytes);
/// Inodes that go with a disk of this size.
std::uint64_t disk_inodes(const namespace_settings& settings, std::uint64_t disk_bytes);

} // namespace berth::machines
