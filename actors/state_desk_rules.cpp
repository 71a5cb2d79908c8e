// SPDX-License-Identifier: Apache-2.0
#include "actors/state_desk.hpp"
#include "config/log.hpp"

#include <utility>

/// The STATE DESK's rules around a job: what vm_execution.history asks for.
namespace berth {

namespace {

/// Adds a sentence to an outcome's detail.
void note(outcome& to, const std::string& what) {
  to.detail += (to.detail.empty() ? "" : "; ") + what;
}

} // namespace

bool state_desk::may_start(const std::string& session, const std::string& job) {
  session_states* own = find(session);
  if (own == nullptr)
    return true;
  if (own->held)
    return false;
  if (!rules().snapshot_on_execution && !rules().auto_rollback_on_failure)
    return true;
  // The state before a job is only its own when no other runs: these rules put jobs in a row.
  if (host_.running(session) > 0)
    return false;
  if (own->ready_for == job)
    return true;
  save_before(session, job);
  own = find(session);
  return own != nullptr && !own->held && own->ready_for == job;
}

void state_desk::save_before(const std::string& session, const std::string& job) {
  session_states& own = sessions_.at(session);
  own.before.clear();
  own.before_note.clear();
  bool visible = rules().snapshot_on_execution;
  auto number = own.machine.number_of(own.current);
  if (!visible && !own.changed && number && own.machine.find(*number)->memory) {
    own.before = own.current; // nothing happened since it was frozen
    own.ready_for = job;
    return;
  }
  hold(session);
  label as{.kind = visible ? saved_kind::snapshot : saved_kind::checkpoint,
           .reason = snapshot_reason::before_job,
           .name = visible ? "before-job" : ""};
  find_entry(visible ? own.last_job : "", [this, session, job, visible, as](std::uint64_t entry) {
    if (session_states* here = find(session); here != nullptr && entry != 0)
      here->last_entry = entry;
    freeze(session, as, [this, session, job, visible](expected<std::string> id) {
      session_states* here = find(session);
      if (here == nullptr)
        return;
      here->ready_for = job;
      if (id)
        here->before = *id;
      else
        here->before_note = "its state before was not saved: " + to_refusal(id.error()).detail;
      if (id && visible)
        save_behind(session, *id);
      release(session);
    });
  });
}

bool state_desk::job_ended(const std::string& session, outcome& result,
                           const caf::typed_response_promise<outcome>& promise) {
  session_states* own = find(session);
  if (own == nullptr)
    return false;
  bool ran = result.started_at_ms != 0;
  bool mine = own->ready_for == result.job;
  own->last_change = host_.time();
  if (mine) {
    const saved_state* before = state(own->before);
    if (before != nullptr && before->kind == saved_kind::snapshot)
      result.snapshot_before = own->before;
    if (!own->before_note.empty())
      note(result, std::exchange(own->before_note, {}));
  }
  if (!ran)
    return false;
  own->changed = true;
  own->last_job = result.job;
  own->last_entry = 0;
  own->last_succeeded = result.state == job_state::exited && result.exit_code.value_or(-1) == 0;
  bool over = result.state == job_state::machine_lost || result.state == job_state::interrupted;
  if (own->last_succeeded || over || parking_ || own->held || own->going_back
      || host_.slot_of(session) == nullptr)
    return false;
  bool back = rules().auto_rollback_on_failure && mine && !own->before.empty();
  if (!rules().snapshot_on_failure && !back)
    return false;
  if (host_.running(session) > 0) {
    if (rules().snapshot_on_failure)
      note(result, "no snapshot was taken: other jobs of the session run");
    return false;
  }
  hold(session);
  after_failure(session, std::move(result), promise);
  return true;
}

void state_desk::after_failure(const std::string& session, outcome result,
                               caf::typed_response_promise<outcome> promise) {
  if (!rules().snapshot_on_failure)
    return roll_back_failed(session, std::move(result), std::move(promise));
  auto kept = std::make_shared<outcome>(std::move(result));
  label as{.reason = snapshot_reason::after_failure, .name = "after-failure"};
  freeze(session, as, [this, session, kept, promise](expected<std::string> id) {
    if (id) {
      kept->snapshot_after = *id;
      save_behind(session, *id);
    } else {
      note(*kept, "no snapshot was taken: " + to_refusal(id.error()).detail);
    }
    roll_back_failed(session, std::move(*kept), promise);
  });
}

void state_desk::roll_back_failed(const std::string& session, outcome result,
                                  caf::typed_response_promise<outcome> promise) {
  session_states* own = find(session);
  if (own == nullptr || !rules().auto_rollback_on_failure || own->before.empty()
      || own->ready_for != result.job)
    return hand_over(session, std::move(result), std::move(promise));
  // What a session was taken back to is worth keeping, and has an id to speak of.
  std::string target = own->before;
  if (const saved_state* before = state(target);
      before != nullptr && before->kind == saved_kind::checkpoint) {
    saved_state promoted = *before;
    promoted.kind = saved_kind::snapshot;
    promoted.info.reason = snapshot_reason::before_job;
    promoted.info.name = "before-failure";
    bool durable = promoted.info.durable;
    known_.put(std::move(promoted));
    if (!durable)
      save_behind(session, target);
  }
  auto kept = std::make_shared<outcome>(std::move(result));
  go_to(session, target, [this, session, kept, promise](expected<rolled_back> back) mutable {
    if (!back) {
      note(*kept, "it was not rolled back: " + to_refusal(back.error()).detail);
      return hand_over(session, std::move(*kept), std::move(promise));
    }
    kept->rolled_back_to = back->snapshot;
    host_.publish(session, "rolled_back", back->snapshot);
    note_tip(session, back->snapshot, [](const error&) {});
    record_rollback(session, std::move(*back), [](const rolled_back&) {});
    hand_over(session, std::move(*kept), std::move(promise));
  });
}

void state_desk::hand_over(const std::string& session, outcome result,
                           caf::typed_response_promise<outcome> promise) {
  host_.answer(std::move(promise), std::move(result));
  release(session);
}

} // namespace berth
