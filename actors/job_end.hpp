// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/ids.hpp"
#include "messages/types.hpp"

namespace berth {

/// Completes what a machine tells of a job's end by what the order knows: whose job it was, what it
/// was judged, when it came.
inline void complete(outcome& ended, const job_order& order) {
  ended.job = order.job;
  ended.language = order.request.language;
  ended.agent_id = order.request.agent_id;
  ended.session = order.request.session;
  ended.verdict.decision = order.verdict.decision;
  ended.verdict.reasons = order.verdict.reasons;
  ended.verdict.code.clear();
  ended.submitted_at_ms = order.submitted_at_ms;
  if (ended.ended_at_ms == 0)
    ended.ended_at_ms = unix_ms();
}

} // namespace berth
