// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "store/journal.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the HISTORY, which owns the journal from now on, in a thread of its own; a journal that
/// is a file gets a second thread for queries and checkpoints, so that a slow search delays no
/// record.
///
/// Group commit: the first record of a batch sends the actor a message to itself, which comes
/// behind all records that wait already; then the batch is put on disk with one sync and each
/// record answered. It ends by an exit message; what was received before it is on disk then.
history_actor spawn_history(caf::actor_system& system, journal opened, const settings& values);

} // namespace berth
