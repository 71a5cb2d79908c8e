// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "store/snapshots.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the SNAPSHOT STORE, in a thread of its own: it reads, writes and syncs.
snapshot_store_actor spawn_snapshot_store(caf::actor_system& system, snapshots opened);

} // namespace berth
