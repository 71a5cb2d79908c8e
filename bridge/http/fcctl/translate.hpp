// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/code_blocks.hpp"
#include "bridge/http/body.hpp"
#include "config/settings.hpp"
#include "messages/operations.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// Translation between the contract's JSON and our messages. No sockets, no actors.
namespace berth::http::fcctl {

/// An execute request as the clients send it, taken apart.
struct execute_request {
  run job;
  /// The client's own metadata, given back as it came.
  json metadata = json::object();
  /// The client's own id of the execution; empty: the job's.
  std::string execution_id;
  /// What the client asked for and does not get, one sentence each.
  std::vector<std::string> warnings;
};

/// Reads an execute request, all clients' variants. Both timeouts are known, seconds win; null and
/// 0 are as absent. What the job gets is a little less than the client's limit, since the clients
/// give up on the connection at the same moment.
decoded<execute_request> read_execute(const json& body, const settings& values);

/// Clients name machine types that the server may not have: such a one becomes the default, and the
/// text says so. Empty when the name stays.
std::string settle_vm_type(std::string& name, const settings& values);

/// A client's timeout in milliseconds; absent when there is none.
decoded<maybe<std::uint64_t>> read_timeout(const json& body);

/// The exit code that stands for how a job ended.
std::int32_t exit_code_of(const outcome& ended);
/// Why a job did not end by itself; null when it did.
json error_of(const outcome& ended);

/// The answer to an execute request: the union of what the clients read.
json execute_response(const outcome& ended, const execute_request& asked);
/// The text for a blocked program: `Code validation failed: ...`, every reason.
std::string blocked_text(const std::vector<std::string>& reasons, const std::string& detail);

/// A machine's status as the clients compare it: "running" only when a job would run now.
std::string status_of_session(session_state state);
/// A stable address of the pool 172.26.0.2 to .254. Cosmetic: nothing listens there.
std::string address_of(const std::string& vm_id);

/// `VmInstance` and all else that the clients read of one machine.
json vm_json(const session_info& info);
/// The `vm_execution` object in force, with every field of the clients' structure.
json pool_config_json(const settings& values);
/// What can be said of a session that is not open, by its id or its machine's.
session_info past_session(const std::string& id);

/// A snapshot, in both naming styles.
json snapshot_json(const snapshot_info& info);
/// What a rollback came to.
json rolled_back_json(const rolled_back& answer);

/// One history entry in both naming styles; nothing for a job that has not ended. `snapshot_id` is
/// a snapshot that holds the state after it: rolling back to a success gives its result back.
std::optional<json> entry_json(const entry& past, const std::vector<snapshot_info>& snapshots);
/// `{history, entries, total}`.
json history_json(const history_page& page, const std::string& vm_id,
                  const std::vector<snapshot_info>& snapshots);
json block_json(const code_block& block);
json intent_json(const execution_intent& intent);

} // namespace berth::http::fcctl
