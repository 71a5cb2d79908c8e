// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/pattern.hpp"

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace berth {

/// What of a workflow is recorded first, and again when its status changes; its steps have records
/// of their own.
struct workflow_head {
  run_workflow request;
  workflow_info info;

  static constexpr const char* type_name = "workflow_head";
  static constexpr auto fields() {
    return std::tuple{field("request", &workflow_head::request, "What was asked."),
                      field("info", &workflow_head::info, "Without its steps.")};
  }
  bool operator==(const workflow_head&) const = default;
};

/// What came of a step that somebody was asked for.
struct step_answer {
  std::string output;
  /// Why there is none, or why it is not whole.
  std::string error;
  std::string model;
  std::string session;
  model_usage usage;
  std::vector<agent_act> acts;
};

/// One run of a workflow: which steps there are, which are under way, how it ends. Plain logic;
/// what follows from each call is in `effects`, for an actor to do in this order: record, tell,
/// begin.
class workflow_run {
public:
  struct effects {
    bool head = false;
    /// Steps whose records changed, by their places.
    std::set<std::size_t> steps;
    std::vector<progress_event> events;
    /// Steps that somebody is to be asked for, by their places.
    std::vector<std::size_t> begun;
    /// Conversations of attempts that were lost.
    std::vector<std::string> abandoned;
  };

  workflow_run(workflow_head head, std::vector<step_info> steps, std::size_t at_once_max);

  const run_workflow& request() const { return request_; }
  /// With its steps.
  const workflow_info& info() const { return info_; }
  workflow_head head() const;
  /// As a new server takes it over.
  workflow_run taken_over() const;
  bool ended() const { return is_terminal(info_.status); }

  /// Starts it, or goes on with what a former server left: steps that were under way are repeated.
  effects start(role_list roles, std::int64_t now_ms);
  /// A step came to its end.
  effects finish(std::size_t step, step_answer answer, std::int64_t now_ms);
  effects pause(std::int64_t now_ms);
  effects resume(std::int64_t now_ms);
  /// Begins no other step. It ends when those under way did, or by end_now().
  effects cancel(std::int64_t now_ms);
  /// Ends at once what is cancelled, without waiting for its steps.
  effects end_now(std::int64_t now_ms);
  /// Ends what the server that ran it did not survive; start() goes on with it.
  effects interrupt(std::int64_t now_ms);
  /// Ends it for a fault that is not of its steps.
  effects give_up(const std::string& why, std::int64_t now_ms);

  /// How a step under way is to be asked.
  const step_order& order(std::size_t step) const { return orders_.at(step); }
  /// The places of the steps that are under way.
  std::vector<std::size_t> under_way() const;

private:
  void advance(effects& done, std::int64_t now_ms);
  bool begin_what_may(effects& done, const std::vector<step_order>& orders, std::int64_t now_ms);
  void begin(effects& done, step_order order, std::int64_t now_ms);
  void take_given(effects& done, std::size_t place, const step_order& order, std::int64_t now_ms);
  void close_step(effects& done, std::size_t place, std::int64_t now_ms);
  void end(effects& done, const ending& how, std::int64_t now_ms);
  void refresh(std::size_t steps_expected);
  std::string cast(effects& done, const step_order& order);
  std::string conversation_of(const step_info& step) const;
  void tell(effects& done, progress_kind kind, const std::string& step, std::string name,
            const std::string& text, std::uint32_t number = 0) const;

  run_workflow request_;
  workflow_info info_;
  const pattern* pattern_;
  role_list roles_;
  std::map<std::size_t, step_order> orders_;
  std::set<std::string> stand_ins_told_;
  std::size_t at_once_max_;
  bool cancelling_ = false;
};

} // namespace berth
