// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/facade.hpp"

#include "actors/ids.hpp"
#include "bridge/http/terraphim/context.hpp"

namespace berth::http::terraphim {

terraphim_facade::terraphim_facade(const settings& values)
  : settings_(values) {}

terraphim_facade::~terraphim_facade() = default;

void terraphim_facade::add_routes(router& routes, const desk& gateway) {
  auto c = std::make_shared<context>(context{.gateway = gateway, .values = settings_});
  add_config_routes(routes, c);
  add_chat_routes(routes, c);
  add_workflow_routes(routes, c);
  add_live_routes(routes, c);
}

std::string new_conversation_id() {
  return "chat-" + new_job_id();
}

std::string new_turn_id() {
  return "turn-" + new_job_id();
}

std::string new_workflow_id() {
  return "workflow_" + new_job_id();
}

} // namespace berth::http::terraphim
