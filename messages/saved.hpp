// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/snapshot.hpp"

/// What the server keeps of a saved state, and what its actors say to each other about it.
namespace berth {

/// What a saved state is kept for.
enum class saved_kind : std::uint8_t {
  /// Somebody asked for it, or a rule did: kept until deleted or evicted.
  snapshot,
  /// The server's own: what a session would wake up with. The next one of the session replaces it.
  checkpoint,
};
inline constexpr std::array<std::string_view, 2> saved_kind_names{"snapshot", "checkpoint"};
constexpr std::span<const std::string_view> enum_names(saved_kind) {
  return saved_kind_names;
}

/// A saved state as the SNAPSHOT STORE keeps it: what a client sees of it, and what restoring
/// needs.
struct saved_state {
  snapshot_info info;
  session_info session;
  saved_kind kind = saved_kind::snapshot;
  std::string base;
  bool deleted = false;
  bool job_succeeded = false;
  std::uint64_t sequence = 0;
  std::uint64_t archive_bytes = 0;
  std::uint64_t archive_sum = 0;

  static constexpr const char* type_name = "saved_state";
  static constexpr auto fields() {
    return std::tuple{
        field("info", &saved_state::info),
        field("session", &saved_state::session, "The session as it was then, with its limits."),
        field("kind", &saved_state::kind),
        opt("base", &saved_state::base, "The state that the archive adds to; empty: the image."),
        opt("deleted", &saved_state::deleted, "Gone for clients; later ones need its bytes."),
        opt("job_succeeded", &saved_state::job_succeeded, "Whether its last job exited with 0."),
        field("sequence", &saved_state::sequence, "Grows with every state that is kept."),
        field("archive_bytes", &saved_state::archive_bytes, "0: nothing changed, no file."),
        field("archive_sum", &saved_state::archive_sum)};
  }
  bool operator==(const saved_state&) const = default;
};

/// Saved states.
struct saved_states {
  std::vector<saved_state> states;

  static constexpr const char* type_name = "saved_states";
  static constexpr auto fields() { return std::tuple{field("states", &saved_states::states)}; }
  bool operator==(const saved_states&) const = default;
};

// --- to the SNAPSHOT STORE
// ------------------------------------------------------------------------

/// Opens a file for the archive of a state that is to be kept. Answered by the open file.
struct begin_save {
  std::string state;

  static constexpr const char* type_name = "begin_save";
  static constexpr auto fields() { return std::tuple{field("state", &begin_save::state)}; }
  bool operator==(const begin_save&) const = default;
};

/// The archive is written, or there is none: makes the state durable. Answered when it is.
struct finish_save {
  saved_state state;

  static constexpr const char* type_name = "finish_save";
  static constexpr auto fields() { return std::tuple{field("state", &finish_save::state)}; }
  bool operator==(const finish_save&) const = default;
};

/// The archive could not be written: forget what there is of it.
struct abandon_save {
  std::string state;

  static constexpr const char* type_name = "abandon_save";
  static constexpr auto fields() { return std::tuple{field("state", &abandon_save::state)}; }
  bool operator==(const abandon_save&) const = default;
};

/// The state is durable; these had to go for it.
struct save_finished {
  saved_state state;
  std::vector<std::string> evicted;

  static constexpr const char* type_name = "save_finished";
  static constexpr auto fields() {
    return std::tuple{field("state", &save_finished::state),
                      opt("evicted", &save_finished::evicted)};
  }
  bool operator==(const save_finished&) const = default;
};

/// Opens the archives that a state is restored from, each checked to its last byte. Answered by
/// their states, oldest first, and the open files, in the same order.
struct open_archives {
  std::string state;

  static constexpr const char* type_name = "open_archives";
  static constexpr auto fields() { return std::tuple{field("state", &open_archives::state)}; }
  bool operator==(const open_archives&) const = default;
};

/// A session lives, or is over: then only its snapshots stay, and may be evicted.
struct keep_states {
  std::string session;
  bool alive = true;

  static constexpr const char* type_name = "keep_states";
  static constexpr auto fields() {
    return std::tuple{field("session", &keep_states::session), field("alive", &keep_states::alive)};
  }
  bool operator==(const keep_states&) const = default;
};

// --- to a SLOT
// ------------------------------------------------------------------------------------

/// Saves the state of the machine under a number, between two jobs. Answered by slot_frozen.
struct freeze_slot {
  std::uint64_t checkpoint = 0;
  bool memory = true;

  static constexpr const char* type_name = "freeze_slot";
  static constexpr auto fields() {
    return std::tuple{field("checkpoint", &freeze_slot::checkpoint),
                      opt("memory", &freeze_slot::memory, "Live interpreters, too.")};
  }
  bool operator==(const freeze_slot&) const = default;
};

/// The state is saved in the machine, and can be gone back to.
struct slot_frozen {
  std::vector<std::string> contexts;

  static constexpr const char* type_name = "slot_frozen";
  static constexpr auto fields() {
    return std::tuple{opt("contexts", &slot_frozen::contexts, "Whose memory it holds.")};
  }
  bool operator==(const slot_frozen&) const = default;
};

/// Takes the machine back to a state. Answered by slot_rolled.
struct roll_slot {
  std::uint64_t checkpoint = 0;

  static constexpr const char* type_name = "roll_slot";
  static constexpr auto fields() { return std::tuple{field("checkpoint", &roll_slot::checkpoint)}; }
  bool operator==(const roll_slot&) const = default;
};

/// The machine is back at the state.
struct slot_rolled {
  std::vector<std::string> contexts;
  std::string detail;

  static constexpr const char* type_name = "slot_rolled";
  static constexpr auto fields() {
    return std::tuple{opt("contexts", &slot_rolled::contexts, "Alive with their memory."),
                      opt("detail", &slot_rolled::detail, "What did not come back, and why.")};
  }
  bool operator==(const slot_rolled&) const = default;
};

/// A state of the machine, or only the interpreters parked under it, is not needed again.
struct drop_slot_state {
  std::uint64_t checkpoint = 0;
  bool files = true;
  bool memory = true;

  static constexpr const char* type_name = "drop_slot_state";
  static constexpr auto fields() {
    return std::tuple{field("checkpoint", &drop_slot_state::checkpoint),
                      field("files", &drop_slot_state::files),
                      field("memory", &drop_slot_state::memory)};
  }
  bool operator==(const drop_slot_state&) const = default;
};

/// From a machine: a step on its files has ended.
struct files_ended {
  std::uint32_t step = 0;
  std::uint64_t checkpoint = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t skipped = 0;
  std::string error;

  static constexpr const char* type_name = "files_ended";
  static constexpr auto fields() {
    return std::tuple{field("step", &files_ended::step),
                      field("checkpoint", &files_ended::checkpoint),
                      opt("bytes", &files_ended::bytes_written),
                      opt("skipped", &files_ended::skipped), opt("error", &files_ended::error)};
  }
  bool operator==(const files_ended&) const = default;
};

/// Writes what changed between two states to an open file, which travels beside this.
struct save_slot {
  std::uint64_t checkpoint = 0;
  std::uint64_t since = 0;
  std::uint64_t bytes_max = 0;

  static constexpr const char* type_name = "save_slot";
  static constexpr auto fields() {
    return std::tuple{field("checkpoint", &save_slot::checkpoint),
                      field("since", &save_slot::since, "0: from the empty machine."),
                      field("bytes_max", &save_slot::bytes_max)};
  }
  bool operator==(const save_slot&) const = default;
};

/// The archive is written, not yet synced.
struct slot_saved {
  std::uint64_t bytes_written = 0;
  std::uint64_t skipped = 0;

  static constexpr const char* type_name = "slot_saved";
  static constexpr auto fields() {
    return std::tuple{field("bytes", &slot_saved::bytes_written),
                      opt("skipped", &slot_saved::skipped, "Files of kinds that are not saved.")};
  }
  bool operator==(const slot_saved&) const = default;
};

} // namespace berth
