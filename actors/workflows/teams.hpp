// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/brief.hpp"
#include "actors/workflows/pattern.hpp"

#include <string>
#include <vector>

/// Steps that need each other's outputs and otherwise go at once: branches, workers.
namespace berth {

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

team_state look_at_team(const run_view& run, const std::vector<workflow_step>& members);

/// The members that cannot begin, as steps that are skipped.
void add_skipped(const run_view& run, const team_state& team, const std::string& kind,
                 outlook& seen);

/// The outputs that a member needs.
void add_needed(brief& to, const run_view& run, const workflow_step& member);

/// A line for each step of a kind that failed or was skipped, with why; empty: none did.
std::string losses_of(const run_view& run, std::string_view kind);

/// Why steps cannot need each other so: something unknown, or a circle. Empty: they can.
std::string fault_of_needs(const std::vector<workflow_step>& members);

} // namespace berth
