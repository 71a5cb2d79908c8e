// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/history.hpp"
#include "messages/snapshot.hpp"

#include <string>
#include <vector>

/// A session's history as a tree: where it was taken back, it branches. Plain logic.
namespace berth {

/// One state of the session: what the entry led to. The first one is the session's beginning.
struct tree_node {
  /// Its entry among those that were given; -1 for the beginning.
  int entry = -1;
  /// Snapshots that hold this state, by their place among those that were given.
  std::vector<int> snapshots;
  /// Entries that took the session away from here: rollbacks.
  std::vector<int> rollbacks;
  /// The states that grew out of this one, oldest first.
  std::vector<int> children;
};

struct history_tree {
  /// Parents come before their children; the first is the beginning.
  std::vector<tree_node> nodes;
  /// Where the session is now.
  int now = 0;
};

/// Builds the tree of one session's entries and snapshots, both oldest first. Where the state a
/// rollback went to is not among them, it went to the beginning.
history_tree make_tree(const std::vector<entry>& entries,
                       const std::vector<snapshot_info>& snapshots);

/// A line of the drawn tree: what is drawn before it, and which node, snapshot or rollback it is
/// of.
struct tree_line {
  enum class kind { node, snapshot, rollback };
  std::string rails;
  kind what = kind::node;
  /// Of a node its number, else the place of the snapshot or of the rollback's entry.
  int which = 0;
};

/// The tree drawn from its beginning: the newest branch goes straight down, those that were left
/// stand to the right of it.
std::vector<tree_line> draw(const history_tree& tree);

} // namespace berth
