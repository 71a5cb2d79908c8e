// SPDX-License-Identifier: Apache-2.0
#include "actors/ids.hpp"
#include "actors/state_desk.hpp"
#include "config/log.hpp"

#include <utility>

/// The STATE DESK's way to the disk: one archive at a time for each session, in order.
namespace berth {

void state_desk::save_behind(const std::string& session, const std::string& id) {
  if (session_states* own = find(session)) {
    own->saves.push_back(id);
    save_next(session);
  }
}

void state_desk::save_next(const std::string& session) {
  session_states* own = find(session);
  const slot_actor* slot = host_.slot_of(session);
  if (own == nullptr || own->saving || own->saves.empty())
    return;
  std::string id = own->saves.front();
  own->saving = true;
  if (slot == nullptr || !own->machine.number_of(id) || state(id) == nullptr)
    return on_saved(session, id, fail(ec::machine_failed, "the state is no longer in the machine"));
  self_->request(parts_.store, caf::infinite, begin_save{.state = id})
      .then([this, session, id](const open_files& file) { write_archive(session, id, file); },
            [this, session, id](const error& why) { on_saved(session, id, why); });
}

void state_desk::write_archive(const std::string& session, const std::string& id,
                               const open_files& file) {
  session_states* own = find(session);
  const slot_actor* slot = host_.slot_of(session);
  std::uint64_t number = own == nullptr ? 0 : own->machine.number_of(id).value_or(0);
  auto give_up = [this, session, id](const error& why) {
    self_->send(parts_.store, abandon_save{.state = id});
    on_saved(session, id, why);
  };
  const saved_state* known = state(id);
  if (slot == nullptr || number == 0 || known == nullptr)
    return give_up(fail(ec::machine_failed, "the state is no longer in the machine"));
  saved_state whole = *known;
  std::uint64_t since = 0;
  whole.base = base_of(*own, number, since);
  known_.put(whole);
  for (std::uint64_t each : {number, since})
    ++own->pinned[each];
  auto let_go = [this, session, both = std::pair{number, since}] {
    for (std::uint64_t each : {both.first, both.second})
      unpin(session, each);
  };
  std::uint64_t most = parts_.config->snapshots.bytes_max;
  self_
      ->request(*slot, caf::infinite,
                save_slot{.checkpoint = number, .since = since, .bytes_max = most}, file)
      .then(
          [this, session, whole, let_go](const slot_saved& answer) {
            let_go();
            if (answer.skipped > 0)
              log::info("states", "left out files of kinds that are not saved",
                        {{"session", session}, {"files", std::to_string(answer.skipped)}});
            finish(session, whole);
          },
          [let_go, give_up](const error& why) {
            let_go();
            give_up(why);
          });
}

void state_desk::finish(const std::string& session, saved_state whole) {
  std::string id = whole.info.snapshot;
  // The job's entry may have been written only now; a number that is known need not be asked for.
  find_entry(whole.info.entry == 0 ? whole.info.job : std::string{},
             [this, session, id, whole](std::uint64_t entry) mutable {
               if (state(id)
                   == nullptr) { // the session was closed, or its machine was lost, meanwhile
                 self_->send(parts_.store, abandon_save{.state = id});
                 return on_saved(session, id, fail(ec::conflict, "the session was closed"));
               }
               whole.info.entry = entry == 0 ? whole.info.entry : entry;
               self_->request(parts_.store, caf::infinite, finish_save{.state = std::move(whole)})
                   .then([this, session,
                          id](save_finished& kept) { on_saved(session, id, std::move(kept)); },
                         [this, session, id](const error& why) { on_saved(session, id, why); });
             });
}

void state_desk::on_saved(const std::string& session, const std::string& id,
                          expected<save_finished> result) {
  session_states* own = find(session);
  bool mine = own != nullptr && !own->saves.empty() && own->saves.front() == id;
  if (mine) {
    own->saving = false;
    // The budget is held by what this one adds to, or that has gone meanwhile: on its own it needs
    // neither.
    const saved_state* known = state(id);
    bool again = !result && known != nullptr && !known->base.empty() && !own->save_whole
                 && (result.error() == ec::no_capacity || result.error() == ec::not_found);
    own->save_whole = again;
    if (again)
      return save_next(session);
    own->saves.pop_front();
  }
  if (result) {
    known_.put(result->state);
    for (const std::string& gone : result->evicted)
      forget_snapshot(gone);
    if (result->state.kind == saved_kind::snapshot)
      host_.publish(session, "durable", id);
    tell_durable(id, {});
  } else {
    const saved_state* known = state(id);
    bool visible = known != nullptr && known->kind == saved_kind::snapshot;
    log::warn("states", "a state could not be saved",
              {{"session", session}, {"state", id}, {"why", describe_error(result.error())}});
    if (own != nullptr && own->current == id) {
      own->current = known == nullptr ? "" : known->base;
      own->changed = true;
      own->no_checkpoint_before = host_.time() + std::chrono::seconds{10};
    }
    if (session_info* info = host_.info_of(session); info != nullptr && info->snapshot == id)
      info->snapshot = known == nullptr ? "" : known->info.parent;
    known_.erase(id);
    if (visible)
      host_.publish(session, "snapshot_failed", id + ": " + to_refusal(result.error()).detail);
    tell_durable(id, result.error());
  }
  forget_unneeded(session);
  save_next(session);
}

void state_desk::when_durable(const std::string& id, done then) {
  const saved_state* known = state(id);
  if (known == nullptr)
    return then(fail(ec::not_found, "snapshot: " + id + " is gone"));
  if (known->info.durable)
    return then({});
  waiting_durable_[id].push_back(std::move(then));
}

void state_desk::tell_durable(const std::string& id, const error& why) {
  auto node = waiting_durable_.extract(id);
  if (node.empty())
    return;
  for (auto& then : node.mapped())
    then(why);
}

/// The number of a job in history; 0 when it has none, or not yet.
void state_desk::find_entry(const std::string& job, std::function<void(std::uint64_t)> then) {
  if (job.empty())
    return then(0);
  query_history query;
  query.job = job;
  query.limit = 1;
  self_->request(parts_.history, caf::infinite, std::move(query))
      .then(
          [then](const history_page& page) {
            then(page.entries.empty() ? 0 : page.entries.front().number);
          },
          [then](const error&) { then(0); });
}

/// Puts on disk where the session stands after it went back: what it would wake up with.
void state_desk::note_tip(const std::string& session, const std::string& target, done then) {
  const saved_state* known = state(target);
  if (known == nullptr)
    return then({});
  if (!known->info.durable) { // the target's own copy is on its way, and this goes behind it
    when_durable(target, [this, session, target](const error& why) {
      session_states* own = find(session);
      if (!why && own != nullptr && own->current == target)
        note_tip(session, target, [](const error&) {});
    });
    return then({});
  }
  saved_state tip = *known;
  tip.kind = saved_kind::checkpoint;
  tip.base = target;
  tip.sequence = ++last_sequence_;
  tip.deleted = false;
  tip.info.session = session;
  if (const session_info* info = host_.info_of(session))
    tip.session = *info;
  tip.info.snapshot = "keep-" + new_hex_id();
  tip.info.parent = target;
  self_->request(parts_.store, caf::infinite, finish_save{.state = std::move(tip)})
      .then(
          [this, session, then](save_finished& answer) {
            known_.put(std::move(answer.state));
            for (const std::string& gone : answer.evicted)
              forget_snapshot(gone);
            forget_unneeded(session);
            then({});
          },
          [this, session, target, then](const error& why) {
            if (session_states* own = find(session); own != nullptr && own->current == target)
              own->changed = true; // a checkpoint of its own does as well
            then(why);
          });
}

void state_desk::record_rollback(const std::string& session, rolled_back answer,
                                 std::function<void(rolled_back)> then) {
  session_info* info = host_.info_of(session);
  if (info == nullptr)
    return then(std::move(answer));
  std::string job = new_job_id();
  job_order order;
  order.job = job;
  order.kind = entry_kind::rollback;
  order.submitted_at_ms = unix_ms();
  order.request.code = "rolled back to " + answer.snapshot;
  order.request.session = session;
  order.request.agent_id = info->agent_id;
  outcome ended;
  ended.job = job;
  ended.state = job_state::exited;
  ended.exit_code = 0;
  ended.agent_id = info->agent_id;
  ended.session = session;
  ended.machine = info->machine;
  ended.machine_kind = info->machine_kind;
  ended.submitted_at_ms = ended.started_at_ms = ended.ended_at_ms = order.submitted_at_ms;
  ended.snapshot_before = answer.snapshot_before;
  ended.rolled_back_to = answer.snapshot;
  ended.detail = answer.detail;
  auto kept = std::make_shared<rolled_back>(std::move(answer));
  auto failed = [kept, then](const error& why) {
    log::error("states", "a rollback could not be recorded", {{"why", describe_error(why)}});
    then(std::move(*kept));
  };
  // HISTORY works in order: the end is recorded behind the acceptance, in one commit if they meet.
  self_->request(parts_.history, caf::infinite, record_accepted{.order = std::move(order)})
      .then([](const recorded&) {}, [](const error&) {});
  self_->request(parts_.history, caf::infinite, record_ended{.ended = std::move(ended)})
      .then(
          [kept, then](const recorded& entry) {
            kept->entry = entry.number;
            then(std::move(*kept));
          },
          failed);
}

} // namespace berth
