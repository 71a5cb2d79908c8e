// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth {

/// Caps on what one job may ask for, in the contract's units. Both are enforced by
/// resolve_limits(): a request beyond a cap is refused, a default beyond it is lowered to it.
struct resource_limits {
  /// Memory of a job or a session, MiB. Absent: settings.maxima alone decides.
  maybe<std::uint64_t> max_memory_mb;
  /// Wall-clock time of a job, seconds. Absent: settings.maxima alone decides.
  maybe<std::uint64_t> max_execution_time_seconds;

  bool operator==(const resource_limits&) const = default;
};

/// What is looked for in programs before, and in output after a run.
struct security_settings {
  /// Whether code_rules looks for dangerous patterns. Enforced by the VALIDATOR.
  bool dangerous_patterns_check = true;
  /// Caps; see resource_limits.
  berth::resource_limits resource_limits;
  /// Whether secrets in output are replaced in replies, events and history. Enforced by the STREAM
  /// HUB (replies) and the HISTORY (entries).
  bool redact_output = true;
  /// What a dangerous pattern leads to: "block" refuses the program, "warn" runs it and keeps the
  /// reasons in its verdict. Enforced by the VALIDATOR.
  std::string pattern_action = "block";

  bool operator==(const security_settings&) const = default;
};

/// What is kept of jobs that ended.
struct history_settings {
  /// False: entries keep no code, arguments, metadata or output. Enforced by the HISTORY. A job is
  /// recorded all the same, for an acknowledged job must be found after a crash.
  bool enabled = true;
  /// Snapshot rules, kept for the SNAPSHOT STORE and reported to clients as they are.
  bool snapshot_on_execution = false;
  bool snapshot_on_failure = true;
  bool auto_rollback_on_failure = false;
  /// Entries of ended jobs kept for each agent; the oldest go first. Jobs without an agent are not
  /// counted. Enforced by the journal. A client's own default is 100; a server keeps more.
  std::uint64_t max_history_entries = 10'000;
  /// False: the journal lives in memory and ends with the server. Enforced by journal::open().
  bool persist_history = true;
  /// How a legacy client reaches the history: "http" or "direct". Reported to clients as it is.
  std::string integration_mode = "http";

  bool operator==(const history_settings&) const = default;
};

/// The `vm_execution` object of the Terraphim contract, with the defaults of a server. Each field
/// says where it is enforced. An unknown member of the object is ignored, as the contract asks.
struct vm_execution_policy {
  /// False: every program is blocked. Enforced by the VALIDATOR.
  bool enabled = true;
  /// Where legacy clients find the server. Reported to them as it is.
  std::string api_base_url = "http://localhost:8080";
  /// Plain machines kept started and idle, at least. Enforced by load_settings(), which raises
  /// pool.warm[""] to it; the SUPERVISOR keeps the pool so.
  std::uint32_t vm_pool_size = 1;
  /// Machine type of a session or job that names none, or an unknown one. Enforced by
  /// find_vm_type().
  std::string default_vm_type = "focal-optimized";
  /// Time limit of a job that names none. load_settings() makes it and settings.defaults.timeout_ms
  /// one number; resolve_limits() applies that.
  std::uint64_t execution_timeout_ms = 30'000;
  /// Canonical names. Enforced by the VALIDATOR.
  std::vector<std::string> allowed_languages{"python", "javascript", "bash", "rust", "go"};
  /// Whether a job that names an agent without a session opens one. Enforced by the SUPERVISOR's
  /// find_session: false makes it not_found.
  bool auto_provision = true;
  /// False: the VALIDATOR checks the language only. Bounds of the protocol hold all the same.
  bool code_validation = true;
  /// Length of a program in characters. Enforced by the VALIDATOR.
  std::uint64_t max_code_length = 10'000;
  /// What is kept; see history_settings.
  history_settings history;
  /// What is looked for; see security_settings.
  berth::security_settings security_settings;

  bool operator==(const vm_execution_policy&) const = default;
};

} // namespace berth
