// SPDX-License-Identifier: Apache-2.0
#include "actors/snapshot_store.hpp"

#include "config/log.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <memory>

namespace berth {

namespace {

/// SNAPSHOT STORE: saved states on disk.
class store_state {
public:
  static constexpr const char* name = "berth.snapshot-store";

  snapshot_store_actor::behavior_type make_behavior(std::shared_ptr<snapshots> files) {
    files_ = std::move(files);
    return {
        [this](const begin_save& x) { return on_begin(x); },
        [this](finish_save& x) { return on_finish(x); },
        [this](const abandon_save& x) { files_->abandon(x.state); },
        [this](const open_archives& x) { return on_open(x); },
        [this](const list_snapshots& x) { return on_list(x); },
        [this](const delete_snapshot& x) { return on_delete(x); },
        [this](const keep_states& x) { files_->keep(x.session, x.alive); },
    };
  }

private:
  caf::result<open_files> on_begin(const begin_save& request) {
    auto file = files_->begin(request.state);
    if (!file)
      return file.error();
    open_files one;
    one.files.push_back(std::make_shared<const owned_fd>(std::move(*file)));
    return one;
  }

  caf::result<save_finished> on_finish(finish_save& request) {
    auto evicted = files_->finish(request.state);
    if (!evicted) {
      log::warn("snapshots", "cannot keep a state",
                {{"state", request.state.info.snapshot}, {"why", describe_error(evicted.error())}});
      return evicted.error();
    }
    return save_finished{.state = std::move(request.state), .evicted = std::move(*evicted)};
  }

  caf::result<saved_states, open_files> on_open(const open_archives& request) {
    auto chain = files_->open_chain(request.state);
    if (!chain)
      return chain.error();
    open_files all;
    for (owned_fd& file : chain->files)
      all.files.push_back(file ? std::make_shared<const owned_fd>(std::move(file)) : nullptr);
    return {saved_states{.states = std::move(chain->states)}, std::move(all)};
  }

  snapshot_list on_list(const list_snapshots& request) const {
    const snapshot_catalog& catalog = files_->catalog();
    snapshot_list list{
        .snapshots = {}, .bytes_used = catalog.bytes(), .bytes_max = files_->bytes_max()};
    for (const saved_state* state : catalog.snapshots(request.session, request.agent_id)) {
      list.snapshots.push_back(state->info);
      list.snapshots.back().damage = catalog.damage(state->info.snapshot);
    }
    return list;
  }

  caf::result<snapshot_deleted> on_delete(const delete_snapshot& request) {
    if (error why = files_->remove(request.snapshot))
      return why;
    return snapshot_deleted{.snapshot = request.snapshot};
  }

  std::shared_ptr<snapshots> files_;
};

snapshot_store_actor::behavior_type
store_behavior(snapshot_store_actor::stateful_pointer<store_state> self,
               std::shared_ptr<snapshots> files) {
  return state_of(self).make_behavior(std::move(files));
}

} // namespace

snapshot_store_actor spawn_snapshot_store(caf::actor_system& system, snapshots opened) {
  return system.spawn<caf::detached>(store_behavior,
                                     std::make_shared<snapshots>(std::move(opened)));
}

} // namespace berth
