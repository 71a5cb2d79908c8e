// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/translate.hpp"
#include "config/limits.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace berth::http::terraphim {

namespace {

/// What the upstream role editor sends as a prompt when the role has none.
constexpr std::string_view no_prompt_set =
    "This role has no default system prompt. You can define one here.";

/// Names that clients have for one thing.
using aliases = std::vector<const char*>;

/// Members that are an object, or nothing.
json object_of(const json& body, const char* name) {
  auto member = body.find(name);
  return member != body.end() && member->is_object() ? *member : json::object();
}

/// The first of several names that is there and not null.
json first_of(const json& from, const aliases& names) {
  for (const char* name : names)
    if (auto member = from.find(name); member != from.end() && !member->is_null())
      return *member;
  return nullptr;
}

/// A fault of a part, by its place in the whole.
malformed at_place(const std::string& place, malformed why) {
  berth::detail::within(place, why);
  return why;
}

decoded<std::string> first_text(const json& from, const aliases& names) {
  for (const char* name : names) {
    auto text = read_text_member(from, name);
    if (!text || !text->empty())
      return text;
  }
  return std::string{};
}

/// Whether a pattern works on steps of its caller's.
bool takes_steps(workflow_pattern pattern) {
  return pattern != workflow_pattern::optimization && pattern != workflow_pattern::vm_execution;
}

std::string without_slash(std::string url) {
  while (!url.empty() && url.back() == '/')
    url.pop_back();
  return url;
}

/// Clients name endpoints that this server may not have: such a one becomes the role's own, and
/// with it the model, which another endpoint need not serve.
void settle_endpoint(model_choice& choice, const settings& values,
                     std::vector<std::string>& warnings) {
  if (choice.base_url.empty() && choice.provider.empty())
    return;
  auto known = [&](const model_endpoint& each) {
    return (choice.base_url.empty()
            || without_slash(each.base_url) == without_slash(choice.base_url))
           && (choice.provider.empty() || each.provider == choice.provider);
  };
  auto found = std::ranges::find_if(values.models, known);
  if (found != values.models.end()) {
    if (!choice.base_url.empty())
      choice.base_url = found->base_url;
    return;
  }
  std::string named = choice.provider + (choice.provider.empty() ? "" : " ") + choice.base_url;
  warnings.push_back("no endpoint of models is configured as \"" + to_utf8(named.substr(0, 200))
                     + "\": the role's own serves");
  choice.base_url.clear();
  choice.provider.clear();
  choice.model.clear();
}

decoded<model_choice> read_choice(const json& from, const settings& values,
                                  std::vector<std::string>& warnings) {
  json native = json::object();
  for (auto [name, names] : {std::pair{"provider", aliases{"provider", "llm_provider"}},
                             {"base_url", {"base_url", "llm_base_url", "ollama_base_url"}},
                             {"model", {"model", "llm_model", "ollama_model"}},
                             {"temperature", {"temperature", "llm_temperature"}},
                             {"max_tokens", {"max_tokens", "llm_max_tokens"}}})
    if (json member = first_of(from, names); !member.is_null())
      native[name] = std::move(member);
  auto choice = from_json<model_choice>(native);
  if (choice)
    settle_endpoint(*choice, values, warnings);
  return choice;
}

decoded<workflow_step> read_step(const json& from, std::size_t index, const settings& values,
                                 std::vector<std::string>& warnings) {
  if (!from.is_object())
    return malformed{"", "must be a map, is " + detail::kind_of(from)};
  json native = json::object();
  for (const char* name : {"id", "name", "prompt", "role", "system_prompt", "gate", "depends_on"})
    if (json member = first_of(from, {name}); !member.is_null())
      native[name] = std::move(member);
  if (json id = first_of(from, {"id", "step_id", "stepId"}); id.is_string() && !id.empty())
    native["id"] = id;
  else if (id.is_number_integer())
    native["id"] = "step_" + id.dump();
  else if (id.is_null())
    native["id"] = "step_" + std::to_string(index + 1);
  if (json what = first_of(from, {"prompt", "description", "task"}); !what.is_null())
    native["prompt"] = std::move(what);
  auto step = from_json<workflow_step>(native);
  if (!step)
    return step;
  auto choice = read_choice(object_of(from, "llm_config"), values, warnings);
  if (!choice)
    return at_place("llm_config", choice.why());
  step->model = std::move(*choice);
  return step;
}

/// Further text that clients give with a task.
std::string context_of(const json& body, const json& config) {
  std::string all;
  auto add = [&](const json& from, const char* name, const char* headline) {
    json member = first_of(from, {name});
    std::string text = member.is_string()   ? member.get<std::string>()
                       : member.is_object() ? json_text(member)
                                            : "";
    if (!text.empty())
      all += "\n\n" + std::string{headline} + ":\n" + text;
  };
  add(body, "context", "Context");
  add(config, "previousContent", "Previous version");
  add(config, "optimizationPrompt", "To be improved");
  return all;
}

decoded<bool> read_knobs(const json& body, const json& config, run_workflow& to) {
  auto prompt =
      first_text(config, {"system_prompt_override", "system_prompt", "llm_system_prompt"});
  if (!prompt)
    return at_place("config", prompt.why());
  auto own = read_text_member(body, "system_prompt");
  if (!own)
    return own.why();
  to.system_prompt = own->empty() ? std::move(*prompt) : std::move(*own);
  if (to.system_prompt == no_prompt_set)
    to.system_prompt.clear();
  // One web application gives its bounds among the settings of the model.
  json all = object_of(body, "llm_config");
  all.update(config);
  all.update(body);
  json native{{"pattern", name_of(to.pattern)}, {"prompt", ""}};
  for (auto [name, names] :
       {std::pair{"rounds_max", aliases{"rounds_max", "max_iterations", "maxIterations"}},
        {"threshold", {"threshold", "quality_threshold", "qualityThreshold"}},
        {"votes", {"votes"}}})
    if (json member = first_of(all, names); !member.is_null())
      native[name] = std::move(member);
  auto knobs = from_json<run_workflow>(native);
  if (!knobs)
    return knobs.why();
  to.rounds_max = knobs->rounds_max;
  to.votes = knobs->votes;
  to.threshold = knobs->threshold;
  // The web application counts quality in per cent.
  if (to.threshold && *to.threshold > 10 && *to.threshold <= 100)
    *to.threshold /= 10;
  return true;
}

} // namespace

std::optional<workflow_pattern> pattern_of(std::string_view name) {
  std::string plain{name};
  std::ranges::replace(plain, '-', '_');
  static const std::map<std::string, workflow_pattern, std::less<>> names{
      {"prompt_chain", workflow_pattern::prompt_chaining},
      {"prompt_chaining", workflow_pattern::prompt_chaining},
      {"chain", workflow_pattern::prompt_chaining},
      {"route", workflow_pattern::routing},
      {"routing", workflow_pattern::routing},
      {"parallel", workflow_pattern::parallelization},
      {"parallelization", workflow_pattern::parallelization},
      {"orchestrate", workflow_pattern::orchestration},
      {"orchestration", workflow_pattern::orchestration},
      {"orchestrator", workflow_pattern::orchestration},
      {"orchestrator_workers", workflow_pattern::orchestration},
      {"optimize", workflow_pattern::optimization},
      {"optimization", workflow_pattern::optimization},
      {"evaluator", workflow_pattern::optimization},
      {"evaluator_optimizer", workflow_pattern::optimization},
      {"vm_execution", workflow_pattern::vm_execution},
      {"vm_execution_demo", workflow_pattern::vm_execution}};
  auto found = names.find(plain);
  return found == names.end() ? std::nullopt : std::optional{found->second};
}

decoded<workflow_request> read_workflow(const json& body, workflow_pattern pattern,
                                        const settings& values) {
  workflow_request made;
  run_workflow& what = made.what;
  what.pattern = pattern;
  json config = object_of(body, "config");
  for (auto [to, names] : {std::pair{&what.prompt, aliases{"prompt"}},
                           {&what.role, {"role"}},
                           {&what.overall_role, {"overall_role", "overallRole"}},
                           {&what.workflow, {"workflow_id", "workflowId"}}}) {
    auto text = first_text(body, names);
    if (!text)
      return text.why();
    *to = std::move(*text);
  }
  if (what.prompt.find_first_not_of(" \t\r\n") == std::string::npos)
    return malformed{"prompt", "is missing"};
  what.prompt += context_of(body, config);
  if (auto good = read_knobs(body, config, what); !good)
    return good.why();
  auto choice = read_choice(object_of(body, "llm_config"), values, made.warnings);
  if (!choice)
    return at_place("llm_config", choice.why());
  what.model = std::move(*choice);
  json steps = first_of(body, {"steps"});
  if (steps.is_null())
    steps = first_of(object_of(body, "parameters"), {"steps"});
  if (!steps.is_null() && !steps.is_array())
    return malformed{"steps", "must be a list, is " + detail::kind_of(steps)};
  if (steps.size() > limits::workflow_steps_max)
    return malformed{"steps", "must be " + std::to_string(limits::workflow_steps_max) + " at most"};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    auto step = read_step(steps[i], i, values, made.warnings);
    if (!step)
      return at_place("steps[" + std::to_string(i) + "]", step.why());
    what.steps.push_back(std::move(*step));
  }
  // Legacy clients may send the list with every pattern.
  if (!what.steps.empty() && !takes_steps(pattern)) {
    made.warnings.push_back("steps: this pattern has its own, those of the request are not used");
    what.steps.clear();
  }
  if (auto wish = first_of(body, {"async"}); wish.is_boolean())
    made.async = wish.get<bool>();
  return made;
}

} // namespace berth::http::terraphim
