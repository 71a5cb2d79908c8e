// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/turn.hpp"

#include "actors/agents/agent_limits.hpp"
#include "actors/agents/agent_texts.hpp"
#include "actors/ids.hpp"
#include "config/languages.hpp"
#include "config/limits.hpp"

#include <algorithm>
#include <set>

namespace berth {

namespace {

/// From this intent on (one plain phrase and a program) a user asks to run it.
constexpr double plain_intent = 0.3;

/// The contract's spelling for what is not one of our languages: shown, never run.
bool is_prose(const std::string& language) {
  return language == "text" || language == "plaintext" || language == "markdown"
         || language == "md";
}

text_plan plan_of(std::string_view text, const role_info& role, double least, bool every) {
  text_plan plan;
  for (const code_block& block : find_code(text)) {
    if (block.in_line)
      continue;
    auto known = canonical_language(block.language);
    if (!known && (!every || is_prose(block.language)))
      continue;
    plan.has_code = true;
    if (block.confidence + 1e-9 < least) {
      plan.left.push_back(shown_of_doubt(block.language, block.confidence));
      continue;
    }
    execute_code_call call{.language = known.value_or(block.language), .code = block.code};
    task made{.call = {.id = {}, .name = "execute_code", .arguments = {}},
              .request = call,
              .fault = {},
              .confidence = block.confidence};
    if (!known)
      made.fault = "Unsupported language: " + block.language;
    else if (plan.tasks.size() >= limits::programs_per_text_max)
      made.fault = "too many programs in one text";
    else
      made.fault = refusal_of_code(call, role);
    plan.tasks.push_back(std::move(made));
  }
  return plan;
}

} // namespace

void add(model_usage& to, const model_usage& more) {
  to.input_tokens += more.input_tokens;
  to.output_tokens += more.output_tokens;
  to.cost_usd += more.cost_usd;
  to.calls += more.calls;
}

model_choice chosen_model(const role_info& role, const model_choice& asked) {
  model_choice made = role.model;
  if (!asked.provider.empty())
    made.provider = asked.provider;
  if (!asked.base_url.empty())
    made.base_url = asked.base_url;
  if (!asked.model.empty())
    made.model = asked.model;
  if (asked.temperature)
    made.temperature = asked.temperature;
  if (asked.max_tokens)
    made.max_tokens = asked.max_tokens;
  return made;
}

acting chosen_acting(const role_info& role, bool model_knows_tools) {
  if (!role.vm_execution || role.acting == acting::none)
    return acting::none;
  if (role.acting == acting::text || !model_knows_tools)
    return acting::text;
  return acting::tools;
}

std::deque<task> tasks_of_calls(model_answer& answer, const role_info& role) {
  std::deque<task> tasks;
  std::set<std::string> ids;
  for (tool_call& call : answer.tool_calls) {
    if (call.id.empty() || !ids.insert(call.id).second) {
      call.id = "call_" + new_hex_id();
      ids.insert(call.id);
    }
    parsed_call read = tasks.size() < limits::calls_per_round_max
                           ? parse_call(call, role)
                           : parsed_call{.request = {}, .fault = "error: too many calls at once"};
    tasks.push_back({.call = call,
                     .request = std::move(read.request),
                     .fault = std::move(read.fault),
                     .confidence = 1});
  }
  return tasks;
}

text_plan tasks_of_text(std::string_view text, const role_info& role) {
  return plan_of(text, role, role.auto_execute_threshold, false);
}

text_plan tasks_of_execute(std::string_view text, const role_info& role) {
  return plan_of(text, role, 0, true);
}

text_plan tasks_of_user(std::string_view text, const role_info& role) {
  // What the programs themselves say is not asked for.
  std::string around;
  std::size_t at = 0;
  for (const code_block& block : find_code(text)) {
    around += text.substr(at, block.start - at);
    at = block.end;
  }
  around += text.substr(at);
  if (find_intent(around, false).confidence + 1e-9 < plain_intent)
    return {};
  return plan_of(text, role, 0, false);
}

std::string fault_of(const chat& request) {
  if (request.messages.empty())
    return "messages: must not be empty";
  if (request.messages.size() > limits::chat_messages_max)
    return "messages: at most " + std::to_string(limits::chat_messages_max);
  std::size_t sum = request.system_prompt.size();
  for (std::size_t i = 0; i < request.messages.size(); ++i) {
    const chat_message& each = request.messages[i];
    std::string field = "messages[" + std::to_string(i) + "]";
    sum += each.content.size();
    if (each.role == speaker::tool || !each.tool_calls.empty() || !each.tool_call_id.empty())
      return field + ": tool messages are the server's own";
  }
  if (request.messages.back().role == speaker::assistant && !request.execute)
    return "messages: the last one must not be the assistant's";
  if (sum > limits::prompt_bytes_max)
    return "messages: more than " + std::to_string(limits::prompt_bytes_max) + " bytes";
  return {};
}

} // namespace berth
