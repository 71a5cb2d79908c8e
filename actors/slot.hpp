// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "machines/machine.hpp"

#include <caf/actor_system.hpp>

#include <cstdint>
#include <memory>

namespace berth {

/// What a slot depends on. The source outlives every slot.
struct slot_parts {
  std::uint32_t number = 0;
  machines::machine_source* source = nullptr;
  supervisor_actor supervisor;
  stream_hub_actor hub;
  std::uint64_t start_timeout_ms = 0;
};

/// Starts a SLOT. It ends by an exit message, which also destroys its machine.
slot_actor spawn_slot(caf::actor_system& system, slot_parts parts);

} // namespace berth
