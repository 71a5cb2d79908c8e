// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "store/journal.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the HISTORY, in a thread of its own, on the journal that was opened.
///
/// What is recorded goes into the log; the index follows behind the scenes (store/log_indexer.hpp)
/// and is asked by a thread of its own, so that neither a search nor SQLite delays a record. A
/// query waits until the index holds what was recorded before it.
///
/// Group commit: the first record of a batch sends the actor a message to itself, which comes
/// behind all records that wait already; then the batch is put on disk with one sync and each
/// record answered. A record that nobody waits for is handed to the kernel, which a killed server
/// survives, and synced with the next one that somebody waits for, or soon. It ends by an exit
/// message; what was received before it is on disk then.
expected<history_actor> spawn_history(caf::actor_system& system, journal opened,
                                      const settings& values);

} // namespace berth
