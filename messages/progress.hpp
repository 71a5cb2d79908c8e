// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/model.hpp"

/// What agents and workflows tell while they work.
namespace berth {

/// What happened.
enum class progress_kind : std::uint8_t {
  /// A turn of a conversation or a run of a workflow begins.
  started,
  /// A model is asked; `number` is the round.
  round,
  /// A piece of what a model says.
  token,
  /// A model wants a tool; `name` is the tool, `text` its arguments.
  tool_call,
  /// What a tool gave; `text` is what the model is told.
  tool_result,
  /// A program runs; `name` is its language, `text` the program, `job` its id.
  code,
  /// A running program wrote; `name` is stdout or stderr.
  output,
  /// A program ended; `name` is its state, `job` its id.
  code_ended,
  /// A step of a workflow begins; `step` says which, `name` how it is called.
  step_started,
  /// A step ended; `name` is its status, `text` its output.
  step_ended,
  /// Something decided: a gate, a route, a score; `text` says what and why.
  decision,
  /// Something went wrong and was gone on from.
  warning,
  paused,
  resumed,
  /// The end; `name` is the status, `text` the answer or the error. Nothing follows.
  ended
};
inline constexpr std::array<std::string_view, 15> progress_kind_names{
    "started",  "round",   "token",      "tool_call",    "tool_result",
    "code",     "output",  "code_ended", "step_started", "step_ended",
    "decision", "warning", "paused",     "resumed",      "ended"};
constexpr std::span<const std::string_view> enum_names(progress_kind) {
  return progress_kind_names;
}

/// One event of an agent or a workflow. Published on `agent.<id>` and `workflow.<id>`.
struct progress_event {
  std::string id;
  std::uint64_t seq = 0;
  progress_kind kind = progress_kind::started;
  std::int64_t at_ms = 0;
  std::string step;
  std::string name;
  std::string text;
  std::string job;
  std::uint32_t number = 0;
  double progress = 0;
  maybe<model_usage> usage;
  std::string turn;
  std::uint32_t steps_total = 0;

  static constexpr const char* type_name = "progress_event";
  static constexpr auto fields() {
    return std::tuple{
        field("id", &progress_event::id, "Of the conversation or workflow."),
        field("seq", &progress_event::seq,
              "Counts up by one in each stream from 1; a jump is a gap: `progress` fills it."),
        field("kind", &progress_event::kind, "What happened."),
        field("at_ms", &progress_event::at_ms, "Unix time, ms."),
        opt("step", &progress_event::step, "Step of the workflow."),
        opt("name", &progress_event::name, "As `kind` says."),
        opt("text", &progress_event::text, "As `kind` says."),
        opt("job", &progress_event::job, "Id of the job."),
        opt("number", &progress_event::number, "As `kind` says."),
        opt("progress", &progress_event::progress, "Of a workflow, 0 to 100."),
        opt("usage", &progress_event::usage, "What the models used so far."),
        opt("turn", &progress_event::turn,
            "Of a conversation that starts or ended: the chat that it is the turn of."),
        opt("steps_total", &progress_event::steps_total,
            "Of a workflow: the steps it will have had in the end; absent: nobody knows yet.")};
  }
  bool operator==(const progress_event&) const = default;
};

/// Reads events of a conversation or workflow; waits for news when there is none.
struct read_progress {
  std::string id;
  std::uint64_t after = 0;
  std::uint32_t wait_ms = 0;
  std::uint32_t events_max = 0;

  static constexpr const char* type_name = "read_progress";
  static constexpr auto fields() {
    return std::tuple{
        field("id", &read_progress::id, "Of the conversation or workflow."),
        opt("after", &read_progress::after, "Only events after this number; 0: from the first."),
        opt("wait_ms", &read_progress::wait_ms, "How long to wait for news; at most 30000."),
        opt("events_max", &read_progress::events_max, "Events wanted; 0: the server's choice.")};
  }
  bool operator==(const read_progress&) const = default;
};

/// Events in order.
struct progress_page {
  std::string id;
  std::vector<progress_event> events;
  std::uint64_t lost = 0;
  std::uint64_t last_seq = 0;
  bool ended = false;

  static constexpr const char* type_name = "progress_page";
  static constexpr auto fields() {
    return std::tuple{
        field("id", &progress_page::id, "Of the conversation or workflow."),
        field("events", &progress_page::events, "In order."),
        field("lost", &progress_page::lost,
              "Events after `after` that were let go, for the bound on memory."),
        field("last_seq", &progress_page::last_seq,
              "Number of the newest event that there is; where to read on when none came."),
        field("ended", &progress_page::ended, "Whether nothing more comes for now.")};
  }
  bool operator==(const progress_page&) const = default;
};

} // namespace berth
