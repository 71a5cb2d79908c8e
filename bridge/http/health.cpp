// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/health.hpp"

#include "bridge/http/body.hpp"

namespace berth::http {

namespace {

/// How long the endpoints of models may take to tell how they are; health is asked often.
constexpr std::chrono::milliseconds models_wait{1'000};

/// What a client finds here. Names are the clients' own where they have one.
json capabilities() {
  return {"code_execution",    "vm_execution",      "snapshots",         "chat",
          "streaming",         "workflows",         "prompt_chaining",   "routing",
          "parallelization",   "orchestration",     "optimization",      "workflow_monitoring",
          "real_time_updates", "command_execution", "session_management"};
}

/// Both answers, of which the second may be late or not needed.
struct inquiry {
  request what;
  responder done;
  std::optional<expected<health_info>> health;
  std::optional<json> models;
  /// The models are not waited for any longer.
  bool late = false;
  bool answered = false;

  bool terraphim() const { return what.door == entrance::terraphim; }
  /// Whether the answer is one word.
  bool short_one() const {
    return terraphim() && what.header("accept").find("json") == std::string_view::npos;
  }

  void answer_when_known() {
    bool enough = health && (models || late || !*health || short_one());
    if (!enough || std::exchange(answered, true))
      return;
    if (!*health)
      return done(error_reply(health->error()));
    const health_info& info = **health;
    int status = info.draining ? 503 : 200;
    if (short_one())
      return done({.status = status,
                   .content_type = "text/plain; charset=utf-8",
                   .body = info.draining ? "DRAINING" : "OK"});
    json body = to_json(info);
    body["service"] = terraphim() ? "berth" : "fcctl-web";
    if (terraphim() && info.status == "healthy")
      body["status"] = "ok";
    body["timestamp"] = to_rfc3339(now_ms());
    body["capabilities"] = capabilities();
    body["models"] = models ? *models : json(nullptr);
    done(json_reply(body, status));
  }
};

/// Where they are is nobody's business here: this route asks for no token.
json models_json(const expected<model_list>& answer) {
  if (!answer)
    return nullptr;
  json all = json::array();
  for (const auto& each : answer->endpoints)
    all.push_back({{"provider", each.provider},
                   {"reachable", each.reachable},
                   {"calls_alive", each.calls_alive},
                   {"calls_waiting", each.calls_waiting}});
  return all;
}

void health(const desk& gateway, const request& what, const responder& done) {
  auto both = std::make_shared<inquiry>(inquiry{.what = what, .done = done});
  gateway.ask<health_info>(get_health{}, [both](expected<health_info> answer) {
    both->health = std::move(answer);
    both->answer_when_known();
  });
  if (both->short_one())
    return;
  gateway.ask<model_list>(list_models{}, [both](const expected<model_list>& answer) {
    both->models = models_json(answer);
    both->answer_when_known();
  });
  gateway.after(models_wait, [both] {
    both->late = true;
    both->answer_when_known();
  });
}

} // namespace

void add_health_route(router& routes, const desk& gateway) {
  routes.get(
      "/health",
      [gateway](const request& what, const responder& done) { health(gateway, what, done); },
      access::open);
}

} // namespace berth::http
