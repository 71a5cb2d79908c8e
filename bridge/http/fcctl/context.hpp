// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"
#include "bridge/http/fcctl/translate.hpp"
#include "config/settings.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

/// The parts of the fcctl facade. Only its own sources include this.
namespace berth::http::fcctl {

/// What every route of the facade needs. Lives on the server's thread.
struct context {
  desk gateway;
  const settings& values;
  /// The last measure of a machine's CPU time, for the load between two asks.
  struct cpu_sample {
    std::uint64_t cpu_us = 0;
    std::uint64_t uptime_ms = 0;
  };
  std::map<std::string, cpu_sample> samples = {};
};

using shared_context = std::shared_ptr<context>;

/// The reply to an execute request: the outcome, or the refusal of a blocked program.
reply outcome_reply(const outcome& ended, const execute_request& asked);

/// Finds one session by id, name or machine id and goes on with it; answers 404 without.
void with_session(const shared_context& c, const std::string& id, const responder& done,
                  std::function<void(const session_info&)> go_on);

/// Runs programs one after the other. `each` is told how each one ended, in order; then `finished`.
void run_in_order(const shared_context& c, std::vector<execute_request> jobs,
                  std::function<void(const execute_request&, expected<outcome>)> each,
                  std::function<void()> finished);

/// The programs of a text that are to be run, ready to be run; what cannot be goes to `errors`.
struct parsed_text {
  std::vector<code_block> blocks;
  std::vector<execute_request> jobs;
  std::vector<std::string> errors;
  execution_intent intent;
};

/// Reads a parse-execute request. Runs are chosen when `auto_execute` asks for them.
decoded<parsed_text> read_parse_execute(const json& body, const settings& values);

/// The query of a machine's history; `body` holds limit, failures_only, agent_id, before and dates.
decoded<query_history> read_history_query(const std::map<std::string, std::string>& members,
                                          const std::string& machine);

/// What a client asks to be saved, or to be taken back to. A body must name the snapshot where the
/// path does not.
decoded<take_snapshot> read_snapshot(const json& body, const std::string& session);
decoded<rollback> read_rollback(const json& body, const std::string& session,
                                const std::string& snapshot_of_path = {});

/// Saves a session as a request asks; replies with the snapshot and `status`.
void save_state(const shared_context& c, const request& what, const std::string& session,
                int status, const responder& done);
/// Takes a session back as a request asks.
void take_back(const shared_context& c, const request& what, const std::string& session,
               const std::string& snapshot_of_path, const responder& done);

/// Past jobs of a machine as the clients read them, with the snapshots that hold their results.
void ask_history(const shared_context& c, query_history wish, const std::string& id,
                 std::function<void(const expected<json>&, bool is_open)> then);

void add_execute_routes(router& routes, const shared_context& c);
void add_machine_routes(router& routes, const shared_context& c);
void add_file_routes(router& routes, const shared_context& c);
void add_state_routes(router& routes, const shared_context& c);
void add_session_routes(router& routes, const shared_context& c);
void add_live_routes(router& routes, const shared_context& c);

} // namespace berth::http::fcctl
