// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// What the STREAM HUB depends on. Without a sink nothing is published.
struct stream_hub_parts {
  std::shared_ptr<const settings> config;
  std::shared_ptr<event_sink> sink;
  spool_actor spool;
};

/// Starts the STREAM HUB.
stream_hub_actor spawn_stream_hub(caf::actor_system& system, stream_hub_parts parts);

} // namespace berth
