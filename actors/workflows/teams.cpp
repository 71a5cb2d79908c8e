// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/teams.hpp"

#include "actors/workflows/reading.hpp"

#include <algorithm>
#include <set>

namespace berth {

namespace {

/// The first need of a member that ended without an output; null: none did.
const step_info* lost_need(const run_view& run, const workflow_step& member) {
  for (const std::string& each : member.depends_on)
    if (run.ended(each) && !run.completed(each))
      return run.find(each);
  return nullptr;
}

/// Where the members of a team are.
struct team_state {
  /// All that they need is there.
  std::vector<const workflow_step*> ready;
  /// What they need failed, so they cannot begin; with why.
  std::vector<std::pair<const workflow_step*, std::string>> lost;
  std::size_t completed = 0;
  /// Every one is at its end.
  bool all_ended = true;
};

team_state members_of(const run_view& run, const std::vector<workflow_step>& members) {
  team_state now;
  for (const workflow_step& each : members) {
    now.completed += run.completed(each.id) ? 1 : 0;
    now.all_ended = now.all_ended && run.ended(each.id);
    if (run.find(each.id) != nullptr)
      continue;
    if (const step_info* lost = lost_need(run, each)) {
      const char* how = lost->status == workflow_status::failed ? "failed" : "was not done";
      now.lost.emplace_back(&each, "it needs " + lost->id + ", which " + how);
    } else if (std::ranges::all_of(each.depends_on,
                                   [&](const std::string& id) { return run.completed(id); })) {
      now.ready.push_back(&each);
    }
  }
  return now;
}

/// A member that cannot begin, as a step that is skipped.
step_order skipped(const run_view& run, const workflow_step& member, const std::string& kind,
                   const std::string& why) {
  step_order made = order_of(run.request, member, kind);
  made.how = asking::given;
  made.status = workflow_status::skipped;
  made.reason = reading::shortened(member.prompt, 300);
  made.error = why;
  return made;
}

} // namespace

void look_at_team(const run_view& run, const team& all, outlook& seen) {
  team_state now = members_of(run, all.members);
  for (const workflow_step* each : now.ready)
    seen.start.push_back(all.ask_member(*each));
  for (const auto& [member, why] : now.lost)
    seen.start.push_back(skipped(run, *member, all.kind, why));
  if (!now.all_ended)
    return;
  if (now.completed == 0) {
    seen.end = ending{.status = workflow_status::failed,
                      .error = "every " + all.kind + " failed: " + losses_of(run, all.kind)};
    return;
  }
  const step_info* join = run.find(all.join);
  if (join == nullptr)
    seen.start.push_back(all.ask_join());
  else if (join->status == workflow_status::completed)
    seen.end = ending{.result = join->output, .chosen = join->id};
  else if (is_terminal(join->status))
    seen.end = ending{.status = workflow_status::failed,
                      .result = all.outputs(),
                      .error = all.join + ": " + join->error};
}

void add_needed(brief& to, const run_view& run, const workflow_step& member) {
  for (const std::string& each : member.depends_on)
    if (const step_info* needed = run.find(each))
      to.output(*needed);
}

std::string losses_of(const run_view& run, std::string_view kind) {
  std::string list;
  for (const step_info* each : run.steps) {
    bool lost = each->status == workflow_status::failed || each->status == workflow_status::skipped;
    if (each->kind == kind && lost)
      list += each->name
              + (each->status == workflow_status::failed ? " failed: " : " was skipped: ")
              + reading::shortened(each->error, 500) + "\n";
  }
  return list;
}

std::string fault_of_needs(const std::vector<workflow_step>& members) {
  std::set<std::string> all;
  for (const workflow_step& each : members)
    all.insert(each.id);
  for (const workflow_step& each : members)
    for (const std::string& need : each.depends_on)
      if (!all.contains(need))
        return each.id + " depends on " + need + ", which is not among them";
  // What can be done in rounds has no circle.
  std::set<std::string> done;
  for (bool moved = true; moved;) {
    moved = false;
    for (const workflow_step& each : members) {
      bool may = !done.contains(each.id)
                 && std::ranges::all_of(
                     each.depends_on, [&](const std::string& need) { return done.contains(need); });
      if (may)
        moved = done.insert(each.id).second;
    }
  }
  for (const workflow_step& each : members)
    if (!done.contains(each.id))
      return each.id + " depends on itself, directly or through others";
  return {};
}

} // namespace berth
