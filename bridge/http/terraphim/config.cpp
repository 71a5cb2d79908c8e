// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/context.hpp"
#include "config/limits.hpp"
#include "config/role_shape.hpp"

namespace berth::http::terraphim {

namespace {

using error_handler = json::error_handler_t;

/// Answers with the configuration, or with why there is none.
std::function<void(expected<config_text>)> told(const responder& done) {
  return [done](const expected<config_text>& answer) {
    done(answer ? reply{.body = config_body(*answer)} : error_reply(answer.error()));
  };
}

void get(const shared_context& c, const request&, const responder& done) {
  c->gateway.ask<config_text>(get_config{}, told(done));
}

void set(const shared_context& c, const request& what, const responder& done) {
  auto wish = read_config(what.body);
  if (!wish)
    return done(malformed_reply(wish.why()));
  c->gateway.ask<config_text>(std::move(*wish), told(done));
}

void select(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  auto role = body ? read_text_member(*body, "selected_role") : decoded<std::string>{body.why()};
  if (!role)
    return done(malformed_reply(role.why()));
  if (role->empty())
    return done(malformed_reply({"selected_role", "is missing"}));
  c->gateway.ask<config_text>(select_role{std::move(*role)}, told(done));
}

void roles(const shared_context& c, const request&, const responder& done) {
  c->gateway.ask<role_list>(list_roles{}, [done](const expected<role_list>& answer) {
    if (!answer)
      return done(error_reply(answer.error()));
    json body = to_json(*answer);
    body["status"] = "success";
    body["total"] = answer->roles.size();
    done(json_reply(body));
  });
}

void models(const shared_context& c, const request&, const responder& done) {
  c->gateway.ask<model_list>(list_models{}, [done](const expected<model_list>& answer) {
    if (!answer)
      return done(error_reply(answer.error()));
    json body = to_json(*answer);
    body["status"] = "success";
    done(json_reply(body));
  });
}

} // namespace

std::string config_body(const config_text& answer) {
  std::string_view config = answer.json.empty() ? std::string_view{"{}"} : answer.json;
  // The text as it is: its members keep their order.
  std::string body = R"({"status":"success","config":)" + std::string{config};
  // Some of the web applications look for the roles one level too high.
  if (auto tree = nlohmann::ordered_json::parse(config, nullptr, false);
      tree.is_object() && tree.contains("roles"))
    body += ",\"roles\":" + tree["roles"].dump(-1, ' ', false, error_handler::replace);
  return body + "}";
}

decoded<set_config> read_config(const std::string& body) {
  auto tree = parse_json(body);
  if (!tree)
    return tree.why();
  if (!tree->is_object())
    return malformed{"", "the body must be a JSON object, is " + detail::kind_of(*tree)};
  if (body.size() > limits::roles_bytes_max)
    return malformed{"", "is larger than " + std::to_string(limits::roles_bytes_max) + " bytes"};
  auto inner = tree->find("config");
  if (tree->contains("roles") || inner == tree->end() || !inner->is_object())
    return set_config{body};
  // Bounds were kept by the first reading; this one keeps the order of members.
  auto ordered = nlohmann::ordered_json::parse(body, nullptr, false);
  return set_config{ordered["config"].dump(-1, ' ', false, error_handler::replace)};
}

void add_config_routes(router& routes, const shared_context& c) {
  routes.get("/config", with(c, get));
  routes.post("/config", with(c, set));
  routes.post("/config/selected_role", with(c, select));
  routes.get("/config/schema",
             [schema = config::role_config_schema().dump()](const request&, const responder& done) {
               done({.body = schema});
             });
  routes.get("/roles", with(c, roles));
  routes.get("/models", with(c, models));
}

} // namespace berth::http::terraphim
