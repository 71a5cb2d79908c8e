// SPDX-License-Identifier: Apache-2.0
#include "actors/state_desk.hpp"

#include "actors/ids.hpp"
#include "config/log.hpp"

#include <algorithm>
#include <utility>

namespace berth {

namespace {

/// States that one machine holds for going back quickly; older ones come back from disk.
constexpr std::size_t machine_states_max = 128;
/// Copies of interpreters that one machine holds for its states.
constexpr std::size_t parked_copies_max = 16;
/// Checkpoints in a row that add to each other, before one is written that stands for them all.
constexpr std::size_t checkpoints_in_row_max = 8;
/// Machines that are tried with the same archives before these are said not to fit.
constexpr std::uint32_t restore_tries_max = 3;

/// The part of a name that can stand in an id, and in a file's name.
std::string id_part(const std::string& name) {
  constexpr std::size_t most = 64;
  std::string part;
  for (char c : name) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
                 || c == '_' || c == '.' || c == '-';
    if (part.size() < most && (plain || c == ' '))
      part += plain && !(part.empty() && c == '.') ? c : '-';
  }
  return part.empty() ? "snap" : part;
}

} // namespace

state_desk::state_desk(supervisor_actor::pointer self, state_host& host, state_desk_parts parts)
  : self_(self)
  , host_(host)
  , parts_(std::move(parts)) {}

state_desk::session_states* state_desk::find(const std::string& session) {
  auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : &found->second;
}

// --- sessions come and go ------------------------------------------------------------------------

void state_desk::know(std::vector<saved_state> states) {
  for (saved_state& each : states) {
    last_sequence_ = std::max(last_sequence_, each.sequence);
    known_.put(std::move(each));
  }
}

void state_desk::adopt(session_info& session) {
  session_states& own = sessions_[session.session];
  bool went_to_sleep = session.state == session_state::paused;
  std::string tip = durable_tip(session.session);
  own.asleep = true;
  own.restore_from = tip;
  session.jobs_alive = 0;
  session.state = session_state::paused;
  std::string damage = damage_of_newest(session, tip);
  std::string what = what_came_back(tip);
  if (!damage.empty())
    session.detail = "its last saved state could not be restored (" + damage + "): " + what;
  else if (went_to_sleep)
    session.detail = tip.empty() ? "" : "it was paused: " + what;
  else
    session.detail = tip.empty() ? "the server ended before anything of this session was saved"
                                 : "the server ended: " + what;
  if (tip.empty() && (!went_to_sleep || !damage.empty()))
    session.state = session_state::lost;
  stand_at(session.session, tip);
}

/// Why a session wakes with an older state than the last one that was saved; empty: it does not.
std::string state_desk::damage_of_newest(const session_info& session,
                                         const std::string& tip) const {
  auto ids = known_.ids(session.session);
  if (!ids.empty() && ids.back() != tip)
    return known_.damage(ids.back());
  // A manifest that cannot be read names no session, but the session names the snapshot.
  const saved_state* stood_at = state(session.snapshot);
  return stood_at == nullptr ? std::string{} : stood_at->info.damage;
}

void state_desk::opened(const std::string& session) {
  sessions_[session].last_change = host_.time();
  caf::anon_send(parts_.store, keep_states{.session = session, .alive = true});
}

void state_desk::closed(const std::string& session) {
  machine_lost(session, "the session was closed");
  if (session_states* own = find(session))
    if (auto then = std::exchange(own->when_gone, nullptr))
      then();
  caf::anon_send(parts_.store, keep_states{.session = session, .alive = false});
  // A machine that was to be tried again: nobody waits for it now.
  session_states* closing = find(session);
  done own_up = closing == nullptr ? nullptr : std::exchange(closing->when_up, nullptr);
  sessions_.erase(session);
  known_.end_session(session);
  auto unneeded = known_.unneeded(known_.ids(session));
  for (const std::string& id : unneeded)
    known_.erase(id);
  // Only now those who waited: they may ask the desk for more.
  for (const std::string& id : unneeded)
    tell_durable(id, fail(ec::conflict, "the session was closed"));
  if (own_up)
    own_up(fail(ec::conflict, "the session was closed"));
}

/// What a session that starts from this state has, and has not.
std::string state_desk::what_came_back(const std::string& id) const {
  const saved_state* from = state(id);
  if (from == nullptr)
    return "nothing of the session was saved";
  std::string what = is_visible(*from) ? "snapshot " + id : "what was saved last";
  std::string when =
      from->info.job.empty() ? ", before any job" : ", taken after job " + from->info.job;
  return "its files are those of " + what + when + "; live interpreters are gone";
}

void state_desk::stand_at(const std::string& session, const std::string& target) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->current = target;
  own->changed = false;
  const saved_state* at = state(target);
  own->last_job = at == nullptr ? "" : at->info.job;
  own->last_entry = at == nullptr ? 0 : at->info.entry;
  own->last_succeeded = at != nullptr && at->job_succeeded;
  if (session_info* info = host_.info_of(session))
    info->snapshot = at == nullptr ? "" : is_visible(*at) ? target : at->info.parent;
}

// --- the machine ---------------------------------------------------------------------------------

bool state_desk::asleep(const std::string& session) const {
  auto found = sessions_.find(session);
  return found != sessions_.end() && found->second.asleep;
}

void state_desk::wake(const std::string& session) {
  session_states* own = find(session);
  if (own == nullptr || !own->asleep)
    return;
  own->asleep = false;
  if (session_info* info = host_.info_of(session))
    if (info->state == session_state::paused)
      info->state = session_state::starting;
}

std::optional<machine_files> state_desk::files_for(const std::string& session) {
  session_states* own = find(session);
  if (own == nullptr)
    return machine_files{};
  if (own->files)
    return std::exchange(own->files, std::nullopt);
  if (!own->fork_of.empty()) {
    session_states* parent = find(own->fork_of);
    std::uint64_t number = own->restored.begin()->first;
    if (parent != nullptr && host_.slot_of(own->fork_of) != nullptr
        && parent->machine.find(number) != nullptr)
      return machine_files{
          .archives = {}, .checkpoints = {number}, .parent = host_.info_of(own->fork_of)->machine};
    own->restore_from = std::exchange(own->restored, {}).begin()->second;
    own->fork_of.clear();
  }
  if (own->restore_from.empty())
    return machine_files{};
  if (!own->opening)
    open_files_for(session);
  return std::nullopt;
}

void state_desk::open_files_for(const std::string& session) {
  session_states& own = sessions_.at(session);
  own.opening = true;
  std::string id = own.restore_from;
  self_->request(parts_.store, caf::infinite, open_archives{.state = id})
      .then(
          [this, session, id](const saved_states& states, const open_files& files) {
            on_opened(session, id, states, files);
            host_.seat(session);
          },
          [this, session, id](const error& why) {
            on_not_opened(session, id, why);
            host_.seat(session);
          });
}

/// The archives of a state are open and whole: the session's next machine starts from them.
void state_desk::on_opened(const std::string& session, const std::string& id,
                           const saved_states& states, const open_files& files) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->opening = false;
  own->restoring = true;
  own->restore_from = id;
  own->files.emplace();
  own->restored.clear();
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < states.states.size() && i < files.files.size(); ++i) {
    if (!files.files[i]) // nothing changed: the same files as the one before
      continue;
    own->files->checkpoints.push_back(++number);
    own->files->archives.files.push_back(files.files[i]);
    own->restored[number] = states.states[i].info.snapshot;
  }
}

/// A state that cannot be restored: the newest that can takes its place.
void state_desk::on_not_opened(const std::string& session, const std::string& id,
                               const error& why) {
  log::error("states", "cannot restore a session's state",
             {{"session", session}, {"state", id}, {"why", describe_error(why)}});
  known_.blame(id, to_refusal(why).detail);
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->opening = false;
  own->restore_from = durable_tip(session);
  if (own->restore_from == id)
    own->restore_from.clear();
  stand_at(session, own->restore_from);
  if (session_info* info = host_.info_of(session)) {
    if (own->restore_from.empty())
      info->state = session_state::lost;
    info->detail = "its last saved state could not be restored (" + to_refusal(why).detail
                   + "): " + what_came_back(own->restore_from);
  }
}

void state_desk::machine_up(const std::string& session) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->machine = {};
  own->restoring = false;
  own->fork_of.clear();
  auto restored = std::exchange(own->restored, {});
  for (auto& [number, id] : restored)
    own->machine.add(number, {.state = id, .parent = 0, .memory = false, .contexts = {}});
  // A chain may end in a state that changed nothing: the session stands there all the same.
  std::string at = std::exchange(own->restore_from, {});
  if (at.empty() && !restored.empty())
    at = restored.rbegin()->second;
  stand_at(session, at);
  own->failed_starts = 0;
  if (auto then = std::exchange(own->when_up, nullptr))
    then({});
  fork_ready(session);
}

void state_desk::machine_lost(const std::string& session, const std::string& why) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->machine = {};
  own->pinned.clear();
  own->files.reset();
  own->ready_for.clear();
  own->before.clear();
  // States that were only in the machine are gone with it.
  own->saves.clear();
  own->saving = false;
  for (const std::string& id : known_.ids(session))
    if (const saved_state* each = state(id); each != nullptr && !each->info.durable) {
      known_.erase(id);
      tell_durable(id, fail(ec::machine_failed, "the machine was lost: " + why));
    }
  own = find(session);
  if (own == nullptr)
    return;
  bool again = own->restoring && ++own->failed_starts < restore_tries_max;
  if (std::exchange(own->restoring, false) && !again) {
    on_not_opened(session, own->restore_from, fail(ec::machine_failed, why));
  } else {
    own->restored.clear();
    own->restore_from = again ? own->restore_from : durable_tip(session);
    stand_at(session, own->restore_from);
    if (session_info* info = host_.info_of(session))
      info->detail = "its machine was lost (" + why + "): " + what_came_back(own->restore_from);
  }
  if (auto then = again ? nullptr : std::exchange(own->when_up, nullptr))
    then(fail(ec::machine_failed, "the machine was lost: " + why));
  fork_failed(session, why);
}

void state_desk::machine_gone(const std::string& session) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->machine = {};
  own->pinned.clear();
  if (auto then = std::exchange(own->when_gone, nullptr))
    then();
}

// --- holding a session ---------------------------------------------------------------------------

bool state_desk::holds(const std::string& session) const {
  auto found = sessions_.find(session);
  return found != sessions_.end() && found->second.held;
}

void state_desk::hold(const std::string& session) {
  sessions_.at(session).held = true;
}

void state_desk::release(const std::string& session) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  own->held = false;
  trim(session);
  host_.go_on(session);
}

void state_desk::queue(const std::string& session, std::function<void()> begin, done refuse,
                       bool in_front) {
  std::string id = "#" + std::to_string(++last_step_);
  steps_[id] = {.session = session, .begin = std::move(begin), .refuse = std::move(refuse)};
  host_.queue_step(session, id, in_front);
}

void state_desk::begin_step(const std::string& id) {
  auto node = steps_.extract(id);
  if (node.empty() || find(node.mapped().session) == nullptr)
    return;
  hold(node.mapped().session);
  node.mapped().begin();
}

void state_desk::cancel_step(const std::string& id) {
  auto node = steps_.extract(id);
  if (!node.empty())
    node.mapped().refuse(fail(ec::conflict, "the session was closed"));
}

void state_desk::touched(const std::string& session) {
  if (session_states* own = find(session)) {
    own->changed = true;
    own->last_change = host_.time();
  }
}

// --- freezing ------------------------------------------------------------------------------------

void state_desk::freeze(const std::string& session, label as, got_state then) {
  const slot_actor* slot = host_.slot_of(session);
  session_states* own = find(session);
  if (slot == nullptr || own == nullptr)
    return then(fail(ec::machine_failed, "the session's machine is not up"));
  std::uint64_t number = own->machine.next_number();
  self_->request(*slot, caf::infinite, freeze_slot{.checkpoint = number, .memory = as.memory})
      .then([this, session, as, number,
             then](const slot_frozen& answer) { on_frozen(session, as, number, answer, then); },
            [this, session, as, then](const error& why) mutable {
              // An interpreter that cannot park a copy must not keep the files from being saved.
              if (!as.memory || host_.slot_of(session) == nullptr)
                return then(why);
              as.memory = false;
              freeze(session, std::move(as), std::move(then));
            });
}

void state_desk::on_frozen(const std::string& session, const label& as, std::uint64_t number,
                           const slot_frozen& answer, const got_state& then) {
  session_states* own = find(session);
  session_info* info = host_.info_of(session);
  if (own == nullptr || info == nullptr)
    return then(fail(ec::conflict, "the session was closed"));
  bool visible = as.kind == saved_kind::snapshot;
  saved_state made;
  made.kind = as.kind;
  made.base = own->current;
  made.job_succeeded = own->last_succeeded;
  made.sequence = ++last_sequence_;
  made.info.snapshot = (visible ? id_part(as.name) : "keep") + "-" + new_hex_id();
  made.info.session = session;
  made.info.agent_id = info->agent_id;
  made.info.machine = info->machine;
  made.info.machine_kind = info->machine_kind;
  made.info.name = as.name;
  made.info.description = as.description;
  made.info.parent = info->snapshot;
  made.info.job = own->last_job;
  made.info.entry = own->last_entry;
  made.info.reason = as.reason;
  made.info.contexts = answer.contexts;
  made.info.content =
      answer.contexts.empty() ? snapshot_content::files : snapshot_content::files_and_memory;
  made.info.created_at_ms = unix_ms();
  std::string id = made.info.snapshot;
  if (visible)
    info->snapshot = id;
  made.session = *info;
  known_.put(std::move(made));
  own->machine.add(number,
                   {.state = id, .parent = 0, .memory = as.memory, .contexts = answer.contexts});
  own->current = id;
  own->changed = false;
  then(id);
}

// --- going back ----------------------------------------------------------------------------------

void state_desk::go_to(const std::string& session, const std::string& target, rolled then) {
  session_states* own = find(session);
  const slot_actor* slot = host_.slot_of(session);
  auto number = own == nullptr ? std::nullopt : own->machine.number_of(target);
  if (slot == nullptr || !number)
    return replace_machine(session, target, std::move(then));
  self_->request(*slot, caf::infinite, roll_slot{.checkpoint = *number})
      .then(
          [this, session, target, number = *number, then](slot_rolled& answer) {
            session_states* here = find(session);
            session_info* info = host_.info_of(session);
            if (here == nullptr || info == nullptr)
              return then(fail(ec::conflict, "the session was closed"));
            here->machine.go_to(number);
            stand_at(session, target);
            rolled_back back;
            back.session = session;
            back.machine = info->machine;
            back.snapshot = target;
            back.contexts = std::move(answer.contexts);
            back.content = back.contexts.empty() ? snapshot_content::files
                                                 : snapshot_content::files_and_memory;
            back.detail = std::move(answer.detail);
            const saved_state* known = state(target);
            if (back.detail.empty() && back.contexts.empty() && known != nullptr
                && !known->info.contexts.empty())
              back.detail = "its live interpreters were kept no longer: the files alone came back";
            info->detail.clear();
            then(std::move(back));
          },
          [then](const error& why) { then(why); });
}

/// The machine has the state no more: a new one, under the same id, starts from the archives.
void state_desk::replace_machine(const std::string& session, const std::string& target,
                                 rolled then) {
  session_states* own = find(session);
  const saved_state* to = state(target);
  if (own == nullptr || to == nullptr)
    return then(fail(ec::not_found, "snapshot: " + target + " is gone"));
  if (!to->info.durable || !own->saves.empty()) {
    // What is only in this machine goes to disk before the machine goes.
    if (own->saves.empty())
      return then(fail(ec::conflict, "snapshot: " + target + " was never saved"));
    return when_durable(own->saves.back(), [this, session, target, then](const error& why) {
      why ? then(why) : replace_machine(session, target, then);
    });
  }
  self_->request(parts_.store, caf::infinite, open_archives{.state = target})
      .then(
          [this, session, target, then](const saved_states& states, const open_files& files) {
            session_states* here = find(session);
            if (here == nullptr)
              return then(fail(ec::conflict, "the session was closed"));
            on_opened(session, target, states, files);
            here->when_up = [this, session, target, then](const error& why) {
              session_info* info = host_.info_of(session);
              if (why || info == nullptr)
                return then(why ? why : fail(ec::conflict, "the session was closed"));
              stand_at(session, target);
              rolled_back back;
              back.session = session;
              back.machine = info->machine;
              back.snapshot = target;
              back.detail = "a new machine was made from the archives: live interpreters are gone";
              info->detail = back.detail;
              then(std::move(back));
            };
            host_.leave_machine(session);
          },
          [this, target, then](const error& why) {
            known_.blame(target, to_refusal(why).detail);
            then(why);
          });
}

// --- what is known -------------------------------------------------------------------------------

std::string state_desk::durable_tip(const std::string& session) const {
  auto ids = known_.ids(session);
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    auto links = known_.chain(*id);
    bool whole = links && std::ranges::all_of(*links, [](const saved_state* link) {
                   return link->info.durable;
                 });
    if (whole)
      return *id;
  }
  return {};
}

std::vector<const saved_state*> state_desk::snapshots_of(const std::string& session) const {
  return known_.snapshots(session);
}

/// A snapshot as it is now: what its machine still has of it counts.
snapshot_info state_desk::told(const saved_state& of) const {
  snapshot_info info = of.info;
  info.content = snapshot_content::files;
  info.contexts.clear();
  if (auto found = sessions_.find(info.session); found != sessions_.end()) {
    const machine_states& machine = found->second.machine;
    if (auto number = machine.number_of(info.snapshot))
      info.contexts = machine.find(*number)->contexts;
  }
  if (!info.contexts.empty())
    info.content = snapshot_content::files_and_memory;
  return info;
}

/// The state that the archive of the one with this number is to add to, and its number. Nearest
/// first, so that little is written; but a long row of checkpoints is written anew as one.
std::string state_desk::base_of(const session_states& of, std::uint64_t number,
                                std::uint64_t& since) const {
  since = 0;
  if (of.save_whole)
    return {};
  bool skip_checkpoints = false;
  for (std::uint64_t each : of.machine.ancestors(number)) {
    const saved_state* base = state(of.machine.find(each)->state);
    if (base == nullptr || !base->info.durable || !known_.damage(base->info.snapshot).empty())
      continue;
    bool visible = is_visible(*base);
    if (!visible && !skip_checkpoints) {
      std::size_t row = 0;
      for (const saved_state* at = base; at != nullptr && !is_visible(*at); at = state(at->base))
        ++row;
      skip_checkpoints = row >= checkpoints_in_row_max;
    }
    if (!visible && skip_checkpoints)
      continue;
    if (known_.better_whole(base->info.snapshot))
      break;
    since = each;
    return base->info.snapshot;
  }
  return {};
}

/// A state of the session's machine is needed by one less.
void state_desk::unpin(const std::string& session, std::uint64_t number) {
  session_states* own = find(session);
  if (own == nullptr)
    return;
  if (auto pin = own->pinned.find(number); pin != own->pinned.end() && --pin->second == 0)
    own->pinned.erase(pin);
}

/// Lets go of what nobody can go back to.
void state_desk::trim(const std::string& session) {
  session_states* own = find(session);
  const slot_actor* slot = host_.slot_of(session);
  if (own == nullptr || slot == nullptr)
    return;
  auto keeps = [&](std::uint64_t number, const machine_states::point& point) {
    const saved_state* known = state(point.state);
    return own->pinned.contains(number) || point.state == own->before
           || (known != nullptr && is_visible(*known))
           || std::ranges::find(own->saves, point.state) != own->saves.end();
  };
  auto may_go = [&](std::uint64_t number, const machine_states::point& point) {
    const saved_state* known = state(point.state);
    return !own->pinned.contains(number) && known != nullptr && known->info.durable;
  };
  // Copies are processes of the machine, and its jobs need theirs.
  const session_info* info = host_.info_of(session);
  std::size_t copies = std::min<std::size_t>(parked_copies_max, info->processes / 4);
  auto over = own->machine.too_many(keeps, may_go, machine_states_max, copies);
  for (std::uint64_t number : over.states) {
    bool memory = own->machine.find(number)->memory;
    own->machine.drop(number);
    self_->send(*slot, drop_slot_state{.checkpoint = number, .files = true, .memory = memory});
  }
  for (std::uint64_t number : over.memories) {
    own->machine.drop_memory(number);
    self_->send(*slot, drop_slot_state{.checkpoint = number, .files = false, .memory = true});
  }
}

void state_desk::forget_unneeded(const std::string& session) {
  session_states* own = find(session);
  std::vector<std::string> forgotten;
  for (const std::string& id : known_.unneeded(known_.ids(session))) {
    bool in_use = own != nullptr
                  && (own->current == id || own->before == id || own->restore_from == id
                      || std::ranges::find(own->saves, id) != own->saves.end());
    if (!in_use) {
      known_.erase(id);
      forgotten.push_back(id);
    } else if (state(id)->info.durable) {
      saved_state only_here = *state(id); // the store has let it go
      only_here.info.durable = false;
      known_.put(std::move(only_here));
    }
  }
  trim(session);
  for (const std::string& id : forgotten)
    tell_durable(id, fail(ec::not_found, "snapshot: " + id + " is gone"));
}

/// A snapshot was deleted, or evicted.
void state_desk::forget_snapshot(const std::string& id) {
  const saved_state* known = state(id);
  if (known == nullptr)
    return;
  std::string session = known->info.session;
  if (session_info* info = host_.info_of(session); info != nullptr && info->snapshot == id)
    info->snapshot = known->info.parent;
  known_.put(known_.without(id, find(session) != nullptr));
  forget_unneeded(session);
}

/// Whether what a session has now is neither on disk nor on its way there.
bool state_desk::is_unsaved(const session_states& own) const {
  if (own.changed || own.current.empty())
    return own.changed;
  const saved_state* at = state(own.current);
  return at == nullptr
         || (!at->info.durable && std::ranges::find(own.saves, own.current) == own.saves.end());
}

void state_desk::tick() {
  std::chrono::milliseconds idle{parts_.config->snapshots.checkpoint_idle_ms};
  if (idle.count() == 0 || parking_)
    return;
  std::vector<std::string> due;
  for (auto& [session, own] : sessions_) {
    const session_info* info = host_.info_of(session);
    auto now = host_.time();
    if (info != nullptr && info->jobs_alive == 0 && is_unsaved(own) && !own.held
        && host_.slot_of(session) != nullptr && own.last_change + idle <= now
        && own.no_checkpoint_before <= now && own.saves.empty())
      due.push_back(session);
  }
  for (const std::string& session : due)
    checkpoint(session);
}

} // namespace berth
