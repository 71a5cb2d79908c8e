// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "actors/interfaces.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace berth {

/// Who serves agents and workflows.
struct office {
  records_actor records;
  progress_actor progress;
  roles_actor roles;
  model_actor models;
  agents_actor agents;
  workflows_actor workflows;
};

/// What the GATEWAY depends on.
struct gateway_parts {
  std::shared_ptr<const settings> config;
  supervisor_actor supervisor;
  validator_actor validator;
  history_actor history;
  stream_hub_actor hub;
  /// Makes of machines that are served, the server's own first; see config/kinds.hpp.
  std::vector<std::string> makes;
  /// What holds a machine, for health.
  std::vector<std::string> isolation;
  /// Whether anybody wants to hear of events; without it nobody does.
  std::shared_ptr<event_sink> sink;
  /// Starts who needs the GATEWAY: agents and workflows. Without it there are none.
  std::function<office(const gateway_actor&)> open_office;
  /// Told when a rush of requests begins, and when it is over.
  std::function<void(bool)> on_rush;
};

/// Starts the GATEWAY.
gateway_actor spawn_gateway(caf::actor_system& system, gateway_parts parts);

} // namespace berth
