// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/facade.hpp"

#include "bridge/http/fcctl/context.hpp"
#include "bridge/http/health.hpp"

namespace berth::http::fcctl {

fcctl_facade::fcctl_facade(const settings& values)
  : settings_(values) {}

fcctl_facade::~fcctl_facade() = default;

void fcctl_facade::add_routes(router& routes, const desk& gateway) {
  auto c = std::make_shared<context>(context{.gateway = gateway, .values = settings_});
  add_health_route(routes, gateway);
  add_execute_routes(routes, c);
  add_machine_routes(routes, c);
  add_file_routes(routes, c);
  add_state_routes(routes, c);
  add_session_routes(routes, c);
  add_live_routes(routes, c);
}

} // namespace berth::http::fcctl
