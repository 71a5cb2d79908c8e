// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"
#include "messages/history.hpp"
#include "messages/server.hpp"
#include "messages/session.hpp"

/// What the actors say to each other and no client sees.
namespace berth {

/// A job that was admitted: the request with every default filled in.
struct job_order {
  std::string job;
  run request;
  job_limits limits;
  berth::verdict verdict;
  std::int64_t submitted_at_ms = 0;
  entry_kind kind = entry_kind::job;

  static constexpr const char* type_name = "job_order";
  static constexpr auto fields() {
    return std::tuple{field("job", &job_order::job),
                      field("request", &job_order::request),
                      field("limits", &job_order::limits),
                      opt("verdict", &job_order::verdict),
                      field("submitted_at_ms", &job_order::submitted_at_ms),
                      opt("kind", &job_order::kind)};
  }
  bool operator==(const job_order&) const = default;
};

/// To SUPERVISOR: find a machine for this job and see it to its end.
struct place_job {
  job_order order;

  static constexpr const char* type_name = "place_job";
  static constexpr auto fields() { return std::tuple{field("order", &place_job::order)}; }
  bool operator==(const place_job&) const = default;
};

/// To SUPERVISOR: a job's session by what the client gave; made when the policy allows.
struct find_session {
  std::string session;
  std::string agent_id;
  std::string vm_type;
  std::string kind;
  std::string isolation;
  // What the job asks for itself; a session has it for all its jobs.
  maybe<std::uint64_t> memory_mib;
  maybe<std::uint64_t> processes;
  maybe<std::uint64_t> disk_mib;

  static constexpr const char* type_name = "find_session";
  static constexpr auto fields() {
    return std::tuple{
        opt("session", &find_session::session),     opt("agent_id", &find_session::agent_id),
        opt("vm_type", &find_session::vm_type),     opt("kind", &find_session::kind),
        opt("isolation", &find_session::isolation), opt("memory_mib", &find_session::memory_mib),
        opt("processes", &find_session::processes), opt("disk_mib", &find_session::disk_mib)};
  }
  bool operator==(const find_session&) const = default;
};

/// To SLOT: run this job. The answer is the outcome, without output.
struct run_job {
  job_order order;
  bool exclusive = false;
  bytes binary;
  bool want_binary = false;

  static constexpr const char* type_name = "run_job";
  static constexpr auto fields() {
    return std::tuple{field("order", &run_job::order), field("exclusive", &run_job::exclusive),
                      opt("binary", &run_job::binary), opt("want_binary", &run_job::want_binary)};
  }
  bool operator==(const run_job&) const = default;
};

/// Why a job is ended from outside.
enum class end_reason : std::uint8_t { cancelled, timed_out, interrupted };
inline constexpr std::array<std::string_view, 3> end_reason_names{"cancelled", "timed_out",
                                                                  "interrupted"};
constexpr std::span<const std::string_view> enum_names(end_reason) {
  return end_reason_names;
}

/// To SUPERVISOR and SLOT: end a job now; its run_job answers with the outcome.
struct stop_job {
  std::string job;
  end_reason reason = end_reason::cancelled;

  static constexpr const char* type_name = "stop_job";
  static constexpr auto fields() {
    return std::tuple{field("job", &stop_job::job), field("reason", &stop_job::reason)};
  }
  bool operator==(const stop_job&) const = default;
};

/// To STREAM HUB: a job begins; its output will come.
struct open_stream {
  std::string job;
  std::uint64_t output_bytes = 0;

  static constexpr const char* type_name = "open_stream";
  static constexpr auto fields() {
    return std::tuple{field("job", &open_stream::job),
                      field("output_bytes", &open_stream::output_bytes)};
  }
  bool operator==(const open_stream&) const = default;
};

/// To STREAM HUB: what a program wrote. The answer gives the writer its credit back.
struct output_chunk {
  std::string job;
  std::uint32_t stream = guest::stdout_stream;
  bytes data;

  static constexpr const char* type_name = "output_chunk";
  static constexpr auto fields() {
    return std::tuple{field("job", &output_chunk::job), field("stream", &output_chunk::stream),
                      field("data", &output_chunk::data)};
  }
  bool operator==(const output_chunk&) const = default;
};

/// From STREAM HUB: as many bytes were taken.
struct output_taken {
  std::uint64_t bytes_taken = 0;

  static constexpr const char* type_name = "output_taken";
  static constexpr auto fields() { return std::tuple{field("bytes", &output_taken::bytes_taken)}; }
  bool operator==(const output_taken&) const = default;
};

/// To SPOOL: read a stream of a job.
struct read_spool {
  std::string job;
  std::uint32_t stream = guest::stdout_stream;
  std::uint64_t offset = 0;
  std::uint64_t bytes_max = 0;

  static constexpr const char* type_name = "read_spool";
  static constexpr auto fields() {
    return std::tuple{field("job", &read_spool::job), field("stream", &read_spool::stream),
                      field("offset", &read_spool::offset),
                      field("bytes_max", &read_spool::bytes_max)};
  }
  bool operator==(const read_spool&) const = default;
};

/// From SPOOL: bytes of a stream.
struct spooled {
  bytes data;

  static constexpr const char* type_name = "spooled";
  static constexpr auto fields() { return std::tuple{field("data", &spooled::data)}; }
  bool operator==(const spooled&) const = default;
};

/// To SPOOL: a job writes no more; its output may go when space is needed.
struct end_spool {
  std::string job;

  static constexpr const char* type_name = "end_spool";
  static constexpr auto fields() { return std::tuple{field("job", &end_spool::job)}; }
  bool operator==(const end_spool&) const = default;
};

/// To SPOOL: forget a job's output.
struct drop_spool {
  std::string job;

  static constexpr const char* type_name = "drop_spool";
  static constexpr auto fields() { return std::tuple{field("job", &drop_spool::job)}; }
  bool operator==(const drop_spool&) const = default;
};

/// To SUPERVISOR: a compiled program, from a fresh machine before any user code ran in it.
struct keep_binary {
  std::string language;
  std::string code;
  bytes data;

  static constexpr const char* type_name = "keep_binary";
  static constexpr auto fields() {
    return std::tuple{field("language", &keep_binary::language), field("code", &keep_binary::code),
                      field("data", &keep_binary::data)};
  }
  bool operator==(const keep_binary&) const = default;
};

/// To STREAM HUB: the job ended; no output follows. The answer is the outcome with its output.
struct close_stream {
  outcome ended;

  static constexpr const char* type_name = "close_stream";
  static constexpr auto fields() { return std::tuple{field("ended", &close_stream::ended)}; }
  bool operator==(const close_stream&) const = default;
};

/// To STREAM HUB: publish what happened to files. The answer gives the sender its credit back.
struct announce_files {
  std::string session;
  std::vector<file_event> events;

  static constexpr const char* type_name = "announce_files";
  static constexpr auto fields() {
    return std::tuple{field("session", &announce_files::session),
                      field("events", &announce_files::events)};
  }
  bool operator==(const announce_files&) const = default;
};

/// To STREAM HUB: publish a state change.
struct announce {
  std::string topic;
  state_event event;

  static constexpr const char* type_name = "announce";
  static constexpr auto fields() {
    return std::tuple{field("topic", &announce::topic), field("event", &announce::event)};
  }
  bool operator==(const announce&) const = default;
};

/// To HISTORY: the job was accepted; answer when that is on disk.
struct record_accepted {
  job_order order;

  static constexpr const char* type_name = "record_accepted";
  static constexpr auto fields() { return std::tuple{field("order", &record_accepted::order)}; }
  bool operator==(const record_accepted&) const = default;
};

/// To HISTORY: the job ended; answer when that is on disk.
struct record_ended {
  outcome ended;

  static constexpr const char* type_name = "record_ended";
  static constexpr auto fields() { return std::tuple{field("ended", &record_ended::ended)}; }
  bool operator==(const record_ended&) const = default;
};

/// To HISTORY, right behind the record of the end: answer with this once that is on disk.
struct answer_run {
  outcome ended;

  static constexpr const char* type_name = "answer_run";
  static constexpr auto fields() { return std::tuple{field("ended", &answer_run::ended)}; }
  bool operator==(const answer_run&) const = default;
};

/// From HISTORY: it is on disk.
struct recorded {
  std::uint64_t number = 0;

  static constexpr const char* type_name = "recorded";
  static constexpr auto fields() { return std::tuple{field("number", &recorded::number)}; }
  bool operator==(const recorded&) const = default;
};

/// To HISTORY: a session is as given; `closed` ones are kept as past.
struct record_session {
  session_info session;

  static constexpr const char* type_name = "record_session";
  static constexpr auto fields() { return std::tuple{field("session", &record_session::session)}; }
  bool operator==(const record_session&) const = default;
};

/// To VALIDATOR: judge a job by the policy in force.
struct judge {
  std::string code;
  std::string language;

  static constexpr const char* type_name = "judge";
  static constexpr auto fields() {
    return std::tuple{field("code", &judge::code), field("language", &judge::language)};
  }
  bool operator==(const judge&) const = default;
};

/// To SLOT: start a machine.
struct fill_slot {
  std::string machine;
  std::string warm;
  std::uint64_t memory_mib = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_mib = 0;
  std::vector<std::uint64_t> checkpoints;
  std::string parent;

  static constexpr const char* type_name = "fill_slot";
  static constexpr auto fields() {
    return std::tuple{field("machine", &fill_slot::machine),
                      opt("warm", &fill_slot::warm),
                      field("memory_mib", &fill_slot::memory_mib),
                      field("processes", &fill_slot::processes),
                      field("disk_mib", &fill_slot::disk_mib),
                      opt("checkpoints", &fill_slot::checkpoints,
                          "Numbers of the states that the archives beside this lead to; of a fork "
                          "the one number of the parent's state."),
                      opt("parent", &fill_slot::parent, "Machine to fork; empty: none.")};
  }
  bool operator==(const fill_slot&) const = default;
};

/// To SLOT: destroy the machine; answered by slot_changed{empty}.
struct empty_slot {
  static constexpr const char* type_name = "empty_slot";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const empty_slot&) const = default;
};

/// To SLOT: change the machine's limits.
struct limit_slot {
  std::uint64_t memory_mib = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_mib = 0;

  static constexpr const char* type_name = "limit_slot";
  static constexpr auto fields() {
    return std::tuple{field("memory_mib", &limit_slot::memory_mib),
                      field("processes", &limit_slot::processes),
                      field("disk_mib", &limit_slot::disk_mib)};
  }
  bool operator==(const limit_slot&) const = default;
};

/// From SLOT to SUPERVISOR: the machine of this slot is up, lost or gone.
struct slot_changed {
  std::uint32_t slot = 0;
  std::string machine;
  slot_state state = slot_state::empty;
  std::string detail;

  static constexpr const char* type_name = "slot_changed";
  static constexpr auto fields() {
    return std::tuple{field("slot", &slot_changed::slot), field("machine", &slot_changed::machine),
                      field("state", &slot_changed::state), opt("detail", &slot_changed::detail)};
  }
  bool operator==(const slot_changed&) const = default;
};

/// To GATEWAY and SUPERVISOR: take nothing new, answer when nothing is alive or the grace time is
/// over and everything was ended.
struct drain {
  std::uint64_t grace_ms = 0;

  static constexpr const char* type_name = "drain";
  static constexpr auto fields() { return std::tuple{field("grace_ms", &drain::grace_ms)}; }
  bool operator==(const drain&) const = default;
};

/// What a drain came to.
struct drained {
  std::uint32_t ended = 0;
  std::uint32_t interrupted = 0;

  static constexpr const char* type_name = "drained";
  static constexpr auto fields() {
    return std::tuple{field("ended", &drained::ended), field("interrupted", &drained::interrupted)};
  }
  bool operator==(const drained&) const = default;
};

} // namespace berth
