// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "actors/interfaces.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// Ids of workflows begin with it; every other stream is a conversation's.
inline constexpr std::string_view workflow_id_prefix = "workflow_";

/// Starts PROGRESS. Without a sink nothing is published.
progress_actor spawn_progress(caf::actor_system& system, std::shared_ptr<event_sink> sink);

} // namespace berth
