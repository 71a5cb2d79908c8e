// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include "models/retry.hpp"
#include <optional>
#include <string>
#include <string_view>

namespace berth::models {

/// All that is known of a call that failed in the end.
struct failed_call {
  /// The endpoint as it may be shown.
  std::string endpoint;
  attempt_end end = attempt_end::network;
  int status = 0;
  /// What the endpoint or the network says, in one line.
  std::string why;
  /// Whether tools were offered.
  bool with_tools = false;
  std::uint32_t attempts = 1;
  std::optional<std::chrono::milliseconds> retry_after;
};

/// The error that the asker gets. It names the endpoint and the HTTP status.
error failure_of(const failed_call& failed);

/// Whether a model refuses to be given a temperature.
bool refuses_temperature(const failed_call& failed);

/// A text without a secret in it.
std::string without(std::string text, std::string_view secret);

} // namespace berth::models
