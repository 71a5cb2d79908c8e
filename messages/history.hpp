// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/job.hpp"

/// What is said about the past.
namespace berth {

/// What a line of history is about.
enum class entry_kind : std::uint8_t {
  job,
  /// The session was taken back; nothing ran.
  rollback,
};
inline constexpr std::array<std::string_view, 2> entry_kind_names{"job", "rollback"};
constexpr std::span<const std::string_view> enum_names(entry_kind) {
  return entry_kind_names;
}

/// One line of history: a job as it was asked for, judged, run and ended.
struct entry {
  std::uint64_t number = 0;
  outcome result;
  std::string code;
  std::vector<std::string> args;
  job_limits limits;
  std::map<std::string, std::string> metadata;
  entry_kind kind = entry_kind::job;

  static constexpr const char* type_name = "entry";
  static constexpr auto fields() {
    return std::tuple{
        field("number", &entry::number, "Grows with every job; the cursor of a page."),
        field("result", &entry::result,
              "The outcome; its output is bounded, and redacted by policy."),
        field("code", &entry::code, "The program's text as it was submitted."),
        opt("args", &entry::args, "Arguments."),
        field("limits", &entry::limits, "The limits that were in force."),
        opt("metadata", &entry::metadata, "As the client gave it."),
        opt("kind", &entry::kind, "Whether it is a job, or took the session back.")};
  }
  bool operator==(const entry&) const = default;
};

/// Asks for entries, newest first.
struct query_history {
  std::string job;
  std::string agent_id;
  std::string session;
  std::string machine;
  std::string language;
  maybe<job_state> state;
  bool failures_only = false;
  std::string text;
  std::int64_t since_ms = 0;
  std::int64_t until_ms = 0;
  std::uint64_t before = 0;
  std::uint32_t limit = 0;

  static constexpr const char* type_name = "history";
  static constexpr auto fields() {
    return std::tuple{
        opt("job", &query_history::job, "Only this job."),
        opt("agent_id", &query_history::agent_id, "Only this agent's."),
        opt("session", &query_history::session, "Only this session's, by id."),
        opt("machine", &query_history::machine, "Only what ran on this machine."),
        opt("language", &query_history::language, "Only this language."),
        opt("state", &query_history::state, "Only jobs that ended, or are, so."),
        opt("failures_only", &query_history::failures_only, "Only what did not exit with 0."),
        opt("text", &query_history::text, "Only entries whose code contains this."),
        opt("since_ms", &query_history::since_ms, "Submitted at or after; Unix time, ms."),
        opt("until_ms", &query_history::until_ms, "Submitted before; Unix time, ms; 0: no end."),
        opt("before", &query_history::before, "Only entries with a smaller number: the next page."),
        opt("limit", &query_history::limit, "Entries wanted, at most 1000; 0: 100.")};
  }
  bool operator==(const query_history&) const = default;
};

/// Entries, newest first.
struct history_page {
  std::vector<entry> entries;
  maybe<std::uint64_t> next_before;
  std::uint64_t total = 0;

  static constexpr const char* type_name = "history_page";
  static constexpr auto fields() {
    return std::tuple{field("entries", &history_page::entries, "Newest first."),
                      opt("next_before", &history_page::next_before,
                          "`before` of the next page, if there is one."),
                      field("total", &history_page::total, "Entries that match, on all pages.")};
  }
  bool operator==(const history_page&) const = default;
};

} // namespace berth
