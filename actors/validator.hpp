// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

namespace berth {

/// Starts the VALIDATOR with the policy of the settings. It ends by an exit message.
validator_actor spawn_validator(caf::actor_system& system, const settings& values);

} // namespace berth
