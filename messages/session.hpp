// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/job.hpp"

/// What is said about sessions and the files in them.
namespace berth {

/// Where a session is in its life.
enum class session_state : std::uint8_t {
  starting,
  ready,
  busy,
  /// Its machine died with what was in it; a new one, empty, takes its place.
  lost,
  closed,
  /// Asleep: no machine, files on disk; a job or resume_session wakes it.
  paused,
};
inline constexpr std::array<std::string_view, 6> session_state_names{
    "starting", "ready", "busy", "lost", "closed", "paused"};
constexpr std::span<const std::string_view> enum_names(session_state) {
  return session_state_names;
}

/// Opens a lasting place for an agent: one machine for all its jobs.
struct open_session {
  std::string agent_id;
  std::string name;
  std::string vm_type;
  std::string kind;
  std::string isolation;
  maybe<std::uint64_t> memory_mib;
  maybe<std::uint64_t> processes;
  maybe<std::uint64_t> disk_mib;

  static constexpr const char* type_name = "open_session";
  static constexpr auto fields() {
    return std::tuple{
        opt("agent_id", &open_session::agent_id, "Whose session; its jobs need not name it then."),
        opt("name", &open_session::name, "Name to find it by; unique; default its id."),
        opt("vm_type", &open_session::vm_type, "Machine type by configured name."),
        opt("kind", &open_session::kind, "Machine kind that must serve."),
        opt("isolation", &open_session::isolation,
            "The least that will do: vm (a virtual machine) or namespace; empty: any."),
        opt("memory_mib", &open_session::memory_mib, "Memory of the machine."),
        opt("processes", &open_session::processes, "Processes and threads at once."),
        opt("disk_mib", &open_session::disk_mib, "Space for everything written.")};
  }
  bool operator==(const open_session&) const = default;
};

/// One session as it is now.
struct session_info {
  std::string session;
  std::string name;
  std::string agent_id;
  session_state state = session_state::starting;
  std::string machine;
  std::string machine_kind;
  std::string vm_type;
  std::int64_t created_at_ms = 0;
  std::int64_t last_used_at_ms = 0;
  std::uint64_t jobs_run = 0;
  std::uint32_t jobs_alive = 0;
  std::uint64_t memory_mib = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_mib = 0;
  std::string parent;
  std::string snapshot;
  std::string detail;

  static constexpr const char* type_name = "session_info";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &session_info::session, "Id."),
        field("name", &session_info::name, "Name; equals the id when none was given."),
        opt("agent_id", &session_info::agent_id, "Whose it is."),
        field("state", &session_info::state, "ready: a job would run now."),
        field("machine", &session_info::machine, "Id of the machine, the same for its whole life."),
        field("machine_kind", &session_info::machine_kind, "namespace, qemu or firecracker."),
        opt("vm_type", &session_info::vm_type, "Machine type by configured name."),
        field("created_at_ms", &session_info::created_at_ms, "Unix time, ms."),
        field("last_used_at_ms", &session_info::last_used_at_ms, "Unix time, ms."),
        field("jobs_run", &session_info::jobs_run, "Jobs that ended."),
        field("jobs_alive", &session_info::jobs_alive, "Jobs that wait or run."),
        field("memory_mib", &session_info::memory_mib, "Limit."),
        field("processes", &session_info::processes, "Limit."),
        field("disk_mib", &session_info::disk_mib, "Limit."),
        opt("parent", &session_info::parent, "The session it was forked from."),
        opt("snapshot", &session_info::snapshot,
            "The snapshot that its present state grew out of; empty: none."),
        opt("detail", &session_info::detail, "What of it was lost, and why.")};
  }
  bool operator==(const session_info&) const = default;
};

/// Ends a session: its jobs are cancelled, its machine is destroyed.
struct close_session {
  std::string session;

  static constexpr const char* type_name = "close_session";
  static constexpr auto fields() {
    return std::tuple{field("session", &close_session::session, "Id, name or machine id.")};
  }
  bool operator==(const close_session&) const = default;
};

/// The session is gone, and everything in it.
struct session_closed {
  std::string session;

  static constexpr const char* type_name = "session_closed";
  static constexpr auto fields() {
    return std::tuple{field("session", &session_closed::session, "Id.")};
  }
  bool operator==(const session_closed&) const = default;
};

/// Lists sessions.
struct list_sessions {
  std::string agent_id;
  std::string session;

  static constexpr const char* type_name = "list_sessions";
  static constexpr auto fields() {
    return std::tuple{
        opt("agent_id", &list_sessions::agent_id, "Only this agent's; empty: all."),
        opt("session", &list_sessions::session, "Only this one, by id, name or machine id.")};
  }
  bool operator==(const list_sessions&) const = default;
};

/// Sessions, oldest first.
struct session_list {
  std::vector<session_info> sessions;

  static constexpr const char* type_name = "session_list";
  static constexpr auto fields() {
    return std::tuple{field("sessions", &session_list::sessions, "Oldest first.")};
  }
  bool operator==(const session_list&) const = default;
};

/// Places files in a session's machine.
struct put_files {
  std::string session;
  std::vector<placed_file> files;

  static constexpr const char* type_name = "put_files";
  static constexpr auto fields() {
    return std::tuple{field("session", &put_files::session, "Id, name or machine id."),
                      field("files", &put_files::files, "Relative paths start at /work.")};
  }
  bool operator==(const put_files&) const = default;
};

/// The files are there.
struct files_put {
  std::uint32_t count = 0;

  static constexpr const char* type_name = "files_put";
  static constexpr auto fields() {
    return std::tuple{field("count", &files_put::count, "Files written.")};
  }
  bool operator==(const files_put&) const = default;
};

/// Reads a part of one regular file of a session's machine.
struct read_file {
  std::string session;
  std::string path;
  std::uint64_t offset = 0;
  std::uint32_t bytes_max = 0;

  static constexpr const char* type_name = "read_file";
  static constexpr auto fields() {
    return std::tuple{field("session", &read_file::session, "Id, name or machine id."),
                      field("path", &read_file::path, "Relative paths start at /work."),
                      opt("offset", &read_file::offset, "First byte wanted."),
                      opt("bytes_max", &read_file::bytes_max, "0: the server's choice.")};
  }
  bool operator==(const read_file&) const = default;
};

/// A part of a file.
struct file_content {
  std::string path;
  bytes data;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  bool eof = false;

  static constexpr const char* type_name = "file_content";
  static constexpr auto fields() {
    return std::tuple{field("path", &file_content::path, "As asked."),
                      field("data", &file_content::data, "Bytes from the offset on."),
                      field("offset", &file_content::offset, "Offset of the first byte."),
                      field("size", &file_content::size, "Size of the whole file."),
                      field("eof", &file_content::eof, "Whether the file ends here.")};
  }
  bool operator==(const file_content&) const = default;
};

/// Asks what a session's machine uses.
struct get_usage {
  std::string session;

  static constexpr const char* type_name = "get_usage";
  static constexpr auto fields() {
    return std::tuple{field("session", &get_usage::session, "Id, name or machine id.")};
  }
  bool operator==(const get_usage&) const = default;
};

/// What a session's machine uses now.
struct session_usage {
  std::string session;
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_limit_bytes = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t disk_limit_bytes = 0;
  std::uint64_t uptime_ms = 0;

  static constexpr const char* type_name = "session_usage";
  static constexpr auto fields() {
    return std::tuple{field("session", &session_usage::session, "Id."),
                      field("memory_bytes", &session_usage::memory_bytes, "In use."),
                      field("memory_limit_bytes", &session_usage::memory_limit_bytes, "Limit."),
                      field("cpu_us", &session_usage::cpu_us, "CPU time since the start."),
                      field("processes", &session_usage::processes, "Processes and threads."),
                      field("disk_bytes", &session_usage::disk_bytes, "Written and still there."),
                      field("disk_limit_bytes", &session_usage::disk_limit_bytes, "Limit."),
                      field("uptime_ms", &session_usage::uptime_ms, "Age of the machine.")};
  }
  bool operator==(const session_usage&) const = default;
};

} // namespace berth
