// SPDX-License-Identifier: Apache-2.0
#include "app/tree.hpp"

#include <map>
#include <string_view>

namespace berth {

namespace {

/// Which states are known by what: a job's end, a snapshot.
struct landmarks {
  std::map<std::string, int, std::less<>> by_job;
  std::map<std::string, int, std::less<>> by_snapshot;

  int of(const std::string& snapshot) const {
    auto found = by_snapshot.find(snapshot);
    return found == by_snapshot.end() ? 0 : found->second;
  }
};

/// Snapshots by the job that had ended when they were taken; without one, of the beginning.
std::multimap<std::string, int> by_job(const std::vector<snapshot_info>& snapshots) {
  std::multimap<std::string, int> all;
  for (std::size_t i = 0; i < snapshots.size(); ++i)
    all.emplace(snapshots[i].job, static_cast<int>(i));
  return all;
}

} // namespace

history_tree make_tree(const std::vector<entry>& entries,
                       const std::vector<snapshot_info>& snapshots) {
  history_tree tree;
  tree.nodes.emplace_back();
  landmarks known;
  auto waiting = by_job(snapshots);
  auto adopt = [&](const std::string& job, int node) {
    auto [from, to] = waiting.equal_range(job);
    for (auto it = from; it != to; ++it) {
      tree.nodes[static_cast<std::size_t>(node)].snapshots.push_back(it->second);
      known.by_snapshot[snapshots[static_cast<std::size_t>(it->second)].snapshot] = node;
    }
    waiting.erase(from, to);
  };
  adopt("", 0);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const outcome& result = entries[i].result;
    bool is_rollback = entries[i].kind == entry_kind::rollback;
    if (is_rollback) {
      tree.nodes[static_cast<std::size_t>(tree.now)].rollbacks.push_back(static_cast<int>(i));
      tree.now = known.of(result.rolled_back_to);
      continue;
    }
    int node = static_cast<int>(tree.nodes.size());
    tree.nodes.push_back({.entry = static_cast<int>(i)});
    tree.nodes[static_cast<std::size_t>(tree.now)].children.push_back(node);
    tree.now = node;
    adopt(result.job, node);
    // A policy may have taken the session back as the job failed.
    if (!result.rolled_back_to.empty()) {
      tree.nodes[static_cast<std::size_t>(node)].rollbacks.push_back(static_cast<int>(i));
      tree.now = known.of(result.rolled_back_to);
    }
  }
  // Snapshots of jobs that are not among the entries: older than these.
  for (const auto& [job, place] : waiting)
    tree.nodes.front().snapshots.push_back(place);
  return tree;
}

std::vector<tree_line> draw(const history_tree& tree) {
  constexpr std::string_view rail = "│ ";
  struct step {
    int node;
    std::string rails;
    bool branches;
  };
  std::vector<tree_line> lines;
  std::vector<step> left{{0, "", false}};
  while (!left.empty()) {
    step here = std::move(left.back());
    left.pop_back();
    const tree_node& node = tree.nodes[static_cast<std::size_t>(here.node)];
    std::string inside = here.rails + (here.branches ? std::string{rail} : "");
    bool goes_on = !node.children.empty();
    std::string beside = inside + (goes_on ? std::string{rail} : "  ");
    lines.push_back({here.rails + (here.branches ? "├─" : ""), tree_line::kind::node, here.node});
    for (int place : node.snapshots)
      lines.push_back({beside, tree_line::kind::snapshot, place});
    for (int place : node.rollbacks)
      lines.push_back({beside, tree_line::kind::rollback, place});
    // The last one goes straight on; it is drawn last, so it goes onto the pile first.
    for (std::size_t i = node.children.size(); i > 0; --i) {
      bool straight = i == node.children.size();
      left.push_back({node.children[i - 1], inside, !straight});
    }
  }
  return lines;
}

} // namespace berth
