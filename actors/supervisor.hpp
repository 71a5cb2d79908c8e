// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "actors/interfaces.hpp"
#include "config/settings.hpp"
#include "machines/machine.hpp"
#include "messages/saved.hpp"

#include <caf/actor_system.hpp>

#include <memory>
#include <vector>

namespace berth {

/// Where machines of a make come from; see config/kinds.hpp.
struct make_source {
  std::string make;
  machines::machine_source* source = nullptr;
};

/// What the SUPERVISOR depends on. The sources outlive it and its slots.
struct supervisor_parts {
  std::shared_ptr<const settings> config;
  /// The first is of the server's own make, which serves all that asks for no other.
  std::vector<make_source> sources;
  stream_hub_actor hub;
  history_actor history;
  /// Whether anybody wants to hear of events; without it nobody does.
  std::shared_ptr<event_sink> sink;
  snapshot_store_actor store;
  /// Sessions that a former server left open, and the states of them that are on disk.
  std::vector<session_info> past_sessions{};
  std::vector<saved_state> saved{};
};

/// Starts the SUPERVISOR, which fills its pool at once.
supervisor_actor spawn_supervisor(caf::actor_system& system, supervisor_parts parts);

} // namespace berth
