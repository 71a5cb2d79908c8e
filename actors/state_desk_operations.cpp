// SPDX-License-Identifier: Apache-2.0
#include "actors/rollback_target.hpp"
#include "actors/state_desk.hpp"
#include "config/log.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

/// The STATE DESK's operations: what clients ask for.
namespace berth {

namespace {

constexpr std::uint32_t forks_max = 256;
/// Entries looked at to find the state before or after one.
constexpr std::uint32_t entries_looked_at = 64;

error check_text(const char* field, const std::string& text) {
  if (text.size() > limits::name_bytes_max || text.find('\0') != std::string::npos)
    return fail(ec::malformed, std::string{field} + ": must have at most "
                                   + std::to_string(limits::name_bytes_max) + " bytes and no NUL");
  return {};
}

/// Hands an error to whoever waits for the promise.
template <class Reply>
auto refuser(caf::typed_response_promise<Reply> promise) {
  return [promise](const error& why) mutable { promise.deliver(why); };
}

} // namespace

// --- snapshots -----------------------------------------------------------------------------------

caf::result<snapshot_info> state_desk::take(const take_snapshot& request,
                                            const std::string& session) {
  if (error why = check_text("name", request.name))
    return why;
  if (request.description.size() > 16 * limits::kib)
    return fail(ec::too_large, "description: must have at most 16384 bytes");
  auto promise = self_->make_response_promise<snapshot_info>();
  queue(
      session, [this, request, session, promise] { begin_take(request, session, promise); },
      refuser(promise));
  return promise;
}

void state_desk::begin_take(const take_snapshot& request, const std::string& session,
                            caf::typed_response_promise<snapshot_info> promise) {
  label as{.name = request.name, .description = request.description};
  // The job's entry is looked up while the machine works; both are there before the answer.
  struct both {
    bool looked_up = false;
    std::uint64_t entry = 0;
    std::optional<expected<std::string>> id;
  };
  auto parts = std::make_shared<both>();
  auto next = [this, session, promise, parts, wait = request.wait_durable] {
    if (!parts->looked_up || !parts->id)
      return;
    on_taken(session, *parts->id, parts->entry, wait, promise);
  };
  find_entry(sessions_.at(session).last_job, [parts, next](std::uint64_t entry) {
    parts->looked_up = true;
    parts->entry = entry;
    next();
  });
  freeze(session, as, [parts, next](expected<std::string> id) {
    parts->id = std::move(id);
    next();
  });
}

void state_desk::on_taken(const std::string& session, const expected<std::string>& id,
                          std::uint64_t entry, bool wait,
                          caf::typed_response_promise<snapshot_info> promise) {
  const saved_state* known = id ? state(*id) : nullptr;
  if (known == nullptr) {
    promise.deliver(id ? fail(ec::machine_failed, "the machine was lost") : id.error());
    return release(session);
  }
  saved_state made = *known;
  made.info.entry = entry;
  if (session_states* own = find(session); own != nullptr && own->last_job == made.info.job)
    own->last_entry = entry;
  known_.put(made);
  host_.publish(session, "snapshot", *id);
  if (!wait)
    promise.deliver(told(made));
  else
    when_durable(*id, [this, promise, id = *id](const error& why) mutable {
      const saved_state* kept = state(id);
      if (why || kept == nullptr)
        promise.deliver(why ? why : fail(ec::conflict, "snapshot: it was deleted meanwhile"));
      else
        promise.deliver(told(*kept));
    });
  save_behind(session, *id);
  release(session);
}

caf::result<snapshot_list> state_desk::list(list_snapshots request) {
  auto promise = self_->make_response_promise<snapshot_list>();
  self_->request(parts_.store, caf::infinite, request)
      .then(
          [this, request, promise](snapshot_list& kept) mutable {
            std::set<std::string> on_disk;
            for (snapshot_info& each : kept.snapshots) {
              on_disk.insert(each.snapshot);
              if (const saved_state* known = state(each.snapshot)) {
                std::string damage = each.damage.empty() ? known->info.damage : each.damage;
                each = told(*known);
                each.damage = std::move(damage);
              }
            }
            for (const saved_state* each : known_.snapshots(request.session, request.agent_id))
              if (!each->info.durable && !on_disk.contains(each->info.snapshot))
                kept.snapshots.push_back(told(*each));
            std::ranges::stable_sort(kept.snapshots, {}, &snapshot_info::created_at_ms);
            promise.deliver(std::move(kept));
          },
          refuser(promise));
  return promise;
}

caf::result<snapshot_deleted> state_desk::remove(const delete_snapshot& request) {
  auto promise = self_->make_response_promise<snapshot_deleted>();
  auto gone = [this, promise, id = request.snapshot](const error& why) mutable {
    if (why) {
      promise.deliver(why);
      return;
    }
    self_->request(parts_.store, caf::infinite, delete_snapshot{.snapshot = id})
        .then(
            [this, promise, id](const snapshot_deleted& answer) mutable {
              forget_snapshot(id);
              promise.deliver(answer);
            },
            [promise](const error& failed) mutable { promise.deliver(failed); });
  };
  // One that is on its way to disk gets there first: later ones may add to it.
  if (const saved_state* known = state(request.snapshot);
      known != nullptr && !known->info.durable && is_visible(*known))
    when_durable(request.snapshot, gone);
  else
    gone({});
  return promise;
}

// --- rollback ------------------------------------------------------------------------------------

caf::result<rolled_back> state_desk::roll_back(const rollback& request,
                                               const std::string& session) {
  int targets = (request.snapshot.empty() ? 0 : 1) + (request.before_entry ? 1 : 0)
                + (request.after_entry ? 1 : 0) + (request.last_success ? 1 : 0);
  if (targets != 1)
    return fail(ec::malformed,
                "give exactly one of snapshot, before_entry, after_entry, last_success");
  auto promise = self_->make_response_promise<rolled_back>();
  find_target(request, session,
              [this, session, promise,
               first = request.snapshot_first](expected<std::string> target) mutable {
                if (!target || host_.info_of(session) == nullptr) {
                  promise.deliver(target ? fail(ec::conflict, "the session was closed")
                                         : target.error());
                  return;
                }
                if (session_states* own = find(session))
                  own->going_back = true;
                host_.end_jobs(session, "the session is rolled back");
                queue(
                    session,
                    [this, session, target = *target, first, promise] {
                      begin_roll_back(session, target, first, promise);
                    },
                    refuser(promise), true);
              });
  return promise;
}

void state_desk::find_target(const rollback& request, const std::string& session, got_state then) {
  auto checked = [this, then](expected<std::string> found) {
    const saved_state* known = found ? state(*found) : nullptr;
    if (known != nullptr && known->info.durable)
      if (std::string damage = known_.damage(*found); !damage.empty()) {
        const session_states* of = find(known->info.session);
        if (of == nullptr || !of->machine.number_of(*found))
          return then(fail(ec::store_failed, "snapshot " + *found + ": " + damage));
      }
    then(std::move(found));
  };
  if (!request.snapshot.empty())
    return checked(find_snapshot(snapshots_of(session), request.snapshot));
  if (request.last_success)
    return checked(find_last_success(snapshots_of(session)));
  bool before = request.before_entry.has_value();
  std::uint64_t number = before ? *request.before_entry : *request.after_entry;
  query_history query;
  query.session = session;
  query.before = number == UINT64_MAX ? number : number + 1;
  query.limit = entries_looked_at;
  self_->request(parts_.history, caf::infinite, std::move(query))
      .then(
          [this, session, before, number, checked](history_page& page) {
            if (page.entries.empty() || page.entries.front().number != number)
              page.entries.clear();
            auto snapshots = snapshots_of(session);
            checked(before ? find_before(snapshots, page.entries)
                           : find_after(snapshots, page.entries));
          },
          [then](const error& why) { then(why); });
}

void state_desk::begin_roll_back(const std::string& session, const std::string& target,
                                 bool snapshot_first,
                                 caf::typed_response_promise<rolled_back> promise) {
  sessions_.at(session).going_back = false;
  if (!snapshot_first)
    return roll_back_to(session, target, {}, promise);
  label as{.reason = snapshot_reason::before_rollback, .name = "before-rollback"};
  freeze(session, as, [this, session, target, promise](expected<std::string> id) mutable {
    if (!id) { // what was to be kept cannot be: then nothing is thrown away
      promise.deliver(id.error());
      return release(session);
    }
    save_behind(session, *id);
    roll_back_to(session, target, *id, promise);
  });
}

void state_desk::roll_back_to(const std::string& session, const std::string& target,
                              const std::string& snapshot_before,
                              caf::typed_response_promise<rolled_back> promise) {
  go_to(session, target,
        [this, session, snapshot_before, promise](expected<rolled_back> back) mutable {
          if (!back) {
            promise.deliver(back.error());
            return release(session);
          }
          back->snapshot_before = snapshot_before;
          host_.publish(session, "rolled_back", back->snapshot);
          host_.record(session);
          // The entry and where the session stands are written at the same time.
          auto answer = std::make_shared<rolled_back>();
          auto left = std::make_shared<int>(2);
          auto written = [answer, left, promise]() mutable {
            if (--*left == 0)
              promise.deliver(std::move(*answer));
          };
          note_tip(session, back->snapshot, [written](const error& why) mutable {
            if (why)
              log::warn("states", "a rollback is not on disk", {{"why", describe_error(why)}});
            written();
          });
          record_rollback(session, std::move(*back), [answer, written](rolled_back whole) mutable {
            *answer = std::move(whole);
            written();
          });
          release(session);
        });
}

// --- forks ---------------------------------------------------------------------------------------

caf::result<forked> state_desk::fork(const fork_session& request, const std::string& session) {
  if (request.count < 1 || request.count > forks_max)
    return fail(ec::malformed, "count: must be 1 to " + std::to_string(forks_max));
  if (error why = host_.room_for(request.count))
    return why;
  fork_session wanted = request;
  if (!wanted.snapshot.empty()) {
    auto found = find_snapshot(snapshots_of(session), wanted.snapshot);
    if (!found)
      return found.error();
    wanted.snapshot = *found;
  }
  auto promise = self_->make_response_promise<forked>();
  queue(
      session, [this, wanted, session, promise] { begin_fork(wanted, session, promise); },
      refuser(promise));
  return promise;
}

void state_desk::begin_fork(const fork_session& request, const std::string& session,
                            caf::typed_response_promise<forked> promise) {
  session_states& own = sessions_.at(session);
  if (!request.snapshot.empty())
    return start_forks(request, session, request.snapshot, promise);
  if (!is_unsaved(own) && own.machine.number_of(own.current))
    return start_forks(request, session, own.current, promise);
  label as{.kind = saved_kind::checkpoint, .memory = false};
  freeze(session, as, [this, request, session, promise](expected<std::string> id) mutable {
    if (!id) {
      promise.deliver(id.error());
      return release(session);
    }
    save_behind(session, *id);
    start_forks(request, session, *id, promise);
  });
}

void state_desk::start_forks(const fork_session& request, const std::string& session,
                             const std::string& from, caf::typed_response_promise<forked> promise) {
  session_states& own = sessions_.at(session);
  const session_info parent = *host_.info_of(session);
  error why = host_.room_for(request.count); // others may have come while this waited
  auto number = own.machine.number_of(from);
  const saved_state* known = state(from);
  if (!why && !number && (known == nullptr || !known->info.durable))
    why = fail(ec::conflict, "snapshot: " + from + " is neither in the machine nor on disk");
  if (why) {
    promise.deliver(why);
    return release(session);
  }
  auto made = std::make_shared<forking>();
  made->promise = promise;
  made->parent = session;
  made->number = number.value_or(0);
  for (std::uint32_t i = 0; i < request.count; ++i) {
    std::string id = host_.open_fork(parent);
    session_states& child = sessions_[id];
    child.last_change = host_.time();
    if (number) {
      child.fork_of = session;
      child.restored = {{*number, from}};
    } else {
      child.restore_from = from;
    }
    made->sessions.push_back(id);
    made->missing.insert(id);
  }
  if (number)
    ++own.pinned[*number];
  forks_.push_back(made);
  std::vector<std::string> all = made->sessions;
  for (const std::string& id : all)
    host_.seat(id);
  save_forks(from, all);
  release(session);
}

/// Puts on disk where the forks stand, once what they stand on is there.
void state_desk::save_forks(const std::string& from, const std::vector<std::string>& sessions) {
  when_durable(from, [this, from, sessions](const error& why) {
    if (why)
      return;
    for (const std::string& each : sessions)
      if (session_states* own = find(each);
          own != nullptr && own->saves.empty() && durable_tip(each).empty())
        note_tip(each, from, [](const error&) {});
  });
}

void state_desk::fork_ready(const std::string& session) {
  for (auto each = forks_.begin(); each != forks_.end(); ++each) {
    forking& made = **each;
    if (made.missing.erase(session) == 0)
      continue;
    if (!made.missing.empty())
      return;
    auto kept = *each;
    forks_.erase(each);
    unpin(kept->parent, kept->number);
    forked answer;
    for (const std::string& id : kept->sessions)
      if (const session_info* info = host_.info_of(id))
        answer.sessions.push_back(*info);
    for (session_info& info : answer.sessions)
      if (info.state == session_state::starting)
        info.state = session_state::ready; // a moment from now, in this very step
    kept->promise.deliver(std::move(answer));
    return;
  }
}

/// All or none: when one cannot come up, the others are closed.
void state_desk::fork_failed(const std::string& session, const std::string& why) {
  for (auto each = forks_.begin(); each != forks_.end(); ++each) {
    if (!(*each)->missing.contains(session))
      continue;
    auto kept = *each;
    forks_.erase(each);
    unpin(kept->parent, kept->number);
    kept->promise.deliver(fail(ec::machine_failed, "a fork did not come up: " + why));
    for (const std::string& id : kept->sessions)
      host_.close(id);
    return;
  }
}

// --- sleep ---------------------------------------------------------------------------------------

caf::result<session_info> state_desk::pause(const std::string& session) {
  auto promise = self_->make_response_promise<session_info>();
  queue(
      session,
      [this, session, promise] {
        begin_pause(session, [this, session, promise](const error& why) mutable {
          const session_info* info = host_.info_of(session);
          if (why || info == nullptr)
            promise.deliver(why ? why : fail(ec::conflict, "the session was closed"));
          else
            promise.deliver(*info);
        });
      },
      refuser(promise));
  return promise;
}

void state_desk::begin_pause(const std::string& session, done then) {
  session_states& own = sessions_.at(session);
  if (own.asleep) {
    then({});
    return release(session);
  }
  if (!is_unsaved(own))
    return fall_asleep(session, std::move(then));
  label as{.reason = snapshot_reason::pause, .name = "pause", .memory = false};
  freeze(session, as, [this, session, then](expected<std::string> id) {
    if (!id) {
      then(id.error());
      return release(session);
    }
    save_behind(session, *id);
    when_durable(*id, [this, session, id = *id, then](const error& why) {
      if (why) {
        then(why);
        return release(session);
      }
      // The one of the last sleep has served.
      std::vector<std::string> old;
      for (const saved_state* each : snapshots_of(session))
        if (each->info.reason == snapshot_reason::pause && each->info.snapshot != id
            && each->info.durable)
          old.push_back(each->info.snapshot);
      for (const std::string& each : old) {
        caf::anon_send(parts_.store, delete_snapshot{.snapshot = each});
        forget_snapshot(each);
      }
      fall_asleep(session, then);
    });
  });
}

void state_desk::pause_unused(const std::string& session) {
  queue(
      session,
      [this, session] {
        begin_pause(session, [session](const error& why) {
          if (why)
            log::warn("states", "a session cannot be paused",
                      {{"session", session}, {"why", describe_error(why)}});
        });
      },
      [](const error&) {});
}

/// Everything of the session is on disk: its machine goes.
void state_desk::fall_asleep(const std::string& session, done then) {
  session_states* own = find(session);
  if (own == nullptr)
    return then(fail(ec::conflict, "the session was closed"));
  if (!own->saves.empty()) // what is on its way to disk gets there first
    return when_durable(own->saves.back(), [this, session, then](const error& why) {
      if (!why || parking_)
        return fall_asleep(session, then);
      then(why);
      release(session);
    });
  own->asleep = true;
  const saved_state* at = state(own->current);
  own->restore_from = at != nullptr && at->info.durable ? own->current : durable_tip(session);
  own->when_gone = [this, session, then] {
    session_info* info = host_.info_of(session);
    session_states* here = find(session);
    if (info == nullptr || here == nullptr)
      return then(fail(ec::conflict, "the session was closed"));
    if (here->asleep) {
      info->state = session_state::paused;
      info->detail = here->restore_from.empty()
                         ? std::string{}
                         : "it was paused: " + what_came_back(here->restore_from);
      host_.publish(session, "paused", here->restore_from);
      host_.record(session);
    }
    then({});
    release(session);
  };
  host_.leave_machine(session);
}

/// Saves what changed, for the case that the server or the machine dies. In nobody's way: it begins
/// when no job runs, and takes what a freeze takes.
void state_desk::checkpoint(const std::string& session) {
  sessions_.at(session).no_checkpoint_before = host_.time() + std::chrono::seconds{1};
  queue(
      session,
      [this, session] {
        session_states& own = sessions_.at(session);
        if (!is_unsaved(own))
          return release(session);
        label as{.kind = saved_kind::checkpoint, .memory = false};
        freeze(session, as, [this, session](expected<std::string> id) {
          if (id)
            save_behind(session, *id);
          else if (session_states* here = find(session))
            here->no_checkpoint_before = host_.time() + std::chrono::seconds{10};
          release(session);
        });
      },
      [](const error&) {});
}

void state_desk::park_all() {
  parking_ = true;
  std::vector<std::string> all;
  for (const auto& [session, own] : sessions_)
    all.push_back(session);
  for (const std::string& session : all) {
    if (host_.slot_of(session) == nullptr) {
      sessions_.at(session).asleep = true;
      if (session_info* info = host_.info_of(session);
          info != nullptr && info->state != session_state::lost) {
        info->state = session_state::paused;
        host_.record(session);
      }
      continue;
    }
    queue(
        session,
        [this, session] {
          session_states& own = sessions_.at(session);
          auto asleep = [](const error&) {};
          if (!is_unsaved(own))
            return fall_asleep(session, asleep);
          label as{
              .kind = saved_kind::checkpoint, .reason = snapshot_reason::pause, .memory = false};
          freeze(session, as, [this, session, asleep](expected<std::string> id) {
            if (id)
              save_behind(session, *id);
            fall_asleep(session, asleep);
          });
        },
        [](const error&) {}, true);
  }
}

bool state_desk::all_parked() const {
  return std::ranges::all_of(
      sessions_, [](const auto& item) { return item.second.asleep && item.second.saves.empty(); });
}

} // namespace berth
