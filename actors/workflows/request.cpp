// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/request.hpp"

#include "actors/agents/progress.hpp"
#include "actors/ids.hpp"
#include "actors/workflows/bounds.hpp"
#include "actors/workflows/teams.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <set>

namespace berth {

namespace {

error malformed_member(const std::string& member, const std::string& why) {
  return fail(ec::malformed, member + ": " + why);
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

error check_short(const std::string& member, std::string_view text) {
  if (text.size() > limits::name_bytes_max)
    return fail(ec::too_large, member + ": " + std::to_string(text.size())
                                   + " bytes exceed the limit of "
                                   + std::to_string(limits::name_bytes_max));
  auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::ranges::any_of(text, is_control))
    return malformed_member(member, "must not contain control characters");
  return {};
}

error check_model(const std::string& member, const model_choice& model) {
  if (model.temperature && !(*model.temperature >= 0 && *model.temperature <= 2))
    return malformed_member(member + ".temperature", "must be from 0 to 2");
  if (model.max_tokens && *model.max_tokens == 0)
    return malformed_member(member + ".max_tokens", "must be at least 1");
  return {};
}

error check_gate(const std::string& member, const step_gate& gate) {
  if (gate.contains.empty() && gate.matches.empty() && gate.question.empty())
    return malformed_member(member, "needs one of contains, matches, question");
  if (!gate.matches.empty()) {
    RE2 pattern{gate.matches, RE2::Quiet};
    if (!pattern.ok())
      return malformed_member(member + ".matches", pattern.error());
  }
  if (gate.repeats_max > limits::gate_repeats_max)
    return fail(ec::too_large,
                member + ".repeats_max: at most " + std::to_string(limits::gate_repeats_max));
  return {};
}

error check_step(const std::string& member, const workflow_step& step, bool may_have_gate) {
  if (is_blank(step.id))
    return malformed_member(member + ".id", "must not be empty");
  for (auto [name, text] : {std::pair{".id", &step.id},
                            {".name", &step.name},
                            {".role", &step.role},
                            {".model.model", &step.model.model}})
    if (error why = check_short(member + name, *text))
      return why;
  if (step.gate && !may_have_gate)
    return malformed_member(member + ".gate", "only steps of prompt_chaining have gates");
  if (step.gate)
    if (error why = check_gate(member + ".gate", *step.gate))
      return why;
  return check_model(member + ".model", step.model);
}

/// Ids that a pattern gives to steps of its own.
std::set<std::string> reserved_ids(const run_workflow& request) {
  switch (request.pattern) {
  case workflow_pattern::routing:
    return {"classify"};
  case workflow_pattern::parallelization:
    return {"aggregate"};
  case workflow_pattern::orchestration:
    return {"plan", "plan.repair", "plan.default", "synthesis"};
  case workflow_pattern::prompt_chaining:
    break;
  default:
    return {};
  }
  std::set<std::string> ids;
  for (const workflow_step& step : request.steps)
    for (std::uint32_t n = 1; step.gate && n <= step.gate->repeats_max + 1; ++n) {
      std::string id = n == 1 ? step.id : step.id + "." + std::to_string(n);
      ids.insert(id + ".gate");
      if (n > 1)
        ids.insert(id);
    }
  return ids;
}

error check_needs(const run_workflow& request) {
  if (std::string fault = fault_of_needs(request.steps); !fault.empty())
    return malformed_member("steps", fault);
  if (request.pattern != workflow_pattern::prompt_chaining)
    return {};
  std::set<std::string> before;
  for (const workflow_step& step : request.steps) {
    for (const std::string& need : step.depends_on)
      if (!before.contains(need))
        return malformed_member("steps", step.id + " depends on " + need + ", which comes later");
    before.insert(step.id);
  }
  return {};
}

std::size_t most_steps(workflow_pattern pattern) {
  switch (pattern) {
  case workflow_pattern::orchestration:
    return limits::workers_max;
  case workflow_pattern::optimization:
  case workflow_pattern::vm_execution:
    return 0;
  default:
    return limits::workflow_steps_max - 1;
  }
}

error check_steps(const run_workflow& request) {
  std::size_t most = most_steps(request.pattern);
  if (request.steps.size() > most)
    return fail(ec::too_large, "steps: this pattern takes at most " + std::to_string(most));
  bool is_chain = request.pattern == workflow_pattern::prompt_chaining;
  std::set<std::string> ids = reserved_ids(request);
  std::size_t in_the_end = 0;
  for (std::size_t i = 0; i < request.steps.size(); ++i) {
    const workflow_step& step = request.steps[i];
    std::string member = "steps[" + std::to_string(i) + "]";
    if (error why = check_step(member, step, is_chain))
      return why;
    if (!ids.insert(step.id).second)
      return malformed_member(member + ".id", step.id + " is given twice or is the pattern's own");
    std::size_t attempts = 1 + (step.gate ? step.gate->repeats_max : 0);
    in_the_end += attempts * (step.gate && !step.gate->question.empty() ? 2 : 1);
    if (request.pattern == workflow_pattern::orchestration && is_blank(step.prompt))
      return malformed_member(member + ".prompt", "a worker needs a task");
  }
  if (in_the_end > limits::workflow_steps_max)
    return fail(ec::too_large, "steps: with their repeats " + std::to_string(in_the_end)
                                   + ", at most " + std::to_string(limits::workflow_steps_max));
  return check_needs(request);
}

std::size_t bytes_of(const run_workflow& request) {
  std::size_t all = request.prompt.size() + request.system_prompt.size();
  for (const workflow_step& step : request.steps) {
    all += step.prompt.size() + step.system_prompt.size() + step.id.size() + step.name.size();
    if (step.gate)
      all += step.gate->contains.size() + step.gate->matches.size() + step.gate->question.size();
  }
  return all;
}

} // namespace

bool is_workflow_id(std::string_view text) {
  if (!text.starts_with(workflow_id_prefix) || text.size() > 64
      || text.size() == workflow_id_prefix.size())
    return false;
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
           || c == '_';
  });
}

std::string new_workflow_id() {
  std::string digits = new_hex_id() + new_hex_id() + new_hex_id();
  digits.resize(32);
  digits[12] = '4';
  digits[16] = "89ab"[(digits[16] >= 'a' ? digits[16] - 'a' + 10 : digits[16] - '0') & 3];
  for (std::size_t at : {20, 16, 12, 8})
    digits.insert(at, "-");
  return std::string{workflow_id_prefix} + digits;
}

error check_workflow(const run_workflow& request) {
  if (is_blank(request.prompt))
    return malformed_member("prompt", "must not be empty");
  if (std::size_t size = bytes_of(request); size > limits::workflow_request_bytes_max)
    return fail(ec::too_large, "prompt: with all steps " + std::to_string(size)
                                   + " bytes, which exceed the limit of "
                                   + std::to_string(limits::workflow_request_bytes_max));
  for (auto [name, text] : {std::pair{"role", &request.role},
                            {"overall_role", &request.overall_role},
                            {"model.model", &request.model.model},
                            {"model.base_url", &request.model.base_url}})
    if (error why = check_short(name, *text))
      return why;
  if (!request.workflow.empty() && !is_workflow_id(request.workflow))
    return malformed_member("workflow", "must be \"workflow_\" and letters, digits, - or _, 64 "
                                        "characters in all");
  if (request.rounds_max > limits::optimization_rounds_max)
    return fail(ec::too_large,
                "rounds_max: at most " + std::to_string(limits::optimization_rounds_max));
  if (request.threshold && !(*request.threshold >= 0 && *request.threshold <= 10))
    return malformed_member("threshold", "must be from 0 to 10");
  if (request.votes > limits::workflow_steps_max - 1)
    return fail(ec::too_large, "votes: at most " + std::to_string(limits::workflow_steps_max - 1));
  if (request.votes > 0 && !request.steps.empty())
    return malformed_member("votes", "either votes or steps");
  if (error why = check_model("model", request.model))
    return why;
  return check_steps(request);
}

} // namespace berth
