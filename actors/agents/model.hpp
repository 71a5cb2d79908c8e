// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// Starts the MODEL, with the thread of its connections.
model_actor spawn_model(caf::actor_system& system, std::shared_ptr<const settings> values,
                        progress_actor progress);

} // namespace berth
