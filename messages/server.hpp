// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <array>

/// What is said about the server itself.
namespace berth {

/// Where a slot is in its life. See actors/lifecycle.hpp for what leads where.
enum class slot_state : std::uint8_t { empty, starting, idle, leased, busy, ending };
inline constexpr std::array<std::string_view, 6> slot_state_names{"empty",  "starting", "idle",
                                                                  "leased", "busy",     "ending"};
constexpr std::span<const std::string_view> enum_names(slot_state) {
  return slot_state_names;
}

/// One slot of the pool.
struct slot_info {
  std::uint32_t slot = 0;
  slot_state state = slot_state::empty;
  std::string machine;
  std::string session;
  std::string warm;

  static constexpr const char* type_name = "slot_info";
  static constexpr auto fields() {
    return std::tuple{field("slot", &slot_info::slot, "Number."),
                      field("state", &slot_info::state, "Where it is in its life."),
                      opt("machine", &slot_info::machine, "Machine in it."),
                      opt("session", &slot_info::session, "Session that holds it."),
                      opt("warm", &slot_info::warm, "Language kept warm in it.")};
  }
  bool operator==(const slot_info&) const = default;
};

/// Asks for the pool.
struct get_pool {
  static constexpr const char* type_name = "pool";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const get_pool&) const = default;
};

/// The pool as it is now.
struct pool_info {
  std::uint32_t slots_max = 0;
  std::uint32_t machines = 0;
  std::uint32_t idle = 0;
  std::uint32_t leased = 0;
  std::uint32_t sessions = 0;
  std::uint32_t waiting = 0;
  std::uint32_t waiting_max = 0;
  std::uint64_t started_total = 0;
  std::uint64_t lost_total = 0;
  std::uint64_t jobs_total = 0;
  std::uint64_t warm_total = 0;
  std::uint64_t cold_total = 0;
  std::uint64_t cached_total = 0;
  bool breaker_open = false;
  std::string machine_kind;
  std::vector<slot_info> slots;

  static constexpr const char* type_name = "pool_info";
  static constexpr auto fields() {
    return std::tuple{
        field("slots_max", &pool_info::slots_max, "Machines that may exist at once."),
        field("machines", &pool_info::machines, "Machines that exist, starting ones included."),
        field("idle", &pool_info::idle, "Machines that wait for a job."),
        field("leased", &pool_info::leased, "Machines with a job or a session."),
        field("sessions", &pool_info::sessions, "Open sessions."),
        field("waiting", &pool_info::waiting, "Jobs that wait for a machine."),
        field("waiting_max", &pool_info::waiting_max, "Jobs that may wait."),
        field("started_total", &pool_info::started_total, "Machines started since the server did."),
        field("lost_total", &pool_info::lost_total, "Machines that died unasked."),
        field("jobs_total", &pool_info::jobs_total, "Jobs run."),
        field("warm_total", &pool_info::warm_total, "Jobs that a warm interpreter served."),
        field("cold_total", &pool_info::cold_total, "Jobs that needed a new process."),
        field("cached_total", &pool_info::cached_total, "Jobs whose binary was known."),
        field("breaker_open", &pool_info::breaker_open,
              "Whether machines fail so often that none is started for a while."),
        field("machine_kind", &pool_info::machine_kind, "Kind that serves."),
        field("slots", &pool_info::slots, "Every slot that is not empty.")};
  }
  bool operator==(const pool_info&) const = default;
};

/// Asks how the server is.
struct get_health {
  static constexpr const char* type_name = "health";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const get_health&) const = default;
};

/// How the server is.
struct health_info {
  std::string status;
  std::string version;
  std::uint64_t uptime_ms = 0;
  std::string machine_kind;
  std::vector<std::string> isolation;
  std::uint32_t jobs_alive = 0;
  std::uint32_t machines = 0;
  bool draining = false;

  static constexpr const char* type_name = "health_info";
  static constexpr auto fields() {
    return std::tuple{
        field("status", &health_info::status, "healthy, degraded (no machine starts) or draining."),
        field("version", &health_info::version, "Version of the server."),
        field("uptime_ms", &health_info::uptime_ms, "Age of the server."),
        field("machine_kind", &health_info::machine_kind, "Kind of machine that serves."),
        field("isolation", &health_info::isolation, "What holds a machine, one fact a line."),
        field("jobs_alive", &health_info::jobs_alive, "Jobs that wait or run."),
        field("machines", &health_info::machines, "Machines that exist."),
        field("draining", &health_info::draining, "Whether the server takes nothing new.")};
  }
  bool operator==(const health_info&) const = default;
};

/// Asks for the reference of all operations.
struct describe {
  static constexpr const char* type_name = "describe";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const describe&) const = default;
};

/// One member of a message in the reference.
struct field_info {
  std::string name;
  std::string type;
  bool required = true;
  std::string meaning;

  static constexpr const char* type_name = "field_info";
  static constexpr auto fields() {
    return std::tuple{field("name", &field_info::name, "Name on the wire."),
                      field("type", &field_info::type, "Type; `?` may be null, `[]` is a list."),
                      field("required", &field_info::required, "Whether it must be sent."),
                      opt("meaning", &field_info::meaning, "What it means, with its unit.")};
  }
  bool operator==(const field_info&) const = default;
};

/// One message type in the reference.
struct type_info {
  std::string name;
  std::vector<field_info> fields_of;

  static constexpr const char* type_name = "type_info";
  static constexpr auto fields() {
    return std::tuple{field("name", &type_info::name, "Name of the type."),
                      field("fields", &type_info::fields_of, "Members in order.")};
  }
  bool operator==(const type_info&) const = default;
};

/// One operation in the reference.
struct operation_info {
  std::string op;
  std::string meaning;
  std::string request;
  std::string reply;

  static constexpr const char* type_name = "operation_info";
  static constexpr auto fields() {
    return std::tuple{field("op", &operation_info::op, "Name on the wire."),
                      field("meaning", &operation_info::meaning, "What it does."),
                      field("request", &operation_info::request, "Type of its body."),
                      field("reply", &operation_info::reply, "Type of its answer.")};
  }
  bool operator==(const operation_info&) const = default;
};

/// One error code in the reference.
struct error_info {
  std::uint32_t code = 0;
  std::string name;

  static constexpr const char* type_name = "error_info";
  static constexpr auto fields() {
    return std::tuple{field("code", &error_info::code, "Number; frozen."),
                      field("name", &error_info::name, "Name; frozen.")};
  }
  bool operator==(const error_info&) const = default;
};

/// The reference: every operation, every type, every error.
struct description {
  std::string protocol;
  std::vector<operation_info> operations;
  std::vector<type_info> types;
  std::vector<error_info> errors;

  static constexpr const char* type_name = "description";
  static constexpr auto fields() {
    return std::tuple{field("protocol", &description::protocol, "Name and version."),
                      field("operations", &description::operations, "All operations."),
                      field("types", &description::types, "All types that they use."),
                      field("errors", &description::errors, "All error codes.")};
  }
  bool operator==(const description&) const = default;
};

/// A state change, published as an event on `job.<id>.state`, `session.<id>`, `vm.<id>` or `pool`.
struct state_event {
  std::string id;
  std::string state;
  std::string detail;
  std::int64_t at_ms = 0;

  static constexpr const char* type_name = "state_event";
  static constexpr auto fields() {
    return std::tuple{field("id", &state_event::id, "Of the job, session or machine."),
                      field("state", &state_event::state, "The new state."),
                      opt("detail", &state_event::detail, "What happened, for a human."),
                      field("at_ms", &state_event::at_ms, "Unix time, ms.")};
  }
  bool operator==(const state_event&) const = default;
};

/// Output, published as an event on `job.<id>.stdout` and `job.<id>.stderr`.
struct output_event {
  std::string job;
  std::uint64_t offset = 0;
  bytes data;

  static constexpr const char* type_name = "output_event";
  static constexpr auto fields() {
    return std::tuple{
        field("job", &output_event::job, "Id of the job."),
        field("offset", &output_event::offset,
              "Where the bytes are in their stream; a jump is a gap: `read` fills it."),
        field("data", &output_event::data, "The bytes.")};
  }
  bool operator==(const output_event&) const = default;
};

} // namespace berth
