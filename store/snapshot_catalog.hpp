// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"
#include "messages/saved.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace berth {

/// Whether clients see a state: it is a snapshot, and was not deleted.
inline bool is_visible(const saved_state& state) {
  return state.kind == saved_kind::snapshot && !state.deleted;
}

/// Which saved states there are, which need which, and which may go. Plain logic: no file is
/// touched here.
///
/// A state's archive holds what changed since its base, so a state is restored from its chain:
/// itself, its base, that one's base, and so on to the image. A state that is wanted no more stays
/// as long as a chain leads through it.
class snapshot_catalog {
public:
  /// Adds a state, or replaces the one of the same id.
  void put(saved_state state);
  /// Notes why a state cannot be restored, if it is there.
  void blame(const std::string& id, const std::string& why);
  /// Wants the checkpoints of a session no more: it is closed.
  void end_session(const std::string& session);
  /// Forgets a state.
  void erase(const std::string& id);

  const saved_state* find(const std::string& id) const;
  const std::map<std::string, saved_state>& all() const { return states_; }

  /// What a state is restored from, the oldest first. Fails with store_failed when a link of the
  /// chain is damaged or missing, not_found when there is no such state.
  expected<std::vector<const saved_state*>> chain(const std::string& id) const;

  /// Why a state cannot be restored; empty when it can.
  std::string damage(const std::string& id) const;

  /// The newest state of a session that is on disk and can be restored: what it would wake up with.
  const saved_state* tip(const std::string& session) const;

  /// What a snapshot becomes when it is deleted. What its session, if it lives, would wake up with
  /// is kept for that as long as nothing newer is there.
  saved_state without(const std::string& id, bool session_lives) const;

  /// Whether a state is there for its own sake, not only because another one needs it.
  bool wanted(const saved_state& state) const;

  /// Of these states and those that they build on: which are wanted no more and needed by nothing,
  /// in an order in which they can go.
  std::vector<std::string> unneeded(std::vector<std::string> among) const;
  /// Ids of all states of a session; of all sessions when it is empty.
  std::vector<std::string> ids(const std::string& session = {}) const;

  /// The next state to go for the budget: the oldest snapshot that is neither the newest good one
  /// nor the newest one after a success of a session that lives. With a session given, only of it.
  std::optional<std::string> to_evict(const std::set<std::string>& live,
                                      const std::string& session = {}) const;

  /// Which snapshots have to go, oldest first, so that a session has at most `of_session` and all
  /// archives at most `in_all` bytes; nothing when that cannot be, whoever goes. States that are
  /// wanted no more are counted as gone.
  std::optional<std::vector<std::string>> room_plan(const std::set<std::string>& live,
                                                    const std::string& session,
                                                    std::size_t of_session,
                                                    std::uint64_t in_all) const;

  /// Whether the next state had better be saved whole than as what it adds to this one: when most
  /// bytes of the chain are kept for nobody's sake, or the chain is long to restore.
  bool better_whole(const std::string& base) const;

  /// Snapshots that clients see, oldest first, of a session and an agent; empty: of all.
  std::vector<const saved_state*> snapshots(const std::string& session,
                                            const std::string& agent = {}) const;

  /// Bytes of all archives.
  std::uint64_t bytes() const { return bytes_; }
  /// The largest sequence number there is.
  std::uint64_t last_sequence() const { return last_sequence_; }

private:
  std::vector<const saved_state*> needing(const std::string& id) const;

  std::map<std::string, saved_state> states_;
  /// session, sequence, id.
  std::set<std::tuple<std::string, std::uint64_t, std::string>> by_session_;
  /// base, dependant.
  std::set<std::pair<std::string, std::string>> needs_;
  std::uint64_t bytes_ = 0;
  std::uint64_t last_sequence_ = 0;
};

} // namespace berth
