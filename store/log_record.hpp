// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/history.hpp"
#include "messages/internal.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

/// What one record of the log says. Internal to a server and its data directory: a segment is read
/// by the release that wrote it or by a later one.
namespace berth {

/// What a record is about.
enum class record_kind : std::uint8_t {
  /// A job was accepted.
  accepted = 1,
  /// A job ended.
  ended = 2,
  /// A session is as given.
  session = 3,
};

/// A record, taken apart; points into the bytes it was read from.
struct record_view {
  record_kind kind = record_kind::accepted;
  job_state state = job_state::queued;
  bool failed = false;
  /// The entry's number; 0 for a session.
  std::uint64_t number = 0;
  std::int64_t submitted_at_ms = 0;
  /// The job, or the session.
  std::string_view id;
  std::string_view agent;
  std::string_view session;
  std::string_view machine;
  /// A job's language, or the name of a session's state.
  std::string_view language;
  std::string_view code;
  /// Arguments, limits, metadata and verdict of a job, as msgpack.
  std::span<const char> request;
  /// The outcome, or the session, as msgpack.
  std::span<const char> result;
};

/// What is kept of a request, beside its code.
struct stored_request {
  std::vector<std::string> args;
  job_limits limits;
  std::map<std::string, std::string> metadata;
  maybe<berth::verdict> verdict;
  entry_kind kind = entry_kind::job;

  static constexpr const char* type_name = "stored_request";
  static constexpr auto fields() {
    return std::tuple{field("args", &stored_request::args),
                      field("limits", &stored_request::limits),
                      field("metadata", &stored_request::metadata),
                      opt("verdict", &stored_request::verdict), opt("kind", &stored_request::kind)};
  }
};

/// The record of a job that was accepted. With `content` false its code, arguments and metadata are
/// left out.
bytes accepted_record(std::uint64_t number, const job_order& order, bool content);

/// The record of a job that ended.
bytes ended_record(std::uint64_t number, const outcome& ended);

/// The record of a session as it is.
bytes session_record(const session_info& session);

/// Takes a record apart; nothing when it is none.
std::optional<record_view> read_record(std::span<const char> payload);

} // namespace berth
