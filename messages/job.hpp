// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/kernel.hpp"

#include <array>

/// What is said about one job: its request, its verdict, its output, its end.
namespace berth {

/// Where a job is in its life. From `exited` on the state is terminal and is reached exactly once.
enum class job_state : std::uint8_t {
  queued,
  running,
  /// The program ended by itself; `exit_code` is the kernel's report.
  exited,
  /// A signal that Berth did not send ended the program.
  signalled,
  timed_out,
  out_of_memory,
  cancelled,
  /// The validator refused it; nothing ran.
  blocked,
  /// The machine died or could not be started.
  machine_lost,
  /// The server died or was stopped while the job was alive.
  interrupted,
};

inline constexpr std::array<std::string_view, 10> job_state_names{
    "queued",        "running",   "exited",  "signalled",    "timed_out",
    "out_of_memory", "cancelled", "blocked", "machine_lost", "interrupted"};
constexpr std::span<const std::string_view> enum_names(job_state) {
  return job_state_names;
}
constexpr bool is_terminal(job_state state) {
  return state >= job_state::exited;
}

/// What the validator decided.
enum class decision : std::uint8_t { allow, block, modify };
inline constexpr std::array<std::string_view, 3> decision_names{"allow", "block", "modify"};
constexpr std::span<const std::string_view> enum_names(decision) {
  return decision_names;
}

/// Which way a job's process came to be.
enum class run_path : std::uint8_t {
  /// An interpreter that was up before the job arrived.
  warm,
  /// A new process, started for the job.
  cold,
  /// A binary that an equal program left behind.
  cached,
};
inline constexpr std::array<std::string_view, 3> run_path_names{"warm", "cold", "cached"};
constexpr std::span<const std::string_view> enum_names(run_path) {
  return run_path_names;
}

/// A file that is placed in the machine before the job starts.
struct placed_file {
  std::string path;
  bytes data;
  std::uint32_t mode = 0644;

  static constexpr const char* type_name = "placed_file";
  static constexpr auto fields() {
    return std::tuple{field("path", &placed_file::path, "Absolute, or relative to the job's cwd."),
                      field("data", &placed_file::data, "Contents."),
                      opt("mode", &placed_file::mode, "Permission bits.")};
  }
  bool operator==(const placed_file&) const = default;
};

/// Runs a program and answers when it ended.
struct run {
  std::string code;
  std::string language;
  std::vector<std::string> args;
  std::map<std::string, std::string> env;
  std::string cwd;
  bytes stdin_data;
  bool stdin_open = false;
  std::vector<placed_file> files;
  maybe<std::uint64_t> timeout_ms;
  maybe<std::uint64_t> memory_mib;
  maybe<std::uint64_t> processes;
  maybe<std::uint64_t> output_bytes;
  maybe<std::uint64_t> disk_mib;
  std::string agent_id;
  std::string session;
  bool one_shot = false;
  std::string vm_type;
  std::string kind;
  std::string isolation;
  bool kernel = false;
  std::string context;
  std::map<std::string, std::string> metadata;

  static constexpr const char* type_name = "run";
  static constexpr auto fields() {
    return std::tuple{
        field("code", &run::code, "The program's text."),
        field(
            "language", &run::language,
            "python, javascript, bash, rust or go; py, python3, js, node, sh, shell, rs, golang."),
        opt("args", &run::args, "Arguments of the program."),
        opt("env", &run::env, "Environment of the program, beside the machine's own."),
        opt("cwd", &run::cwd, "Working directory; default /work. Made when it is missing."),
        opt("stdin", &run::stdin_data, "What the program reads from standard input first."),
        opt("stdin_open", &run::stdin_open, "Keep standard input open for write_stdin."),
        opt("files", &run::files, "Files to place before the start."),
        opt("timeout_ms", &run::timeout_ms, "Wall-clock limit, at least 1."),
        opt("memory_mib", &run::memory_mib, "Memory of the whole process tree, at least 16."),
        opt("processes", &run::processes, "Processes and threads at once, at least 1."),
        opt("output_bytes", &run::output_bytes, "Output kept per stream; the rest is counted."),
        opt("disk_mib", &run::disk_mib, "Space for everything written in the machine, at least 1."),
        opt("agent_id", &run::agent_id, "Whose job it is; without `session`, the agent's session."),
        opt("session", &run::session, "Session, by id or name; empty: the agent's or none."),
        opt("one_shot", &run::one_shot, "A fresh machine even though `agent_id` is given."),
        opt("vm_type", &run::vm_type, "Machine type by configured name."),
        opt("kind", &run::kind, "Machine kind that must serve: namespace, qemu, firecracker."),
        opt("isolation", &run::isolation,
            "The least that will do: vm (a virtual machine) or namespace; empty: any."),
        opt("kernel", &run::kernel,
            "Run as a cell in a live interpreter of the session: variables stay."),
        opt("context", &run::context,
            "Which one, by name; implies `kernel`; empty: the language's own."),
        opt("metadata", &run::metadata, "Kept in history as it is.")};
  }
  bool operator==(const run&) const = default;
};

/// Runs a program and answers as soon as the job is on disk.
struct submit : run {
  static constexpr const char* type_name = "submit";
  bool operator==(const submit&) const = default;
};

/// The job exists and is on disk.
struct accepted {
  std::string job;
  std::string session;

  static constexpr const char* type_name = "accepted";
  static constexpr auto fields() {
    return std::tuple{field("job", &accepted::job, "Id of the job."),
                      opt("session", &accepted::session, "Session that runs it; empty: one-shot.")};
  }
  bool operator==(const accepted&) const = default;
};

/// The validator's answer on a program.
struct verdict {
  berth::decision decision = berth::decision::allow;
  std::vector<std::string> reasons;
  std::string code;

  static constexpr const char* type_name = "verdict";
  static constexpr auto fields() {
    return std::tuple{field("decision", &verdict::decision, "What was decided."),
                      opt("reasons", &verdict::reasons, "Every reason, in the order found."),
                      opt("code", &verdict::code, "The program to run instead, when modified.")};
  }
  bool operator==(const verdict&) const = default;
};

/// The limits that were in force for a job.
struct job_limits {
  std::uint64_t timeout_ms = 0;
  std::uint64_t memory_mib = 0;
  std::uint64_t processes = 0;
  std::uint64_t output_bytes = 0;
  std::uint64_t disk_mib = 0;

  static constexpr const char* type_name = "job_limits";
  static constexpr auto fields() {
    return std::tuple{field("timeout_ms", &job_limits::timeout_ms, "Wall-clock limit."),
                      field("memory_mib", &job_limits::memory_mib, "Memory."),
                      field("processes", &job_limits::processes, "Processes and threads."),
                      field("output_bytes", &job_limits::output_bytes, "Output kept per stream."),
                      field("disk_mib", &job_limits::disk_mib, "Space in the machine.")};
  }
  bool operator==(const job_limits&) const = default;
};

/// How a job ended; the one terminal event of a job.
struct outcome {
  std::string job;
  job_state state = job_state::exited;
  maybe<std::int32_t> exit_code;
  maybe<std::uint32_t> signal;
  bytes stdout_data;
  bytes stderr_data;
  std::uint64_t stdout_bytes = 0;
  std::uint64_t stderr_bytes = 0;
  bool stdout_truncated = false;
  bool stderr_truncated = false;
  std::uint64_t wall_us = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t memory_peak_bytes = 0;
  std::string language;
  run_path path = run_path::cold;
  std::string agent_id;
  std::string session;
  std::string machine;
  std::string machine_kind;
  std::int64_t submitted_at_ms = 0;
  std::int64_t started_at_ms = 0;
  std::int64_t ended_at_ms = 0;
  berth::verdict verdict;
  bool redacted = false;
  std::string detail;
  std::string context;
  maybe<cell_report> cell;
  std::string snapshot_before;
  std::string snapshot_after;
  std::string rolled_back_to;

  static constexpr const char* type_name = "outcome";
  static constexpr auto fields() {
    return std::tuple{
        field("job", &outcome::job, "Id of the job."),
        field("state", &outcome::state, "How it ended."),
        opt("exit_code", &outcome::exit_code,
            "The operating system's report; only when it exited. Of a cell, whose process lives "
            "on: 0, or 1 when it raised; in Bash the last command's."),
        opt("signal", &outcome::signal, "The signal that ended it; only when one did."),
        field("stdout", &outcome::stdout_data, "Standard output from the start, within bounds."),
        field("stderr", &outcome::stderr_data, "Standard error from the start, within bounds."),
        field("stdout_bytes", &outcome::stdout_bytes, "Bytes that the program wrote."),
        field("stderr_bytes", &outcome::stderr_bytes, "Bytes that the program wrote."),
        field("stdout_truncated", &outcome::stdout_truncated, "Whether `stdout` is not all of it."),
        field("stderr_truncated", &outcome::stderr_truncated, "Whether `stderr` is not all of it."),
        field("wall_us", &outcome::wall_us, "Time from start to end, microseconds."),
        field("cpu_us", &outcome::cpu_us, "CPU time of the process tree, microseconds."),
        field("memory_peak_bytes", &outcome::memory_peak_bytes,
              "Highest memory use: the machine's where cgroups count it, else the main process's."),
        field("language", &outcome::language, "Canonical name of the language."),
        field("path", &outcome::path,
              "Whether a warm interpreter, a cold one or a cached binary ran."),
        opt("agent_id", &outcome::agent_id, "Whose job it was."),
        opt("session", &outcome::session, "Session; empty: one-shot."),
        opt("machine", &outcome::machine, "Id of the machine; empty when none was used."),
        opt("machine_kind", &outcome::machine_kind, "namespace, qemu or firecracker."),
        field("submitted_at_ms", &outcome::submitted_at_ms, "Unix time, milliseconds."),
        opt("started_at_ms", &outcome::started_at_ms, "Unix time, milliseconds; 0: never started."),
        field("ended_at_ms", &outcome::ended_at_ms, "Unix time, milliseconds."),
        opt("verdict", &outcome::verdict, "What the validator said."),
        opt("redacted", &outcome::redacted, "Whether secrets were taken out of the output."),
        opt("detail", &outcome::detail, "What happened, for a human."),
        opt("context", &outcome::context, "The live interpreter it ran in; empty: none."),
        opt("cell", &outcome::cell, "What the cell showed or raised; only of a cell."),
        opt("snapshot_before", &outcome::snapshot_before, "Snapshot taken before the run."),
        opt("snapshot_after", &outcome::snapshot_after, "Snapshot taken after a failure."),
        opt("rolled_back_to", &outcome::rolled_back_to,
            "Snapshot that the session was taken back to after a failure.")};
  }
  bool operator==(const outcome&) const = default;
};

/// Reads output of a job from any offset; waits for news when there is none.
struct read {
  std::string job;
  std::uint64_t stdout_offset = 0;
  std::uint64_t stderr_offset = 0;
  std::uint32_t wait_ms = 0;
  std::uint32_t bytes_max = 0;

  static constexpr const char* type_name = "read";
  static constexpr auto fields() {
    return std::tuple{
        field("job", &read::job, "Id of the job."),
        opt("stdout_offset", &read::stdout_offset, "First byte wanted of standard output."),
        opt("stderr_offset", &read::stderr_offset, "First byte wanted of standard error."),
        opt("wait_ms", &read::wait_ms, "How long to wait for news; at most 30000."),
        opt("bytes_max", &read::bytes_max, "Bytes wanted per stream; 0: the server's choice.")};
  }
  bool operator==(const read&) const = default;
};

/// Output from the offsets asked for, and the end when everything was read.
struct output_slice {
  std::string job;
  job_state state = job_state::queued;
  std::uint64_t stdout_offset = 0;
  std::uint64_t stderr_offset = 0;
  bytes stdout_data;
  bytes stderr_data;
  std::uint64_t stdout_lost = 0;
  std::uint64_t stderr_lost = 0;
  maybe<outcome> ended;

  static constexpr const char* type_name = "output_slice";
  static constexpr auto fields() {
    return std::tuple{
        field("job", &output_slice::job, "Id of the job."),
        field("state", &output_slice::state, "Where the job is."),
        field("stdout_offset", &output_slice::stdout_offset, "Offset of the first byte here."),
        field("stderr_offset", &output_slice::stderr_offset, "Offset of the first byte here."),
        field("stdout", &output_slice::stdout_data, "Bytes of standard output."),
        field("stderr", &output_slice::stderr_data, "Bytes of standard error."),
        field("stdout_lost", &output_slice::stdout_lost,
              "Bytes past the limit, counted, not kept."),
        field("stderr_lost", &output_slice::stderr_lost,
              "Bytes past the limit, counted, not kept."),
        opt("ended", &output_slice::ended,
            "The outcome, without output, once all that is kept was read.")};
  }
  bool operator==(const output_slice&) const = default;
};

/// Ends a job and everything it started.
struct cancel {
  std::string job;

  static constexpr const char* type_name = "cancel";
  static constexpr auto fields() {
    return std::tuple{field("job", &cancel::job, "Id of the job.")};
  }
  bool operator==(const cancel&) const = default;
};

/// The job is ending or had ended already; `state` tells.
struct cancelled {
  std::string job;
  job_state state = job_state::cancelled;

  static constexpr const char* type_name = "cancelled";
  static constexpr auto fields() {
    return std::tuple{field("job", &cancelled::job, "Id of the job."),
                      field("state", &cancelled::state,
                            "Terminal state of a job that had ended, else cancelled.")};
  }
  bool operator==(const cancelled&) const = default;
};

/// Writes to the standard input of a running job that was started with `stdin_open`.
struct write_stdin {
  std::string job;
  bytes data;
  bool eof = false;

  static constexpr const char* type_name = "write_stdin";
  static constexpr auto fields() {
    return std::tuple{field("job", &write_stdin::job, "Id of the job."),
                      opt("data", &write_stdin::data, "Bytes for the program."),
                      opt("eof", &write_stdin::eof, "Close standard input after the bytes.")};
  }
  bool operator==(const write_stdin&) const = default;
};

/// The bytes are on their way to the program.
struct stdin_written {
  std::string job;
  std::uint64_t bytes_taken = 0;

  static constexpr const char* type_name = "stdin_written";
  static constexpr auto fields() {
    return std::tuple{field("job", &stdin_written::job, "Id of the job."),
                      field("bytes", &stdin_written::bytes_taken, "Bytes taken.")};
  }
  bool operator==(const stdin_written&) const = default;
};

/// Judges a program without running it.
struct validate {
  std::string code;
  std::string language;

  static constexpr const char* type_name = "validate";
  static constexpr auto fields() {
    return std::tuple{field("code", &validate::code, "The program's text."),
                      field("language", &validate::language, "Language or alias.")};
  }
  bool operator==(const validate&) const = default;
};

/// Lists the jobs that are alive.
struct list_jobs {
  std::string session;

  static constexpr const char* type_name = "list_jobs";
  static constexpr auto fields() {
    return std::tuple{opt("session", &list_jobs::session, "Only this session's; empty: all.")};
  }
  bool operator==(const list_jobs&) const = default;
};

/// One job that is alive.
struct job_info {
  std::string job;
  job_state state = job_state::queued;
  std::string language;
  std::string agent_id;
  std::string session;
  std::string machine;
  std::int64_t submitted_at_ms = 0;

  static constexpr const char* type_name = "job_info";
  static constexpr auto fields() {
    return std::tuple{field("job", &job_info::job, "Id of the job."),
                      field("state", &job_info::state, "queued or running."),
                      field("language", &job_info::language, "Canonical name."),
                      opt("agent_id", &job_info::agent_id, "Whose job it is."),
                      opt("session", &job_info::session, "Session; empty: one-shot."),
                      opt("machine", &job_info::machine, "Machine, once it has one."),
                      field("submitted_at_ms", &job_info::submitted_at_ms, "Unix time, ms.")};
  }
  bool operator==(const job_info&) const = default;
};

/// The jobs that are alive, oldest first.
struct job_list {
  std::vector<job_info> jobs;

  static constexpr const char* type_name = "job_list";
  static constexpr auto fields() {
    return std::tuple{field("jobs", &job_list::jobs, "Oldest first.")};
  }
  bool operator==(const job_list&) const = default;
};

} // namespace berth
