// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"

#include <algorithm>

/// The session API, which the clients' "direct" mode speaks: a session is known by the name that
/// its client gave it.
namespace berth::http::fcctl {

namespace {

json session_json(const session_info& info) {
  json made = vm_json(info);
  made["name"] = info.name;
  made["session_id"] = info.session;
  return made;
}

/// Clients ask for 2048 MB whatever the server has: they get what there is.
decoded<open_session> read_open(const json& body, const settings& values) {
  json native{{"name", body.value("name", json(nullptr))}};
  for (const char* name : {"agent_id", "vm_type"})
    native[name] = body.value(name, json(nullptr));
  native["memory_mib"] = body.value("memory_mb", json(nullptr));
  auto wish = from_json<open_session>(native);
  if (!wish)
    return wish;
  if (wish->name.empty())
    return malformed{"name", "is missing"};
  if (wish->memory_mib) {
    const auto& cap = values.policy.security_settings.resource_limits.max_memory_mb;
    std::uint64_t most = std::min(values.maxima.memory_mib, cap.value_or(~0ull));
    wish->memory_mib = std::min<std::uint64_t>(*wish->memory_mib, most);
  }
  (void)settle_vm_type(wish->vm_type, values);
  return wish;
}

/// A name that is in use already is that session: its client has no other way to find it.
void open(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  auto wish = body ? read_open(*body, c->values) : body.why();
  if (!wish)
    return done(malformed_reply(wish.why()));
  std::string name = wish->name;
  c->gateway.ask<session_info>(std::move(*wish), [c, name, done](expected<session_info> answer) {
    if (answer)
      return done(json_reply(session_json(*answer), 201));
    if (answer.error() != ec::already_exists)
      return done(error_reply(answer.error()));
    with_session(c, name, done,
                 [done](const session_info& info) { done(json_reply(session_json(info))); });
  });
}

void execute(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto command = read_text_member(*body, "command");
  if (!command)
    return done(malformed_reply(command.why()));
  if (command->empty())
    return done(malformed_reply({"command", "is missing"}));
  json wanted = *body;
  wanted["vm_id"] = what.param("name");
  wanted["code"] = *command;
  if (!wanted.contains("language"))
    wanted["language"] = "bash";
  auto asked = read_execute(wanted, c->values);
  if (!asked)
    return done(malformed_reply(asked.why()));
  run job = asked->job;
  c->gateway.ask<outcome>(
      std::move(job), [done, asked = std::move(*asked)](expected<outcome> answer) {
        if (!answer)
          return done(error_reply(answer.error()));
        if (answer->state == job_state::blocked)
          return done(outcome_reply(*answer, asked));
        json made = execute_response(*answer, asked);
        made["output"] = made["stdout"].get<std::string>() + made["stderr"].get<std::string>();
        done(json_reply(made));
      });
}

void snapshot(const shared_context& c, const request& what, const responder& done) {
  save_state(c, what, what.param("name"), 200, done);
}

void roll_back(const shared_context& c, const request& what, const responder& done) {
  take_back(c, what, what.param("name"), {}, done);
}

void info(const shared_context& c, const request& what, const responder& done) {
  with_session(c, what.param("name"), done,
               [done](const session_info& found) { done(json_reply(session_json(found))); });
}

void close(const shared_context& c, const request& what, const responder& done) {
  c->gateway.ask<session_closed>(
      close_session{what.param("name")},
      [done, name = what.param("name")](expected<session_closed> answer) {
        if (!answer)
          return done(error_reply(answer.error()));
        done(json_reply({{"status", "success"}, {"name", name}, {"session_id", answer->session}}));
      });
}

} // namespace

void add_session_routes(router& routes, const shared_context& c) {
  auto with = [c](void (*serve)(const shared_context&, const request&, const responder&)) {
    return [c, serve](const request& what, const responder& done) { serve(c, what, done); };
  };
  routes.post("/sessions", with(open));
  routes.post("/sessions/{name}/execute", with(execute));
  routes.post("/sessions/{name}/snapshots", with(snapshot));
  routes.post("/sessions/{name}/rollback", with(roll_back));
  routes.get("/sessions/{name}/info", with(info));
  routes.erase("/sessions/{name}", with(close));
}

} // namespace berth::http::fcctl
