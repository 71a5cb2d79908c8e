// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// What AGENTS depend on. They run programs through the GATEWAY, as any client does.
struct agents_parts {
  std::shared_ptr<const settings> config;
  gateway_actor gateway;
  roles_actor roles;
  model_actor models;
  progress_actor progress;
  records_actor records;
};

/// Starts the AGENTS.
agents_actor spawn_agents(caf::actor_system& system, agents_parts parts);

} // namespace berth
