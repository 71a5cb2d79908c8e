// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/brief.hpp"
#include "actors/workflows/pattern.hpp"

#include <functional>
#include <string>
#include <vector>

/// Steps that need each other's outputs and otherwise go at once: branches, workers.
namespace berth {

/// A team, and how one answer is made of its outputs.
struct team {
  /// Of its members' steps.
  std::string kind;
  const std::vector<workflow_step>& members;
  std::function<step_order(const workflow_step&)> ask_member;
  /// The step that joins the outputs.
  std::string join;
  std::function<step_order()> ask_join;
  /// All outputs, for when nobody joined them.
  std::function<std::string()> outputs;
};

/// Begins the members that have what they need, skips those that never will, and when all are at
/// their end has what they gave joined.
void look_at_team(const run_view& run, const team& all, outlook& seen);

/// The outputs that a member needs.
void add_needed(brief& to, const run_view& run, const workflow_step& member);

/// A line for each step of a kind that failed or was skipped, with why; empty: none did.
std::string losses_of(const run_view& run, std::string_view kind);

/// Why steps cannot need each other so: something unknown, or a circle. Empty: they can.
std::string fault_of_needs(const std::vector<workflow_step>& members);

} // namespace berth
