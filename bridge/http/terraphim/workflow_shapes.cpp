// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/translate.hpp"

#include <algorithm>
#include <array>

/// A workflow in the shapes that clients of the contract read, one for each pattern.
namespace berth::http::terraphim {

namespace {

constexpr double threshold_default = 8.0;

/// The contract's word for a pattern in `metadata`; the one in `result` is ours.
std::string_view metadata_pattern(workflow_pattern pattern) {
  static constexpr std::array<std::string_view, 6> names{"prompt_chaining", "routing",
                                                         "Parallelization", "Orchestration",
                                                         "Optimization",    "vm_execution"};
  return names.at(static_cast<std::size_t>(pattern));
}

std::uint64_t tokens_of(const model_usage& usage) {
  return usage.input_tokens + usage.output_tokens;
}

json token_pair(const model_usage& usage) {
  return {{"input", usage.input_tokens}, {"output", usage.output_tokens}};
}

std::int64_t duration_ms(std::int64_t from, std::int64_t to) {
  return from == 0 ? 0 : std::max<std::int64_t>((to == 0 ? now_ms() : to) - from, 0);
}

json time_or_null(std::int64_t at_ms) {
  return at_ms == 0 ? json(nullptr) : json(to_rfc3339(at_ms));
}

json parsed_or(const std::string& text, json otherwise) {
  auto tree = parse_json(text);
  return tree ? std::move(*tree) : std::move(otherwise);
}

std::vector<const step_info*> steps_of(const workflow_info& info, std::string_view kind) {
  std::vector<const step_info*> all;
  for (const auto& step : info.steps)
    if (step.kind == kind)
      all.push_back(&step);
  return all;
}

/// What every step has, whatever the pattern.
json step_json(const step_info& step, const workflow_info& info) {
  json made{{"id", step.id},
            {"name", step.name},
            {"kind", step.kind},
            {"status", name_of(step.status)},
            {"success", step.status == workflow_status::completed},
            {"role", step.role},
            {"overall_role", info.overall_role},
            {"output", step.output},
            {"error", or_null(step.error)},
            {"agent_id", step.conversation},
            {"session", or_null(step.session)},
            {"model", or_null(step.model)},
            {"attempt", step.attempt},
            {"depends_on", step.depends_on},
            {"reason", or_null(step.reason)},
            {"score", step.score ? json(*step.score) : json(nullptr)},
            {"confidence", step.confidence ? json(*step.confidence) : json(nullptr)},
            {"started_at", time_or_null(step.started_at_ms)},
            {"completed_at", time_or_null(step.ended_at_ms)},
            {"tokens_used", token_pair(step.usage)},
            {"cost", step.usage.cost_usd}};
  put_twice(made, "step_id", step.id);
  put_twice(made, "step_name", step.name);
  put_twice(made, "duration_ms", duration_ms(step.started_at_ms, step.ended_at_ms));
  made["step_role"] = step.role;
  json acts = json::array();
  for (const auto& act : step.acts)
    acts.push_back(to_json(act));
  made["acts"] = std::move(acts);
  return made;
}

/// What every pattern's summary has.
json summary_json(const workflow_info& info) {
  return {{"role", info.role},
          {"overall_role", info.overall_role},
          {"input_prompt", info.prompt},
          {"total_steps", info.steps.size()},
          {"total_tokens", tokens_of(info.usage)},
          {"tokens_used", tokens_of(info.usage)},
          {"total_cost", info.usage.cost_usd},
          {"actual_cost", info.usage.cost_usd},
          {"cost", info.usage.cost_usd},
          {"multi_agent", true}};
}

/// Of equal names the last counts: it is the repeat that a gate asked for.
std::vector<const step_info*> last_of_each_name(std::vector<const step_info*> steps) {
  std::vector<const step_info*> kept;
  for (const step_info* step : steps) {
    auto same = std::ranges::find_if(kept, [&](auto* other) { return other->name == step->name; });
    if (same == kept.end())
      kept.push_back(step);
    else
      *same = step;
  }
  return kept;
}

json chain_json(const workflow_info& info) {
  json steps = json::array();
  auto kept = last_of_each_name(steps_of(info, "step"));
  for (const step_info* step : kept)
    steps.push_back(step_json(*step, info));
  json summary = summary_json(info);
  summary["total_steps"] = kept.size();
  summary["specialized_agents"] = true;
  return {{"steps", std::move(steps)},
          {"final_result", info.result},
          {"execution_summary", std::move(summary)}};
}

/// The first line of a text without the marks of a headline.
std::string title_of(const std::string& text) {
  std::string line = text.substr(0, text.find('\n'));
  line.erase(0, std::min(line.find_first_not_of("# *"), line.size()));
  return to_utf8(line.substr(0, 120));
}

json routing_json(const workflow_info& info) {
  json analysis = json::object();
  double confidence = 0;
  for (const step_info* step : steps_of(info, "classify")) {
    analysis = parsed_or(step->output, json::object());
    confidence = step->confidence.value_or(0);
  }
  if (!analysis.is_object())
    analysis = json::object();
  json route{{"route_id", info.chosen}, {"confidence", confidence}};
  for (const step_info* step : steps_of(info, "route")) {
    route["reasoning"] = step->reason;
    route["agent_id"] = step->conversation;
    route["role"] = step->role;
    route["model"] = step->model;
  }
  put_twice(route, "route_id", info.chosen);
  double estimate = info.usage.cost_usd;
  json summary = summary_json(info);
  return {{"task_analysis",
           {{"complexity", analysis.value("complexity", json(nullptr))},
            {"estimated_cost", estimate},
            {"analysis_method", analysis.value("method", json(nullptr))}}},
          {"selected_route", std::move(route)},
          {"result", info.result},
          {"title", title_of(info.result)},
          {"body", info.result},
          {"execution_summary", std::move(summary)}};
}

json parallel_json(const workflow_info& info) {
  json tasks = json::array();
  for (const char* kind : {"branch", "vote"})
    for (const step_info* step : steps_of(info, kind)) {
      json one = step_json(*step, info);
      put_twice(one, "task_id", step->id);
      one["perspective"] = step->name;
      one["description"] = step->reason;
      one["result"] = step->output.empty() ? step->error : step->output;
      one["tokens_used"] = tokens_of(step->usage);
      one["chosen"] = step->id == info.chosen;
      tasks.push_back(std::move(one));
    }
  json summary = summary_json(info);
  summary["perspectives_count"] = tasks.size();
  return {{"parallel_tasks", std::move(tasks)},
          {"aggregated_result", info.result},
          {"chosen", or_null(info.chosen)},
          {"execution_summary", std::move(summary)}};
}

json orchestration_json(const workflow_info& info) {
  const step_info* plan = nullptr;
  for (const step_info* step : steps_of(info, "plan"))
    if (step->status == workflow_status::completed)
      plan = step;
  json workers = json::array();
  for (const step_info* step : steps_of(info, "worker")) {
    json one = step_json(*step, info);
    put_twice(one, "worker_name", step->name);
    put_twice(one, "worker_id", step->id);
    one["task_description"] = step->reason;
    one["result"] = step->output.empty() ? step->error : step->output;
    one["tokens_used"] = tokens_of(step->usage);
    workers.push_back(std::move(one));
  }
  json summary = summary_json(info);
  summary["orchestrator_id"] = plan != nullptr ? json(plan->conversation) : json(nullptr);
  summary["workers_count"] = workers.size();
  return {{"orchestrator_plan", plan != nullptr ? plan->output : ""},
          {"plan", plan != nullptr ? parsed_or(plan->output, nullptr) : json(nullptr)},
          {"worker_results", std::move(workers)},
          {"final_synthesis", info.result},
          {"execution_summary", std::move(summary)}};
}

json optimization_json(const workflow_info& info, maybe<double> threshold) {
  auto generated = steps_of(info, "generate");
  auto evaluated = steps_of(info, "evaluate");
  json rounds = json::array();
  maybe<double> best;
  for (std::size_t i = 0; i < generated.size(); ++i) {
    const step_info* judge = i < evaluated.size() ? evaluated[i] : nullptr;
    double cost = generated[i]->usage.cost_usd + (judge != nullptr ? judge->usage.cost_usd : 0);
    json one{{"iteration", i + 1},
             {"generated_content", generated[i]->output},
             {"evaluation_feedback", judge != nullptr ? judge->reason : ""},
             {"quality_score", nullptr},
             {"generator_tokens", tokens_of(generated[i]->usage)},
             {"evaluator_tokens", judge != nullptr ? tokens_of(judge->usage) : 0},
             {"iteration_cost", cost},
             {"chosen", generated[i]->id == info.chosen}};
    if (judge != nullptr && judge->score) {
      one["quality_score"] = *judge->score;
      best = std::max(best.value_or(0), *judge->score);
    }
    rounds.push_back(std::move(one));
  }
  double wanted = threshold.value_or(threshold_default);
  json summary = summary_json(info);
  summary["generator_id"] = generated.empty() ? json(nullptr) : json(generated[0]->conversation);
  summary["evaluator_id"] = evaluated.empty() ? json(nullptr) : json(evaluated[0]->conversation);
  summary["iterations_completed"] = rounds.size();
  summary["best_quality_score"] = best ? json(*best) : json(nullptr);
  summary["quality_threshold"] = wanted;
  // The web application shows per cent.
  json quality{{"overall", best.value_or(0) * 10}};
  std::string initial = generated.empty() ? "" : generated[0]->output;
  return {{"iterations", std::move(rounds)},
          {"initial_content", initial},
          {"content", info.result},
          {"optimized_content", info.result},
          {"final_content", info.result},
          {"optimization_complete", best && *best >= wanted},
          {"quality_metrics", std::move(quality)},
          {"execution_summary", std::move(summary)}};
}

json vm_execution_json(const workflow_info& info) {
  json summary = summary_json(info);
  std::string code;
  for (const step_info* step : steps_of(info, "generate"))
    code = step->output;
  std::size_t found = 0;
  std::size_t ran = 0;
  for (const step_info* step : steps_of(info, "execute")) {
    summary["agent_id"] = step->conversation;
    summary["session"] = or_null(step->session);
    found += step->acts.size();
    ran += static_cast<std::size_t>(std::ranges::count_if(
        step->acts, [](const agent_act& act) { return act.ended.has_value(); }));
  }
  summary["code_blocks_generated"] = found;
  summary["code_blocks_executed"] = ran;
  summary["vm_execution_enabled"] = true;
  return {{"llm_generated_code", code},
          {"execution_output", info.result},
          {"execution_summary", std::move(summary)}};
}

json shape_of(const workflow_info& info, maybe<double> threshold) {
  switch (info.pattern) {
  case workflow_pattern::prompt_chaining:
    return chain_json(info);
  case workflow_pattern::routing:
    return routing_json(info);
  case workflow_pattern::parallelization:
    return parallel_json(info);
  case workflow_pattern::orchestration:
    return orchestration_json(info);
  case workflow_pattern::optimization:
    return optimization_json(info, threshold);
  case workflow_pattern::vm_execution:
    return vm_execution_json(info);
  }
  return json::object();
}

/// Names for the id that clients read; the JavaScript client takes it for its session.
void put_ids(json& to, const std::string& workflow) {
  put_twice(to, "workflow_id", workflow);
  put_twice(to, "session_id", workflow);
}

std::string failure_of(const workflow_info& info) {
  if (!info.error.empty())
    return info.error;
  return info.status == workflow_status::completed || !is_terminal(info.status)
             ? ""
             : "the workflow was " + std::string{name_of(info.status)};
}

json steps_json(const workflow_info& info) {
  json all = json::array();
  for (const auto& step : info.steps)
    all.push_back(step_json(step, info));
  return all;
}

} // namespace

json result_json(const workflow_info& info, maybe<double> threshold) {
  json made = shape_of(info, threshold);
  made["pattern"] = name_of(info.pattern);
  if (!made.contains("final_result"))
    made["final_result"] = info.result;
  made["finalResult"] = made["final_result"];
  if (!made.contains("content"))
    made["content"] = info.result;
  return made;
}

json workflow_json(const workflow_info& info, const workflow_request& asked) {
  bool alive = !is_terminal(info.status);
  bool good = alive || info.status == workflow_status::completed;
  bool told = good || !info.result.empty() || !info.steps.empty();
  std::int64_t took = duration_ms(info.started_at_ms, info.ended_at_ms);
  std::string overall =
      asked.what.overall_role.empty() ? info.overall_role : asked.what.overall_role;
  json metadata{{"pattern", metadata_pattern(info.pattern)},
                {"steps", info.steps.size()},
                {"role", info.role},
                {"overall_role", overall},
                {"overallRole", overall},
                {"warnings", asked.warnings}};
  put_twice(metadata, "execution_time_ms", took);
  metadata["executionTime"] = took;
  json made{{"success", good},
            {"status", name_of(info.status)},
            {"result", alive || !told ? json(nullptr) : result_json(info, asked.what.threshold)},
            {"error", or_null(failure_of(info))},
            {"metadata", std::move(metadata)}};
  // The JavaScript client takes the whole answer for a chain's result when it has a WebSocket.
  if (info.pattern == workflow_pattern::prompt_chaining && made["result"].is_object())
    for (const char* name : {"steps", "execution_summary"})
      made[name] = made["result"][name];
  put_ids(made, info.workflow);
  return made;
}

json workflow_failed_json(const error& why, const workflow_request& asked) {
  refusal told = to_refusal(why);
  workflow_info nothing;
  nothing.workflow = asked.what.workflow;
  nothing.pattern = asked.what.pattern;
  nothing.status = workflow_status::failed;
  nothing.role = asked.what.role;
  nothing.overall_role = asked.what.overall_role;
  nothing.error = told.detail;
  json made = workflow_json(nothing, asked);
  made["code"] = told.name;
  made["message"] = told.detail;
  return made;
}

json status_json(const workflow_info& info) {
  bool ended = is_terminal(info.status);
  json made{{"id", info.workflow},
            {"pattern", name_of(info.pattern)},
            {"status", name_of(info.status)},
            {"progress", info.progress},
            {"role", info.role},
            {"overall_role", info.overall_role},
            {"prompt", info.prompt},
            {"result", ended && !info.result.empty() ? result_json(info) : json(nullptr)},
            {"error", or_null(failure_of(info))},
            {"steps", steps_json(info)},
            {"usage", to_json(info.usage)},
            {"total_tokens", tokens_of(info.usage)},
            {"cost", info.usage.cost_usd},
            {"resumed", info.resumed}};
  put_ids(made, info.workflow);
  put_twice(made, "current_step", or_null(info.current_step));
  if (info.steps_total > 0)
    put_twice(made, "total_steps", info.steps_total);
  put_twice(made, "started_at", time_or_null(info.started_at_ms));
  put_twice(made, "completed_at", time_or_null(info.ended_at_ms));
  return made;
}

json trace_json(const workflow_info& info) {
  json made{{"status", name_of(info.status)},
            {"pattern", name_of(info.pattern)},
            {"steps", steps_json(info)},
            {"timeline",
             {{"started_at", time_or_null(info.started_at_ms)},
              {"completed_at", time_or_null(info.ended_at_ms)}}},
            {"performance",
             {{"execution_time_ms", duration_ms(info.started_at_ms, info.ended_at_ms)},
              {"progress", info.progress},
              {"total_tokens", tokens_of(info.usage)},
              {"total_cost", info.usage.cost_usd},
              {"model_calls", info.usage.calls}}}};
  put_ids(made, info.workflow);
  return made;
}

} // namespace berth::http::terraphim
