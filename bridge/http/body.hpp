// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/errors.hpp"
#include "bridge/http/message.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// What every facade needs to read JSON bodies and to write JSON answers.
namespace berth::http {

/// The JSON object in a body; an empty body is an empty object.
decoded<json> read_body(const request& what);

/// The reply to a request that cannot be understood.
reply malformed_reply(const malformed& why);

/// A text member; empty when it is absent or null.
decoded<std::string> read_text_member(const json& body, const char* name);

/// Unix milliseconds as RFC 3339 in UTC, for example 2026-01-31T12:00:00.123Z.
std::string to_rfc3339(std::int64_t unix_ms);
/// The time of an RFC 3339 text, or of a bare date; nothing when it is neither.
std::optional<std::int64_t> from_rfc3339(std::string_view text);
std::int64_t now_ms();

/// Sets a member under both its snake_case name and its camelCase name.
void put_twice(json& to, const std::string& name, const json& value);

/// The text, or null where it is empty.
json or_null(const std::string& text);

} // namespace berth::http
