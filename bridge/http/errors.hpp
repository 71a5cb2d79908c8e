// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/message.hpp"
#include "bridge/json.hpp"
#include "messages/caf.hpp"
#include "messages/errors.hpp"

/// How errors look over HTTP, the same for every facade that has no form of its own.
namespace berth::http {

/// The status that stands for an error code.
int status_of(ec code);

/// A reply with a JSON body.
reply json_reply(const json& body, int status = 200);

/// `{"status":"error","error","message","code","category","recoverable"}` with the status of the
/// code.
reply error_reply(ec code, const std::string& detail);

/// The same from an error of the GATEWAY, with Retry-After when it says when.
reply error_reply(const error& why);

/// The same with a status of its own, for what only HTTP knows.
reply error_reply(int status, std::string_view code, const std::string& detail);

/// The body of an error, to which a facade may add members.
json error_body(std::string_view code, const std::string& detail);

} // namespace berth::http
