// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/code_blocks.hpp"
#include "actors/agents/tools.hpp"
#include "messages/agents_internal.hpp"
#include "messages/chat.hpp"

#include <deque>
#include <optional>
#include <string>
#include <vector>

/// What an agent has to do next, decided from what was said. Plain logic.
namespace berth {

/// One thing to do on the machine, out of a model's call or of a text.
struct task {
  tool_call call; // of a program in a text: no id
  tool_request request;
  std::string fault; // why it is not done; the model is told
  double confidence = 1;
};

/// What a text asks for.
struct text_plan {
  std::vector<task> tasks;
  /// What was left alone, for a human: doubtful programs, languages that are none.
  std::vector<std::string> left;
  bool has_code = false;
};

/// Sums up.
void add(model_usage& to, const model_usage& more);

/// The model for a turn: the role's, with what the request says otherwise.
model_choice chosen_model(const role_info& role, const model_choice& asked);

/// How an agent acts for a model.
acting chosen_acting(const role_info& role, bool model_knows_tools);

/// The calls of a model's answer, in order. Missing and double ids become new ones, in `answer`
/// too; calls beyond the bound are not done.
std::deque<task> tasks_of_calls(model_answer& answer, const role_info& role);

/// The programs of a model's text that are to run: fenced ones in a language of ours, likely
/// enough.
text_plan tasks_of_text(std::string_view text, const role_info& role);

/// Every fenced program of a text that was sent to be executed, whatever its confidence.
text_plan tasks_of_execute(std::string_view text, const role_info& role);

/// The programs of a user's text, when it plainly asks to run them.
text_plan tasks_of_user(std::string_view text, const role_info& role);

/// What is wrong with the messages of a chat; empty: nothing.
std::string fault_of(const chat& request);

} // namespace berth
