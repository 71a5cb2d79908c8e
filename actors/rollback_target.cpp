// SPDX-License-Identifier: Apache-2.0
#include "actors/rollback_target.hpp"

#include <algorithm>
#include <span>

namespace berth {

namespace {

using snapshot_view = std::vector<const saved_state*>;
using entry_view = std::span<const entry>;

bool usable(const saved_state* state) {
  return state->info.damage.empty();
}

bool is_there(const snapshot_view& snapshots, const std::string& id) {
  return std::ranges::any_of(snapshots, [&](const saved_state* state) {
    return state->info.snapshot == id && usable(state);
  });
}

/// A job that never ran changed nothing.
bool changed_something(const entry& of) {
  return of.kind == entry_kind::rollback || of.result.started_at_ms != 0;
}

std::string number_of(const entry& of) {
  return std::to_string(of.number);
}

/// Entries are numbered as they were accepted; of those that ran at the same time, the one that
/// ended last made the state that the next one found.
entry_view predecessors(entry_view entries) {
  entry_view before = entries.subspan(1);
  while (!before.empty() && !changed_something(before.front()))
    before = before.subspan(1);
  return before;
}

expected<std::string> after(const snapshot_view& snapshots, entry_view entries, bool newest);

expected<std::string> before(const snapshot_view& snapshots, entry_view entries) {
  const entry& of = entries.front();
  if (is_there(snapshots, of.result.snapshot_before))
    return of.result.snapshot_before;
  entry_view earlier = predecessors(entries);
  if (!earlier.empty()) {
    // The one that ended last, among those that ran when the nearest did.
    entry_view last = earlier;
    for (entry_view next = earlier; !next.empty(); next = predecessors(next))
      if (next.front().result.ended_at_ms > last.front().result.ended_at_ms)
        last = next;
    return after(snapshots, last, true);
  }
  for (auto place = snapshots.rbegin(); place != snapshots.rend(); ++place)
    if ((*place)->info.job.empty() && usable(*place))
      return (*place)->info.snapshot;
  return fail(ec::not_found,
              "before_entry: no snapshot holds the state before entry " + number_of(of));
}

expected<std::string> after(const snapshot_view& snapshots, entry_view entries, bool newest) {
  const entry& of = entries.front();
  if (of.kind == entry_kind::rollback) {
    if (is_there(snapshots, of.result.rolled_back_to))
      return of.result.rolled_back_to;
    return fail(ec::not_found,
                "after_entry: the snapshot that entry " + number_of(of) + " went back to is gone");
  }
  if (!changed_something(of))
    return before(snapshots, entries);
  if (is_there(snapshots, of.result.snapshot_after))
    return of.result.snapshot_after;
  const saved_state* found = nullptr;
  for (const saved_state* state : snapshots)
    if (state->info.job == of.result.job && usable(state) && (newest || found == nullptr))
      found = state;
  if (found != nullptr)
    return found->info.snapshot;
  return fail(ec::not_found,
              "no snapshot was taken between entry " + number_of(of) + " and the next");
}

} // namespace

expected<std::string> find_snapshot(const snapshot_view& snapshots, const std::string& wanted) {
  for (const saved_state* state : snapshots)
    if (state->info.snapshot == wanted)
      return wanted;
  for (auto place = snapshots.rbegin(); place != snapshots.rend(); ++place)
    if ((*place)->info.name == wanted)
      return (*place)->info.snapshot;
  return fail(ec::not_found, "snapshot: this session has none with the id or name " + wanted);
}

expected<std::string> find_last_success(const snapshot_view& snapshots) {
  for (auto place = snapshots.rbegin(); place != snapshots.rend(); ++place)
    if ((*place)->job_succeeded && usable(*place))
      return (*place)->info.snapshot;
  return fail(ec::not_found, "last_success: no snapshot was taken after a job that exited with 0");
}

expected<std::string> find_before(const snapshot_view& snapshots,
                                  const std::vector<entry>& entries) {
  if (entries.empty())
    return fail(ec::not_found, "before_entry: this session has no such entry");
  return before(snapshots, entries);
}

expected<std::string> find_after(const snapshot_view& snapshots,
                                 const std::vector<entry>& entries) {
  if (entries.empty())
    return fail(ec::not_found, "after_entry: this session has no such entry");
  return after(snapshots, entries, false);
}

} // namespace berth
