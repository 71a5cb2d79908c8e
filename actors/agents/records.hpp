// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "store/records.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the RECORDS, in a thread of their own: they write and sync.
records_actor spawn_records(caf::actor_system& system, records opened);

} // namespace berth
