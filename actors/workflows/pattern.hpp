// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/progress.hpp"
#include "messages/roles.hpp"
#include "messages/workflow.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the patterns of workflows have in common: each is plain logic that looks at a run as it is
/// and says what may be done next.
namespace berth {

/// How a step is done.
enum class asking : std::uint8_t {
  /// A turn of an agent, which may run programs.
  agent,
  /// The programs in the prompt are run; no model is asked.
  program,
  /// A model is asked for a text.
  model,
  /// A model is asked for one JSON value.
  json_value,
  /// Nobody is asked: the order has the output already.
  given
};

/// A step that may begin.
struct step_order {
  std::string id;
  std::string name;
  std::string kind;
  asking how = asking::agent;
  /// Who is to do it, whether such a role is configured or not.
  std::string role;
  std::string prompt;
  std::string system_prompt;
  model_choice model;
  std::vector<std::string> depends_on;
  /// Why it is done, for step_info::reason.
  std::string reason;
  /// Of a given step: what it is at once.
  workflow_status status = workflow_status::completed;
  std::string output;
  std::string error;
};

/// Something that is told of a run: a decision or a warning.
struct remark {
  progress_kind kind = progress_kind::decision;
  std::string step;
  std::string text;
};

/// How a run ends.
struct ending {
  workflow_status status = workflow_status::completed;
  std::string result;
  /// The step whose output the result is; empty: of several.
  std::string chosen;
  std::string error;
  /// What was decided to end it; empty: nothing.
  std::string decision;
};

/// A run as a pattern sees it. Steps whose work was lost are not in it.
struct run_view {
  const run_workflow& request;
  const std::vector<const step_info*>& steps;
  const std::vector<role_info>& roles;

  /// The step of an id; null: it has not begun.
  const step_info* find(std::string_view id) const;
  /// Whether the step ended and gave something.
  bool completed(std::string_view id) const;
  /// Whether the step ended, one way or the other.
  bool ended(std::string_view id) const;
};

/// What a pattern says of a run.
struct outlook {
  /// Steps that are not in the run and may begin now, all at once.
  std::vector<step_order> start;
  /// Set when nothing is left to do.
  std::optional<ending> end;
  /// How many steps it will be in the end, as far as can be said.
  std::size_t steps_expected = 1;
  /// Whether it will be exactly so many unless it fails, with those that failed or were skipped.
  bool is_exact = false;
};

/// A pattern. Its answers depend on nothing but what it is given, so a run goes on after a restart
/// as if there had been none.
class pattern {
public:
  virtual ~pattern() = default;

  /// Who does the work, and who plans, joins and judges, when the request names nobody.
  virtual std::string_view role() const = 0;
  virtual std::string_view overall_role() const = 0;

  virtual outlook look(const run_view& run) const = 0;

  /// Reads what a step gave that has just completed or failed: fills in score, confidence and
  /// reason, and fails a step whose output is of no use, or completes one that can be done without.
  /// The run is given without it. Says what is to be told.
  virtual std::vector<remark> read(const run_view& run, step_info& ended) const;
};

const pattern& chain_pattern();
const pattern& routing_pattern();
const pattern& parallel_pattern();
const pattern& orchestration_pattern();
const pattern& optimization_pattern();
const pattern& execution_pattern();

const pattern& pattern_of(workflow_pattern which);

/// The names of a request, else the pattern's.
std::string role_of(const run_workflow& request);
std::string overall_role_of(const run_workflow& request);

} // namespace berth
