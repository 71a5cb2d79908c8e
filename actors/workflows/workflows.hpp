// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// What WORKFLOWS depend on. Every step is a turn of an agent.
struct workflows_parts {
  std::shared_ptr<const settings> config;
  agents_actor agents;
  roles_actor roles;
  model_actor models;
  progress_actor progress;
  records_actor records;
};

/// Starts the WORKFLOWS, which go on with what a former server left when the settings say so.
workflows_actor spawn_workflows(caf::actor_system& system, workflows_parts parts);

} // namespace berth
