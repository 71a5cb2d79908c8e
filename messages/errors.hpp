// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace berth {

/// Why a request was not served. The numbers are on the wire: never change one, never use one
/// again.
enum class ec : std::uint8_t {
  /// No error; never sent.
  none = 0,
  /// The bytes or a member of the request cannot be understood; the detail names the member.
  malformed = 1,
  /// The operation, the language or the combination asked for does not exist here.
  unsupported = 2,
  /// The client is not who it must be.
  unauthorized = 3,
  /// The job, session, file or machine named does not exist.
  not_found = 4,
  /// The id or name is in use.
  already_exists = 5,
  /// No slot, no place in a queue, no memory left for it. Comes with a retry hint.
  no_capacity = 6,
  /// The policy forbids it; the detail gives every reason.
  rejected = 7,
  /// Larger than a limit; the detail names the limit.
  too_large = 8,
  /// The state of the job or session does not allow it now.
  conflict = 9,
  /// The answer did not come in time.
  deadline = 10,
  /// A machine could not be started or was lost.
  machine_failed = 11,
  /// The journal could not be written or read.
  store_failed = 12,
  /// The server drains and takes nothing new.
  shutting_down = 13,
  /// The host cannot give the isolation asked for.
  isolation_unavailable = 14,
  /// A fault of the server itself.
  internal = 15,
};

inline constexpr std::array<std::string_view, 16> ec_names{
    "none",           "malformed",      "unsupported",  "unauthorized",  "not_found",
    "already_exists", "no_capacity",    "rejected",     "too_large",     "conflict",
    "deadline",       "machine_failed", "store_failed", "shutting_down", "isolation_unavailable",
    "internal"};

static_assert(ec_names.size() == static_cast<std::size_t>(ec::internal) + 1);

constexpr std::span<const std::string_view> enum_names(ec) {
  return ec_names;
}

/// The name of an error code, as CAF prints it.
inline std::string to_string(ec code) {
  return std::string{name_of(code)};
}

/// A refusal as a client sees it.
struct refusal {
  std::uint32_t code = 0;
  std::string name;
  std::string detail;
  maybe<std::uint32_t> retry_after_ms;

  static constexpr const char* type_name = "refusal";
  static constexpr auto fields() {
    return std::tuple{field("code", &refusal::code, "Number of the error; frozen."),
                      field("name", &refusal::name, "Name of the error; frozen."),
                      field("detail", &refusal::detail,
                            "What was wrong, for a human; names the member at fault."),
                      opt("retry_after_ms", &refusal::retry_after_ms, "When a retry may succeed.")};
  }
  bool operator==(const refusal&) const = default;
};

} // namespace berth
