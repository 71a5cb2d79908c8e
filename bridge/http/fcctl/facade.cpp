// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/facade.hpp"

#include "bridge/http/fcctl/context.hpp"

namespace berth::http::fcctl {

namespace {

/// The service's name is what the clients of the contract look for.
void health(const shared_context& c, const responder& done) {
  c->gateway.ask<health_info>(get_health{}, [done](expected<health_info> answer) {
    if (!answer)
      return done(error_reply(answer.error()));
    json body = to_json(*answer);
    body["service"] = "fcctl-web";
    body["timestamp"] = to_rfc3339(now_ms());
    done(json_reply(body, answer->draining ? 503 : 200));
  });
}

} // namespace

fcctl_facade::fcctl_facade(const settings& values)
  : settings_(values) {}

fcctl_facade::~fcctl_facade() = default;

void fcctl_facade::add_routes(router& routes, const desk& gateway) {
  auto c = std::make_shared<context>(context{.gateway = gateway, .values = settings_});
  routes.get(
      "/health", [c](const request&, const responder& done) { health(c, done); }, access::open);
  add_execute_routes(routes, c);
  add_machine_routes(routes, c);
  add_file_routes(routes, c);
  add_state_routes(routes, c);
  add_session_routes(routes, c);
  add_live_routes(routes, c);
}

} // namespace berth::http::fcctl
