// SPDX-License-Identifier: Apache-2.0
#include "store/snapshot_catalog.hpp"

#include "messages/limits.hpp"

#include <algorithm>
#include <iterator>

namespace berth {

namespace {

/// Archives that one state is restored from at most, but for what was saved while it was due.
constexpr std::size_t chain_links_max = 128;
/// Below this nothing is written anew for the sake of space.
constexpr std::uint64_t unwanted_bytes_min = 16 * limits::mib;

} // namespace

void snapshot_catalog::put(saved_state state) {
  std::string id = state.info.snapshot;
  erase(id);
  bytes_ += state.archive_bytes;
  last_sequence_ = std::max(last_sequence_, state.sequence);
  if (!state.base.empty())
    needs_.emplace(state.base, id);
  by_session_.emplace(state.info.session, state.sequence, id);
  states_.emplace(std::move(id), std::move(state));
}

void snapshot_catalog::blame(const std::string& id, const std::string& why) {
  if (const saved_state* known = find(id)) {
    saved_state damaged = *known;
    damaged.info.damage = why;
    put(std::move(damaged));
  }
}

void snapshot_catalog::end_session(const std::string& session) {
  for (const std::string& id : ids(session)) {
    saved_state state = *find(id);
    if (state.kind != saved_kind::checkpoint)
      continue;
    state.deleted = true; // known again from the journal at the next start
    put(std::move(state));
  }
}

void snapshot_catalog::erase(const std::string& id) {
  auto found = states_.find(id);
  if (found == states_.end())
    return;
  bytes_ -= found->second.archive_bytes;
  needs_.erase({found->second.base, id});
  by_session_.erase({found->second.info.session, found->second.sequence, id});
  states_.erase(found);
}

const saved_state* snapshot_catalog::find(const std::string& id) const {
  auto found = states_.find(id);
  return found == states_.end() ? nullptr : &found->second;
}

expected<std::vector<const saved_state*>> snapshot_catalog::chain(const std::string& id) const {
  std::vector<const saved_state*> links;
  for (std::string next = id; !next.empty();) {
    const saved_state* state = find(next);
    if (state == nullptr)
      return links.empty() ? fail(ec::not_found, "snapshot: there is none with the id " + id)
                           : fail(ec::store_failed, "it builds on " + next + ", which is missing");
    if (!state->info.damage.empty())
      return fail(ec::store_failed, next == id ? state->info.damage
                                               : "it builds on " + next
                                                     + ", which is damaged: " + state->info.damage);
    if (links.size() >= states_.size())
      return fail(ec::store_failed, "its chain of archives runs in a circle");
    links.push_back(state);
    next = state->base;
  }
  std::ranges::reverse(links);
  return links;
}

std::string snapshot_catalog::damage(const std::string& id) const {
  auto links = chain(id);
  return links ? std::string{} : to_refusal(links.error()).detail;
}

const saved_state* snapshot_catalog::tip(const std::string& session) const {
  auto end = by_session_.lower_bound({session, UINT64_MAX, {}});
  while (end != by_session_.begin() && std::get<0>(*std::prev(end)) == session) {
    --end;
    const std::string& id = std::get<2>(*end);
    if (const saved_state* state = find(id); state->info.durable && chain(id))
      return state;
  }
  return nullptr;
}

saved_state snapshot_catalog::without(const std::string& id, bool session_lives) const {
  saved_state state = *find(id);
  if (session_lives && tip(state.info.session) == find(id))
    state.kind = saved_kind::checkpoint;
  else
    state.deleted = true;
  return state;
}

bool snapshot_catalog::wanted(const saved_state& state) const {
  if (state.kind == saved_kind::snapshot)
    return !state.deleted;
  return !state.deleted && tip(state.info.session) == &state;
}

std::vector<const saved_state*> snapshot_catalog::needing(const std::string& id) const {
  std::vector<const saved_state*> all;
  for (auto place = needs_.lower_bound({id, {}}); place != needs_.end() && place->first == id;
       ++place)
    if (const saved_state* state = find(place->second))
      all.push_back(state);
  return all;
}

std::vector<std::string> snapshot_catalog::unneeded(std::vector<std::string> among) const {
  std::vector<std::string> going;
  std::set<std::string> gone;
  // Dependants first: a state is looked at again whenever one that needed it goes.
  while (!among.empty()) {
    const saved_state* state = find(among.back());
    among.pop_back();
    if (state == nullptr || gone.contains(state->info.snapshot) || wanted(*state))
      continue;
    bool free = std::ranges::all_of(needing(state->info.snapshot), [&](const saved_state* needs) {
      return gone.contains(needs->info.snapshot);
    });
    if (!free)
      continue;
    going.push_back(state->info.snapshot);
    gone.insert(state->info.snapshot);
    among.push_back(state->base);
  }
  return going;
}

std::vector<std::string> snapshot_catalog::ids(const std::string& session) const {
  std::vector<std::string> all;
  for (auto place = by_session_.lower_bound({session, 0, {}});
       place != by_session_.end() && (session.empty() || std::get<0>(*place) == session); ++place)
    all.push_back(std::get<2>(*place));
  return all;
}

std::optional<std::string> snapshot_catalog::to_evict(const std::set<std::string>& live,
                                                      const std::string& session) const {
  std::vector<const saved_state*> oldest_first = snapshots(session);
  std::set<std::string> kept;
  std::set<std::string> has_good;
  std::set<std::string> has_success;
  for (auto place = oldest_first.rbegin(); place != oldest_first.rend(); ++place) {
    const saved_state& state = **place;
    const std::string& of = state.info.session;
    if (!live.contains(of) || !damage(state.info.snapshot).empty())
      continue;
    if (has_good.insert(of).second)
      kept.insert(state.info.snapshot);
    if (state.job_succeeded && has_success.insert(of).second)
      kept.insert(state.info.snapshot);
  }
  for (const saved_state* state : oldest_first)
    if (!kept.contains(state->info.snapshot))
      return state->info.snapshot;
  return std::nullopt;
}

std::optional<std::vector<std::string>>
snapshot_catalog::room_plan(const std::set<std::string>& live, const std::string& session,
                            std::size_t of_session, std::uint64_t in_all) const {
  snapshot_catalog after = *this;
  std::vector<std::string> going;
  auto drop = [&after](std::vector<std::string> among) {
    for (const std::string& id : after.unneeded(std::move(among)))
      after.erase(id);
  };
  auto evict = [&](const std::string& of) {
    auto next = after.to_evict(live, of);
    if (!next)
      return false;
    saved_state gone = *after.find(*next);
    gone.deleted = true;
    after.put(std::move(gone));
    drop({*next});
    going.push_back(*next);
    return true;
  };
  drop(after.ids(session));
  while (after.snapshots(session).size() > of_session && evict(session))
    continue;
  while (after.bytes() > in_all && evict({}))
    continue;
  if (after.bytes() > in_all)
    return std::nullopt;
  return going;
}

bool snapshot_catalog::better_whole(const std::string& base) const {
  auto links = chain(base);
  if (!links || links->size() >= chain_links_max)
    return true;
  std::uint64_t all = 0;
  std::uint64_t unwanted = 0;
  for (const saved_state* link : *links) {
    all += link->archive_bytes;
    if (link->info.snapshot != base && !wanted(*link))
      unwanted += link->archive_bytes;
  }
  return unwanted >= unwanted_bytes_min && unwanted * 2 > all;
}

std::vector<const saved_state*> snapshot_catalog::snapshots(const std::string& session,
                                                            const std::string& agent) const {
  std::vector<const saved_state*> all;
  for (const auto& [id, state] : states_)
    if (is_visible(state) && (session.empty() || state.info.session == session)
        && (agent.empty() || state.info.agent_id == agent))
      all.push_back(&state);
  std::ranges::sort(all, {}, &saved_state::sequence);
  return all;
}

} // namespace berth
