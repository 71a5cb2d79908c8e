// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// Puts another tree under a machine's living processes: the kernel cannot change the layers of an
/// overlay, so a new one is mounted beside it, gets the house's mounts and the machine's /proc, and
/// takes its place by pivot_root, which changes the root directory of every process that has the
/// old one, and its working directory if that was "/".
struct tree_switch {
  /// The machine's first process, for its mount namespace.
  int pidfd = -1;
  bool ordinary_user = false;
  /// What house_mounts said.
  const std::vector<std::string>* mounts = nullptr;
  /// Number of the directory that is written to now, and of the new one.
  std::uint64_t top = 0;
  std::uint64_t fresh = 0;
  /// Whether the top becomes a layer that never changes: refused while somebody can write to it.
  bool freeze = false;
  /// Directories of the layers below it, the newest first, as the disk has them, with a colon
  /// between; they become the lower ones, below the frozen top if there is one.
  std::string lowers;

  /// What failed, or null; errno. EBUSY in "unwritable": a file is open for writing.
  const char* step = nullptr;
  int error = 0;
  /// The machine cannot go on: it is neither what it was nor what it should be.
  bool broken = false;
  /// Of what succeeded: the old tree. Whoever closes it last gives back what the kernel remembered
  /// of it, a microsecond or two for each file that was looked up.
  owned_fd old_tree;
};

/// Takes the steps in a process of its own, while the caller waits: half a millisecond as a rule,
/// whatever is in the tree. What fails is undone.
void switch_tree(tree_switch& wanted);

} // namespace berth::machines
