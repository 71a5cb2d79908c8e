// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>
#include <string>
#include <vector>

namespace berth {

/// What the GATEWAY depends on.
struct gateway_parts {
  std::shared_ptr<const settings> config;
  supervisor_actor supervisor;
  validator_actor validator;
  history_actor history;
  stream_hub_actor hub;
  std::string machine_kind;
  /// What holds a machine, for health.
  std::vector<std::string> isolation;
};

/// Starts the GATEWAY.
gateway_actor spawn_gateway(caf::actor_system& system, gateway_parts parts);

} // namespace berth
