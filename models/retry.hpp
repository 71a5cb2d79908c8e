// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "models/limits.hpp"
#include <chrono>
#include <cstdint>
#include <optional>

namespace berth::models {

/// How one attempt at a call ended.
enum class attempt_end : std::uint8_t {
  /// A whole answer.
  answered,
  /// No connection, or it broke before the answer was whole.
  network,
  /// A status that is none of success; `status` says which. An error that is said inside a stream
  /// counts as a 500.
  refused,
  /// An answer that nobody can read.
  broken,
  /// More than the bound.
  too_large,
  /// Nothing came for too long.
  silence,
  /// The time of the call is over.
  deadline,
  /// The connection cannot be trusted or made at all: certificate, address.
  hopeless,
  /// Whoever asked does not want it any more.
  cancelled
};

/// What is known when an attempt failed.
struct failed_attempt {
  attempt_end end = attempt_end::network;
  int status = 0;
  /// What the endpoint asked for with Retry-After.
  std::optional<std::chrono::milliseconds> retry_after;
  /// Whether a piece of the answer was passed on: it cannot be taken back.
  bool passed_on = false;
  /// Attempts made, this one included.
  std::uint32_t attempts = 1;
  /// Until the call's deadline.
  std::chrono::milliseconds time_left{0};
};

/// How long to wait before the call is tried again; nothing: it is not. Only what may pass by
/// itself is tried again: the network, a server's own fault (5xx), and too many requests (429). The
/// pause doubles, is spread by `chance` (0 to 1) over its second half, and is never shorter than
/// what the endpoint asks for.
std::optional<std::chrono::milliseconds> retry_delay(const failed_attempt& failed,
                                                     std::uint32_t attempts_max, double chance);

} // namespace berth::models
