// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/body.hpp"
#include "config/settings.hpp"
#include "messages/operations.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Translation between the Terraphim server's JSON and our messages. No sockets, no actors.
namespace berth::http::terraphim {

// --- chat ----------------------------------------------------------------------------------------

/// A chat request in all its clients' forms. `message` or `prompt` stands for one user message.
decoded<chat> read_chat(const json& body);

/// The text that clients show: the agent's word and, under the contract's headline, what its
/// programs gave.
std::string shown_text(const chat_reply& answer);

/// The answer to a chat; also of one that came to nothing.
json chat_json(const chat_reply& answer);
json chat_failed_json(const error& why, const chat& asked);

// --- workflows -----------------------------------------------------------------------------------

/// The pattern that any of the contract's names means, with `-` or `_`.
std::optional<workflow_pattern> pattern_of(std::string_view name);

/// A workflow request as the clients send it, taken apart.
struct workflow_request {
  run_workflow what;
  /// Answer at once, not when it ended.
  bool async = false;
  /// What the client asked for and does not get, one sentence each.
  std::vector<std::string> warnings;
};

/// Reads a workflow request of a pattern. Of `config` and `llm_config` what means something here is
/// taken; only configured endpoints of models are, any other becomes the role's own, and is told.
decoded<workflow_request> read_workflow(const json& body, workflow_pattern pattern,
                                        const settings& values);

/// What ended, or where it is, in the shape of its pattern.
json workflow_json(const workflow_info& info, const workflow_request& asked);
/// The answer to a workflow that did not begin.
json workflow_failed_json(const error& why, const workflow_request& asked);
/// The `result` of a workflow in the shape of its pattern; `threshold` is of optimization.
json result_json(const workflow_info& info, maybe<double> threshold = {});
/// `GET /workflows/{id}/status`, with its steps.
json status_json(const workflow_info& info);
/// `GET /workflows/{id}/trace`.
json trace_json(const workflow_info& info);

// --- progress ------------------------------------------------------------------------------------

/// An event as the data of an SSE event or of a WebSocket message, ids in both cases.
json event_json(const progress_event& event);

// --- configuration -------------------------------------------------------------------------------

/// `{status, config, roles}` around the configuration's text.
std::string config_body(const config_text& answer);
/// The text of the configuration that a client sends, wrapped in `config` or not.
decoded<set_config> read_config(const std::string& body);

} // namespace berth::http::terraphim
