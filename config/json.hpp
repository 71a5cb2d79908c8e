// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/codec.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

/// JSON of others, within bounds, and JSON for others, which is always UTF-8.
namespace berth {

using json = nlohmann::json;

/// How much a JSON text may make us allocate.
struct json_bounds {
  std::size_t text_bytes = limits::request_bytes_max;
  /// Values of the whole text, members and elements alike.
  std::size_t values = 4 * limits::elements_max;
  std::size_t depth = 64;
};

/// Parses one JSON value within bounds. The last of equal member names wins. Never throws, never
/// recurses.
decoded<json> parse_json(std::string_view text, const json_bounds& bounds = {});

/// JSON as text on one line. What is not UTF-8 becomes U+FFFD. Never throws.
std::string json_text(const json& value);

/// Text that is UTF-8 for certain: what is not well formed becomes U+FFFD, one for each byte.
std::string to_utf8(std::string_view data);

} // namespace berth
