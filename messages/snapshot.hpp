// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/session.hpp"

/// What is said about saved states: snapshots, rollback, fork, pause.
namespace berth {

/// What a snapshot can give back. Never more than is true now: after a restart of the server,
/// memory is gone and only files are left.
enum class snapshot_content : std::uint8_t { files, files_and_memory };
inline constexpr std::array<std::string_view, 2> snapshot_content_names{"files", "files+memory"};
constexpr std::span<const std::string_view> enum_names(snapshot_content) {
  return snapshot_content_names;
}

/// Why a snapshot was taken.
enum class snapshot_reason : std::uint8_t {
  asked,
  before_job,
  after_failure,
  before_rollback,
  pause
};
inline constexpr std::array<std::string_view, 5> snapshot_reason_names{
    "asked", "before_job", "after_failure", "before_rollback", "pause"};
constexpr std::span<const std::string_view> enum_names(snapshot_reason) {
  return snapshot_reason_names;
}

/// Saves a session's state as it is between two jobs.
struct take_snapshot {
  std::string session;
  std::string name;
  std::string description;
  bool wait_durable = true;

  static constexpr const char* type_name = "snapshot";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &take_snapshot::session, "Id, name or machine id."),
        opt("name", &take_snapshot::name, "Name; becomes a part of the id."),
        opt("description", &take_snapshot::description, "For a human."),
        opt("wait_durable", &take_snapshot::wait_durable,
            "Answer when it is on disk, synced and checksummed; false: as soon as it can be rolled "
            "back to, and the copy to disk follows.")};
  }
  bool operator==(const take_snapshot&) const = default;
};

/// One snapshot as it is now.
struct snapshot_info {
  std::string snapshot;
  std::string session;
  std::string agent_id;
  std::string machine;
  std::string machine_kind;
  std::string name;
  std::string description;
  std::string parent;
  std::string job;
  std::uint64_t entry = 0;
  snapshot_reason reason = snapshot_reason::asked;
  snapshot_content content = snapshot_content::files;
  std::vector<std::string> contexts;
  std::uint64_t size_bytes = 0;
  std::int64_t created_at_ms = 0;
  bool durable = false;
  std::int64_t durable_at_ms = 0;
  std::string damage;

  static constexpr const char* type_name = "snapshot_info";
  static constexpr auto fields() {
    return std::tuple{
        field("snapshot", &snapshot_info::snapshot, "Id."),
        field("session", &snapshot_info::session, "Id of the session it was taken of."),
        opt("agent_id", &snapshot_info::agent_id, "Whose it is."),
        field("machine", &snapshot_info::machine, "Id of the machine it was taken of."),
        field("machine_kind", &snapshot_info::machine_kind, "namespace, qemu or firecracker."),
        opt("name", &snapshot_info::name, "As asked."),
        opt("description", &snapshot_info::description, "As asked."),
        opt("parent", &snapshot_info::parent,
            "The snapshot that the session came from; empty: the first."),
        opt("job", &snapshot_info::job, "The last job that had ended; empty: none."),
        opt("entry", &snapshot_info::entry, "That job's number in history; 0: none."),
        field("reason", &snapshot_info::reason, "Why it was taken."),
        field("content", &snapshot_info::content, "What it can give back now."),
        opt("contexts", &snapshot_info::contexts, "Contexts whose memory it holds."),
        field("size_bytes", &snapshot_info::size_bytes,
              "Bytes that it added on disk; until it is durable, in the machine."),
        field("created_at_ms", &snapshot_info::created_at_ms, "Unix time, ms."),
        field("durable", &snapshot_info::durable, "Whether its files survive the server."),
        opt("durable_at_ms", &snapshot_info::durable_at_ms, "Unix time, ms; 0: not yet."),
        opt("damage", &snapshot_info::damage, "Why it cannot be restored; empty: it can.")};
  }
  bool operator==(const snapshot_info&) const = default;
};

/// Lists snapshots.
struct list_snapshots {
  std::string session;
  std::string agent_id;

  static constexpr const char* type_name = "list_snapshots";
  static constexpr auto fields() {
    return std::tuple{
        opt("session", &list_snapshots::session, "Only this session's, also a closed one's."),
        opt("agent_id", &list_snapshots::agent_id, "Only this agent's.")};
  }
  bool operator==(const list_snapshots&) const = default;
};

/// Snapshots, oldest first.
struct snapshot_list {
  std::vector<snapshot_info> snapshots;
  std::uint64_t bytes_used = 0;
  std::uint64_t bytes_max = 0;

  static constexpr const char* type_name = "snapshot_list";
  static constexpr auto fields() {
    return std::tuple{
        field("snapshots", &snapshot_list::snapshots, "Oldest first."),
        field("bytes_used", &snapshot_list::bytes_used, "Of all snapshots of this server."),
        field("bytes_max", &snapshot_list::bytes_max, "The budget; oldest go first beyond it.")};
  }
  bool operator==(const snapshot_list&) const = default;
};

/// Deletes a snapshot. Those taken after it stay whole.
struct delete_snapshot {
  std::string snapshot;

  static constexpr const char* type_name = "delete_snapshot";
  static constexpr auto fields() {
    return std::tuple{field("snapshot", &delete_snapshot::snapshot, "Id.")};
  }
  bool operator==(const delete_snapshot&) const = default;
};

/// The snapshot is gone.
struct snapshot_deleted {
  std::string snapshot;

  static constexpr const char* type_name = "snapshot_deleted";
  static constexpr auto fields() {
    return std::tuple{field("snapshot", &snapshot_deleted::snapshot, "Id.")};
  }
  bool operator==(const snapshot_deleted&) const = default;
};

/// Takes a session back, in place: same session, same machine id. Its jobs are ended first. Exactly
/// one of `snapshot`, `before_entry`, `after_entry`, `last_success` says where to.
struct rollback {
  std::string session;
  std::string snapshot;
  maybe<std::uint64_t> before_entry;
  maybe<std::uint64_t> after_entry;
  bool last_success = false;
  bool snapshot_first = false;

  static constexpr const char* type_name = "rollback";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &rollback::session, "Id, name or machine id."),
        opt("snapshot", &rollback::snapshot, "Id or name of a snapshot of this session."),
        opt("before_entry", &rollback::before_entry, "The state before this entry of history."),
        opt("after_entry", &rollback::after_entry, "The state after this entry of history."),
        opt("last_success", &rollback::last_success,
            "The newest snapshot whose job exited with 0."),
        opt("snapshot_first", &rollback::snapshot_first, "Save the present state before.")};
  }
  bool operator==(const rollback&) const = default;
};

/// The session is back where it was.
struct rolled_back {
  std::string session;
  std::string machine;
  std::string snapshot;
  snapshot_content content = snapshot_content::files;
  std::vector<std::string> contexts;
  std::string snapshot_before;
  std::uint64_t entry = 0;
  std::string detail;

  static constexpr const char* type_name = "rolled_back";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &rolled_back::session, "Id."),
        field("machine", &rolled_back::machine, "Id; the same as before."),
        field("snapshot", &rolled_back::snapshot, "Where it is now."),
        field("content", &rolled_back::content, "What came back."),
        opt("contexts", &rolled_back::contexts, "Contexts that are alive with their memory."),
        opt("snapshot_before", &rolled_back::snapshot_before, "What snapshot_first saved."),
        field("entry", &rolled_back::entry, "The rollback's own number in history."),
        opt("detail", &rolled_back::detail, "What did not come back, and why.")};
  }
  bool operator==(const rolled_back&) const = default;
};

/// Makes independent sessions out of one, each with its files and, where the machine can, its live
/// contexts.
struct fork_session {
  std::string session;
  std::uint32_t count = 1;
  std::string snapshot;
  bool memory = true;

  static constexpr const char* type_name = "fork";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &fork_session::session, "Id, name or machine id."),
        opt("count", &fork_session::count, "How many, 1 to 256."),
        opt("snapshot", &fork_session::snapshot, "Fork from this one; empty: from now."),
        opt("memory", &fork_session::memory, "Live contexts, too, where the machine can.")};
  }
  bool operator==(const fork_session&) const = default;
};

/// The new sessions are ready.
struct forked {
  std::vector<session_info> sessions;
  snapshot_content content = snapshot_content::files;
  std::vector<std::string> contexts;

  static constexpr const char* type_name = "forked";
  static constexpr auto fields() {
    return std::tuple{field("sessions", &forked::sessions, "The new ones."),
                      field("content", &forked::content, "What they have of the parent."),
                      opt("contexts", &forked::contexts, "Contexts that are alive in each.")};
  }
  bool operator==(const forked&) const = default;
};

/// Puts a session to sleep: no CPU, no machine; its files are on disk.
struct pause_session {
  std::string session;

  static constexpr const char* type_name = "pause_session";
  static constexpr auto fields() {
    return std::tuple{field("session", &pause_session::session, "Id, name or machine id.")};
  }
  bool operator==(const pause_session&) const = default;
};

/// Wakes a paused session. A job sent to one does the same.
struct resume_session {
  std::string session;

  static constexpr const char* type_name = "resume_session";
  static constexpr auto fields() {
    return std::tuple{field("session", &resume_session::session, "Id, name or machine id.")};
  }
  bool operator==(const resume_session&) const = default;
};

} // namespace berth
