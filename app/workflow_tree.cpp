// SPDX-License-Identifier: Apache-2.0
#include "app/workflow_tree.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace berth {

namespace {

using look = workflow_line::look;

/// The end of a step's words that is kept for drawing.
constexpr std::size_t output_kept = 4096;
/// Notes of a step that are drawn; the newest.
constexpr std::size_t notes_shown = 6;

std::string on_one_line(std::string_view text) {
  std::string made;
  for (char c : text) {
    bool blank = static_cast<unsigned char>(c) <= 0x20 || c == 0x7f;
    if (!blank)
      made += c;
    else if (!made.empty() && made.back() != ' ')
      made += ' ';
  }
  return made;
}

std::string first_line(std::string_view text) {
  return on_one_line(text.substr(0, text.find('\n')));
}

std::string seconds(std::int64_t ms) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f s",
                static_cast<double>(std::max<std::int64_t>(0, ms)) / 1000);
  return text.data();
}

std::string in_dollars(double amount) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "$%.4f", amount);
  return text.data();
}

std::string in_tokens(std::uint64_t count) {
  return std::to_string(count) + (count == 1 ? " token" : " tokens");
}

std::uint64_t tokens_of(const model_usage& usage) {
  return usage.input_tokens + usage.output_tokens;
}

look look_of(workflow_status status) {
  switch (status) {
  case workflow_status::pending:
  case workflow_status::paused:
    return look::waiting;
  case workflow_status::running:
    return look::running;
  case workflow_status::completed:
    return look::done;
  default:
    return look::failed;
  }
}

const char* sign_of(workflow_status status) {
  switch (status) {
  case workflow_status::pending:
  case workflow_status::paused:
    return "○";
  case workflow_status::running:
    return "●";
  case workflow_status::completed:
    return "✓";
  case workflow_status::skipped:
    return "-";
  default:
    return "✗";
  }
}

/// What the workflow itself tells; agents tell of their turns in the same stream.
bool is_of_workflow(progress_kind kind) {
  switch (kind) {
  case progress_kind::started:
  case progress_kind::step_started:
  case progress_kind::step_ended:
  case progress_kind::paused:
  case progress_kind::resumed:
  case progress_kind::ended:
    return true;
  default:
    return false;
  }
}

workflow_status status_of(std::string_view name) {
  return from_name<workflow_status>(name).value_or(workflow_status::running);
}

void add_to_end(std::string& to, std::string_view more) {
  to += more;
  if (to.size() > 2 * output_kept)
    to.erase(0, to.size() - output_kept);
}

/// The last lines of a text that have anything on them.
std::vector<std::string> last_lines(std::string_view text, std::size_t most) {
  std::vector<std::string> lines;
  while (!text.empty() && lines.size() < most) {
    std::size_t at = text.rfind('\n');
    std::size_t from = at == std::string_view::npos ? 0 : at + 1;
    std::string line = on_one_line(text.substr(from));
    if (!line.empty())
      lines.insert(lines.begin(), std::move(line));
    text = text.substr(0, at == std::string_view::npos ? 0 : at);
  }
  return lines;
}

} // namespace

workflow_tree::step& workflow_tree::of(const std::string& id) {
  auto found = std::ranges::find(steps_, id, &step::id);
  if (found != steps_.end())
    return *found;
  steps_.push_back({.id = id, .name = id});
  return steps_.back();
}

void workflow_tree::remark(const progress_event& event, look how) {
  note made{.text = on_one_line(event.text), .how = how};
  if (event.step.empty())
    notes_.push_back(std::move(made));
  else
    of(event.step).notes.push_back(std::move(made));
}

void workflow_tree::end_step(step& which, const progress_event& event) {
  which.status = status_of(event.name);
  which.ended_ms = event.at_ms;
  which.output.clear();
  if (which.status != workflow_status::completed)
    which.why = first_line(event.text);
  // What came to the sum with this event is the step's.
  if (event.usage && tokens_of(*event.usage) >= tokens_of(usage_))
    which.tokens += tokens_of(*event.usage) - tokens_of(usage_);
}

void workflow_tree::take(const progress_event& event) {
  id_ = event.id;
  last_news_ms_ = event.at_ms;
  bool is_turn = event.kind == progress_kind::started || event.kind == progress_kind::ended;
  if (is_turn && !event.step.empty())
    return;
  switch (event.kind) {
  case progress_kind::started:
    pattern_ = event.name;
    status_ = workflow_status::running;
    began_ms_ = event.at_ms;
    break;
  case progress_kind::step_started: {
    step& which = of(event.step);
    which.name = event.name;
    which.role = event.text;
    which.attempt = std::max(1U, event.number);
    which.status = workflow_status::running;
    which.began_ms = event.at_ms;
    which.output.clear();
    break;
  }
  case progress_kind::token:
  case progress_kind::output:
    add_to_end(of(event.step).output, event.text);
    break;
  case progress_kind::code: {
    step& which = of(event.step);
    which.output.clear();
    which.notes.push_back({.id = event.job, .text = event.name + ": " + first_line(event.text)});
    break;
  }
  case progress_kind::code_ended: {
    auto& notes = of(event.step).notes;
    auto ran = std::ranges::find_if(
        notes, [&](const note& each) { return !event.job.empty() && each.id == event.job; });
    if (ran == notes.end())
      ran = notes.insert(notes.end(), note{.text = "program"});
    ran->text += " → " + on_one_line(event.name);
    ran->how = event.name == "exited" || event.name == "completed" ? look::aside : look::warning;
    break;
  }
  case progress_kind::step_ended:
    end_step(of(event.step), event);
    break;
  case progress_kind::decision:
    remark(event, look::aside);
    break;
  case progress_kind::warning:
    remark(event, look::warning);
    break;
  case progress_kind::paused:
    status_ = workflow_status::paused;
    break;
  case progress_kind::resumed:
    status_ = workflow_status::running;
    break;
  case progress_kind::ended:
    status_ = status_of(event.name);
    outcome_ = event.text;
    break;
  default:
    break;
  }
  progress_ = std::max(progress_, event.progress);
  if (event.usage && is_of_workflow(event.kind))
    usage_ = *event.usage;
}

void workflow_tree::take(const workflow_info& info) {
  id_ = info.workflow;
  pattern_ = name_of(info.pattern);
  status_ = info.status;
  progress_ = info.progress;
  usage_ = info.usage;
  outcome_ = info.error.empty() ? info.result : info.error;
  began_ms_ = info.started_at_ms;
  last_news_ms_ = info.ended_at_ms;
  for (const step_info& each : info.steps) {
    step& which = of(each.id);
    which.name = each.name;
    which.role = each.role;
    which.status = each.status;
    which.why = first_line(each.error);
    which.attempt = std::max(1U, each.attempt);
    which.began_ms = each.started_at_ms;
    which.ended_ms = each.ended_at_ms;
    which.tokens = tokens_of(each.usage);
    last_news_ms_ = std::max({last_news_ms_, each.started_at_ms, each.ended_at_ms});
    which.notes.clear();
    for (const agent_act& act : each.acts) {
      std::string ended = !act.refused.empty() ? " → refused: " + first_line(act.refused)
                          : act.ended ? " → " + std::string{berth::name_of(act.ended->state)}
                                      : "";
      which.notes.push_back({.text = (act.language.empty() ? act.tool : act.language) + ": "
                                     + first_line(act.code) + ended});
    }
    if (each.score) {
      std::array<char, 32> score{};
      std::snprintf(score.data(), score.size(), "score %.3g", *each.score);
      which.notes.push_back({.text = score.data()});
    }
  }
}

std::string workflow_tree::heading(std::int64_t now_ms) const {
  std::array<char, 16> percent{};
  std::snprintf(percent.data(), percent.size(), "%3.0f%%", progress_);
  std::string text = id_ + "  " + (pattern_.empty() ? "" : pattern_ + "  ")
                     + std::string{name_of(status_)} + "  " + percent.data() + "  "
                     + in_tokens(tokens_of(usage_));
  if (usage_.cost_usd > 0)
    text += "  " + in_dollars(usage_.cost_usd);
  if (began_ms_ > 0)
    text += "  " + seconds(now_ms - began_ms_);
  return text;
}

void workflow_tree::draw_step(const step& which, bool last, std::int64_t now_ms,
                              std::size_t output_lines, std::vector<workflow_line>& to) const {
  std::string text = std::string{sign_of(which.status)} + " " + on_one_line(which.name);
  if (!which.role.empty())
    text += "  (" + on_one_line(which.role) + ")";
  if (which.attempt > 1)
    text += "  attempt " + std::to_string(which.attempt);
  if (which.tokens > 0)
    text += "  " + in_tokens(which.tokens);
  if (which.began_ms > 0)
    text += "  "
            + seconds((which.ended_ms > which.began_ms ? which.ended_ms : now_ms) - which.began_ms);
  if (!which.why.empty())
    text += "  " + which.why;
  to.push_back({last ? "└─ " : "├─ ", look_of(which.status), std::move(text)});
  std::string inside = last ? "     " : "│    ";
  std::size_t from = which.notes.size() - std::min(which.notes.size(), notes_shown);
  for (std::size_t i = from; i < which.notes.size(); ++i)
    to.push_back({inside, which.notes[i].how, which.notes[i].text});
  if (which.status == workflow_status::running)
    for (std::string& line : last_lines(which.output, output_lines))
      to.push_back({inside, look::output, std::move(line)});
}

std::vector<workflow_line> workflow_tree::draw(std::int64_t now_ms,
                                               std::size_t output_lines) const {
  if (now_ms == 0 || ended())
    now_ms = last_news_ms_;
  std::vector<workflow_line> lines;
  lines.push_back({"", look::heading, heading(now_ms)});
  std::size_t from = notes_.size() - std::min(notes_.size(), notes_shown);
  for (std::size_t i = from; i < notes_.size(); ++i)
    lines.push_back({steps_.empty() ? "  " : "│ ", notes_[i].how, notes_[i].text});
  for (const step& each : steps_)
    draw_step(each, &each == &steps_.back(), now_ms, output_lines, lines);
  return lines;
}

std::string line_of(const progress_event& event) {
  std::string step = event.step.empty() ? "" : on_one_line(event.step) + ": ";
  switch (event.kind) {
  case progress_kind::started:
    return event.id + " " + event.name + " started";
  case progress_kind::step_started:
    return step + "started" + (event.text.empty() ? "" : ", by " + on_one_line(event.text));
  case progress_kind::step_ended:
    return step + event.name + (event.name == "completed" ? "" : ": " + first_line(event.text));
  case progress_kind::code:
    return step + "runs " + on_one_line(event.name) + ": " + first_line(event.text);
  case progress_kind::code_ended:
    return step + "program " + on_one_line(event.name);
  case progress_kind::decision:
    return step + on_one_line(event.text);
  case progress_kind::warning:
    return step + "warning: " + on_one_line(event.text);
  case progress_kind::paused:
    return "paused";
  case progress_kind::resumed:
    return "resumed";
  case progress_kind::ended:
    return std::string{event.id} + " " + event.name;
  default:
    return {};
  }
}

} // namespace berth
