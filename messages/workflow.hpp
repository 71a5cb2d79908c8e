// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/chat.hpp"

/// What is said about workflows: patterns in which agents work together.
namespace berth {

/// The patterns.
enum class workflow_pattern : std::uint8_t {
  prompt_chaining,
  routing,
  parallelization,
  orchestration,
  optimization,
  vm_execution
};
inline constexpr std::array<std::string_view, 6> workflow_pattern_names{
    "prompt_chaining", "routing",      "parallelization",
    "orchestration",   "optimization", "vm_execution"};
constexpr std::span<const std::string_view> enum_names(workflow_pattern) {
  return workflow_pattern_names;
}

/// Where a workflow or a step of one is. From `completed` on the status is terminal.
enum class workflow_status : std::uint8_t {
  pending,
  running,
  paused,
  completed,
  failed,
  cancelled,
  /// The server died, and the configuration does not let it go on.
  interrupted,
  /// Of a step: it was not needed, or what it needed failed.
  skipped
};
inline constexpr std::array<std::string_view, 8> workflow_status_names{
    "pending", "running", "paused", "completed", "failed", "cancelled", "interrupted", "skipped"};
constexpr std::span<const std::string_view> enum_names(workflow_status) {
  return workflow_status_names;
}
constexpr bool is_terminal(workflow_status status) {
  return status >= workflow_status::completed;
}

/// What must hold of a step's output before the next one begins.
struct step_gate {
  std::string contains;
  std::string matches;
  std::string question;
  std::uint32_t repeats_max = 0;

  static constexpr const char* type_name = "step_gate";
  static constexpr auto fields() {
    return std::tuple{
        opt("contains", &step_gate::contains, "The output has this text."),
        opt("matches", &step_gate::matches, "The output matches this pattern (RE2)."),
        opt("question", &step_gate::question, "A model answers this with yes."),
        opt("repeats_max", &step_gate::repeats_max,
            "How often the step is repeated with what was wrong, before the workflow stops.")};
  }
  bool operator==(const step_gate&) const = default;
};

/// A step that a client asks for: of a chain, a branch, a route.
struct workflow_step {
  std::string id;
  std::string name;
  std::string prompt;
  std::string role;
  std::string system_prompt;
  model_choice model;
  maybe<step_gate> gate;
  std::vector<std::string> depends_on;

  static constexpr const char* type_name = "workflow_step";
  static constexpr auto fields() {
    return std::tuple{
        field("id", &workflow_step::id, "Unique in the workflow."),
        opt("name", &workflow_step::name, "For a human; default the id."),
        opt("prompt", &workflow_step::prompt, "What is asked; of a route, what it is for."),
        opt("role", &workflow_step::role, "Who does it; empty: the workflow's role."),
        opt("system_prompt", &workflow_step::system_prompt, "Instead of the role's."),
        opt("model", &workflow_step::model, "Other than the role's."),
        opt("gate", &workflow_step::gate, "What must hold of its output; chains only."),
        opt("depends_on", &workflow_step::depends_on, "Steps whose output it needs.")};
  }
  bool operator==(const workflow_step&) const = default;
};

/// Runs a workflow and answers when it ended.
struct run_workflow {
  workflow_pattern pattern = workflow_pattern::prompt_chaining;
  std::string prompt;
  std::string role;
  std::string overall_role;
  std::vector<workflow_step> steps;
  model_choice model;
  std::string system_prompt;
  std::uint32_t rounds_max = 0;
  maybe<double> threshold;
  std::uint32_t votes = 0;
  std::string workflow;

  static constexpr const char* type_name = "run_workflow";
  static constexpr auto fields() {
    return std::tuple{
        field("pattern", &run_workflow::pattern, "Which pattern."),
        field("prompt", &run_workflow::prompt, "The task."),
        opt("role", &run_workflow::role, "Who does it; empty: the pattern's."),
        opt("overall_role", &run_workflow::overall_role,
            "Who plans, joins and judges; empty: the pattern's."),
        opt("steps", &run_workflow::steps,
            "Steps of a chain, branches, routes or workers; empty: the pattern's own."),
        opt("model", &run_workflow::model, "Other than the roles'."),
        opt("system_prompt", &run_workflow::system_prompt, "Instead of the role's."),
        opt("rounds_max", &run_workflow::rounds_max,
            "Rounds of optimization, 1 to 20; 0: 3. Other patterns: not used."),
        opt("threshold", &run_workflow::threshold, "Score that ends optimization, 0 to 10."),
        opt("votes", &run_workflow::votes,
            "Parallelization: this many answers to the same task, and the majority's; 0: "
            "branches."),
        opt("workflow", &run_workflow::workflow, "Id to give it; empty: a new one.")};
  }
  bool operator==(const run_workflow&) const = default;
};

/// Starts a workflow and answers when it is on disk.
struct submit_workflow : run_workflow {
  static constexpr const char* type_name = "submit_workflow";
  bool operator==(const submit_workflow&) const = default;
};

/// One step as it is now.
struct step_info {
  std::string id;
  std::string name;
  std::string kind;
  std::string role;
  workflow_status status = workflow_status::pending;
  std::string prompt;
  std::string output;
  std::string error;
  std::string conversation;
  std::string session;
  std::uint32_t attempt = 0;
  std::vector<std::string> depends_on;
  maybe<double> score;
  maybe<double> confidence;
  std::string reason;
  std::string model;
  model_usage usage;
  std::vector<agent_act> acts;
  std::int64_t started_at_ms = 0;
  std::int64_t ended_at_ms = 0;

  static constexpr const char* type_name = "step_info";
  static constexpr auto fields() {
    return std::tuple{
        field("id", &step_info::id, "Unique in the workflow."),
        field("name", &step_info::name, "For a human."),
        field("kind", &step_info::kind,
              "step, classify, route, branch, vote, plan, worker, join, generate, evaluate, gate "
              "or execute."),
        opt("role", &step_info::role, "Who does it."),
        field("status", &step_info::status, "Where it is."),
        opt("prompt", &step_info::prompt, "What was asked of the model."),
        opt("output", &step_info::output, "What came of it."),
        opt("error", &step_info::error, "Why it failed."),
        opt("conversation", &step_info::conversation, "The agent's."),
        opt("session", &step_info::session, "Where its programs ran."),
        opt("attempt", &step_info::attempt, "Counts from 1."),
        opt("depends_on", &step_info::depends_on, "Steps whose output it was given."),
        opt("score", &step_info::score, "Of an evaluation, 0 to 10."),
        opt("confidence", &step_info::confidence, "Of a classification, 0 to 1."),
        opt("reason", &step_info::reason, "Why it was decided so."),
        opt("model", &step_info::model, "The model that answered."),
        opt("usage", &step_info::usage, "What the models used."),
        opt("acts", &step_info::acts, "What the agent did on its machine."),
        opt("started_at_ms", &step_info::started_at_ms, "Unix time, ms; 0: not yet."),
        opt("ended_at_ms", &step_info::ended_at_ms, "Unix time, ms; 0: not yet.")};
  }
  bool operator==(const step_info&) const = default;
};

/// One workflow as it is now.
struct workflow_info {
  std::string workflow;
  workflow_pattern pattern = workflow_pattern::prompt_chaining;
  workflow_status status = workflow_status::pending;
  double progress = 0;
  std::string current_step;
  std::string prompt;
  std::string role;
  std::string overall_role;
  std::vector<step_info> steps;
  std::string result;
  std::string chosen;
  std::string error;
  model_usage usage;
  std::int64_t started_at_ms = 0;
  std::int64_t ended_at_ms = 0;
  std::uint32_t resumed = 0;
  std::uint32_t steps_total = 0;

  static constexpr const char* type_name = "workflow_info";
  static constexpr auto fields() {
    return std::tuple{
        field("workflow", &workflow_info::workflow, "Id."),
        field("pattern", &workflow_info::pattern, "Which pattern."),
        field("status", &workflow_info::status, "Where it is."),
        field("progress", &workflow_info::progress, "0 to 100."),
        opt("current_step", &workflow_info::current_step, "Name of the step it is at."),
        field("prompt", &workflow_info::prompt, "The task."),
        opt("role", &workflow_info::role, "Who does it."),
        opt("overall_role", &workflow_info::overall_role, "Who plans, joins and judges."),
        opt("steps", &workflow_info::steps,
            "In the order in which they began; lists leave them "
            "out."),
        opt("result", &workflow_info::result, "What came of it."),
        opt("chosen", &workflow_info::chosen,
            "The step whose output the result is: the route taken, the best version."),
        opt("error", &workflow_info::error, "Why it failed."),
        field("usage", &workflow_info::usage, "Of all steps."),
        field("started_at_ms", &workflow_info::started_at_ms, "Unix time, ms."),
        opt("ended_at_ms", &workflow_info::ended_at_ms, "Unix time, ms; 0: not yet."),
        opt("resumed", &workflow_info::resumed, "How often a new server went on with it."),
        opt("steps_total", &workflow_info::steps_total,
            "Steps it will have had in the end; absent: nobody knows yet.")};
  }
  bool operator==(const workflow_info&) const = default;
};

/// Asks for one workflow with its steps.
struct get_workflow {
  std::string workflow;

  static constexpr const char* type_name = "get_workflow";
  static constexpr auto fields() {
    return std::tuple{field("workflow", &get_workflow::workflow, "Id.")};
  }
  bool operator==(const get_workflow&) const = default;
};

/// Lists workflows.
struct list_workflows {
  bool alive_only = false;
  std::uint32_t limit = 100;

  static constexpr const char* type_name = "list_workflows";
  static constexpr auto fields() {
    return std::tuple{
        opt("alive_only", &list_workflows::alive_only, "Only those that have not ended."),
        opt("limit", &list_workflows::limit, "At most so many, 1 to 1000.")};
  }
  bool operator==(const list_workflows&) const = default;
};

/// Workflows, newest first, without their steps.
struct workflow_list {
  std::vector<workflow_info> workflows;

  static constexpr const char* type_name = "workflow_list";
  static constexpr auto fields() {
    return std::tuple{field("workflows", &workflow_list::workflows, "Newest first.")};
  }
  bool operator==(const workflow_list&) const = default;
};

/// Ends a workflow: calls of models are closed, programs are ended.
struct cancel_workflow {
  std::string workflow;

  static constexpr const char* type_name = "cancel_workflow";
  static constexpr auto fields() {
    return std::tuple{field("workflow", &cancel_workflow::workflow, "Id.")};
  }
  bool operator==(const cancel_workflow&) const = default;
};

/// Lets the steps that are under way end, and begins no other.
struct pause_workflow {
  std::string workflow;

  static constexpr const char* type_name = "pause_workflow";
  static constexpr auto fields() {
    return std::tuple{field("workflow", &pause_workflow::workflow, "Id.")};
  }
  bool operator==(const pause_workflow&) const = default;
};

/// Goes on with a paused workflow, or with an interrupted one from its last finished step.
struct resume_workflow {
  std::string workflow;

  static constexpr const char* type_name = "resume_workflow";
  static constexpr auto fields() {
    return std::tuple{field("workflow", &resume_workflow::workflow, "Id.")};
  }
  bool operator==(const resume_workflow&) const = default;
};

} // namespace berth
