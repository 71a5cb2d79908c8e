// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/brief.hpp"

#include "actors/workflows/bounds.hpp"
#include "actors/workflows/reading.hpp"

#include <algorithm>

namespace berth {

namespace {

/// The marks of an output cannot be ended from within.
std::string without_marks(std::string_view text) {
  constexpr std::string_view mark = "</output";
  std::string made;
  for (;;) {
    std::size_t at = text.find(mark);
    made += text.substr(0, at);
    if (at == std::string_view::npos)
      return made;
    made += "<\\/output";
    text.remove_prefix(at + mark.size());
  }
}

/// The least that is left of an output that is cut.
constexpr std::size_t cut_least = 2 * limits::kib;

} // namespace

brief& brief::part(std::string_view title, std::string_view text) {
  piece made;
  made.head = "# " + std::string{title} + "\n";
  made.body = reading::trimmed(text);
  made.tail = "\n\n";
  pieces_.push_back(std::move(made));
  return *this;
}

brief& brief::output(const step_info& of) {
  piece made;
  made.head =
      "<output of=\"" + of.name + "\"" + (of.role.empty() ? "" : " by=\"" + of.role + "\"") + ">\n";
  made.body = without_marks(reading::trimmed(of.output));
  made.tail = "\n</output>\n\n";
  made.may_be_cut = true;
  pieces_.push_back(std::move(made));
  return *this;
}

brief& brief::ask(std::string_view text) {
  piece made;
  made.body = reading::trimmed(text);
  made.tail = "\n";
  pieces_.push_back(std::move(made));
  return *this;
}

std::string brief::text() const {
  std::size_t whole = 0;
  for (const piece& each : pieces_)
    whole += each.head.size() + each.body.size() + each.tail.size();
  std::size_t most = limits::step_prompt_bytes_max;
  std::size_t excess = whole > most ? whole - most : 0;
  std::string made;
  for (const piece& each : pieces_) {
    made += each.head;
    std::size_t room = each.body.size();
    if (each.may_be_cut && excess > 0 && room > cut_least) {
      room -= std::min(excess, room - cut_least);
      excess -= each.body.size() - room;
    }
    made += reading::shortened(each.body, room);
    made += each.tail;
  }
  return made;
}

std::string title_of(const workflow_step& step) {
  return step.name.empty() ? step.id : step.name;
}

step_order order_of(const run_workflow& request, const workflow_step& step, std::string kind) {
  auto pick = [](const std::string& own, const std::string& all) {
    return own.empty() ? all : own;
  };
  step_order made;
  made.id = step.id;
  made.name = title_of(step);
  made.kind = std::move(kind);
  made.role = pick(step.role, role_of(request));
  made.system_prompt = pick(step.system_prompt, request.system_prompt);
  made.model = request.model;
  if (!step.model.base_url.empty() || !step.model.provider.empty()) {
    made.model.provider = step.model.provider;
    made.model.base_url = step.model.base_url;
  }
  made.model.model = pick(step.model.model, made.model.model);
  if (step.model.temperature)
    made.model.temperature = step.model.temperature;
  if (step.model.max_tokens)
    made.model.max_tokens = step.model.max_tokens;
  made.depends_on = step.depends_on;
  return made;
}

} // namespace berth
