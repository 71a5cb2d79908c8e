// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the SPOOL on a thread of its own, for it writes and reads files. What a dead server left
/// in its directory is removed first.
expected<spool_actor> spawn_spool(caf::actor_system& system, const settings& config);

} // namespace berth
