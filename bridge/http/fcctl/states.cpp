// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"

namespace berth::http::fcctl {

namespace {

void create(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  auto wish = body ? read_snapshot(*body, what.param("id")) : body.why();
  if (!wish)
    return done(malformed_reply(wish.why()));
  c->gateway.ask<snapshot_info>(std::move(*wish), [done](expected<snapshot_info> answer) {
    done(answer ? json_reply(snapshot_json(*answer), 201) : error_reply(answer.error()));
  });
}

void list(const shared_context& c, const request& what, const responder& done) {
  std::string id = what.param("id");
  with_session_of_past(c, id, done, [c, id, done](const session_info& info, bool is_open) {
    c->gateway.ask<snapshot_list>(
        list_snapshots{.session = info.session, .agent_id = {}},
        [id, is_open, done](expected<snapshot_list> answer) {
          if (!answer)
            return done(error_reply(answer.error()));
          if (!is_open && answer->snapshots.empty())
            return done(error_reply(ec::not_found, "VM not available: " + id));
          json all = json::array();
          for (const auto& one : answer->snapshots)
            all.push_back(snapshot_json(one));
          std::size_t count = all.size();
          done(json_reply({{"snapshots", std::move(all)}, {"total", count}, {"vm_id", id}}));
        });
  });
}

void erase(const shared_context& c, const request& what, const responder& done) {
  std::string id = what.param("snapshot_id");
  c->gateway.ask<snapshot_deleted>(delete_snapshot{id}, [id,
                                                         done](expected<snapshot_deleted> answer) {
    if (!answer)
      return done(error_reply(answer.error()));
    done(json_reply({{"status", "success"}, {"message", "snapshot deleted"}, {"snapshot_id", id}}));
  });
}

/// The snapshot stands in the path. A body is not needed, and most clients send none.
void roll_back(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  auto wish = body ? read_rollback(*body, what.param("id")) : body.why();
  if (!wish)
    return done(malformed_reply(wish.why()));
  wish->snapshot = what.param("snapshot_id");
  c->gateway.ask<rolled_back>(std::move(*wish), [done](expected<rolled_back> answer) {
    done(answer ? json_reply(rolled_back_json(*answer)) : error_reply(answer.error()));
  });
}

void history(const shared_context& c, const request& what, const responder& done) {
  std::string id = what.param("id");
  auto wish = read_history_query(what.query, id);
  if (!wish)
    return done(malformed_reply(wish.why()));
  bool narrowed = what.query.size() > what.query.count("limit");
  ask_history(c, std::move(*wish), id,
              [id, narrowed, done](const expected<json>& past, bool is_open) {
                if (!past)
                  return done(error_reply(past.error()));
                if (!is_open && !narrowed && (*past)["total"] == 0)
                  return done(error_reply(ec::not_found, "VM not available: " + id));
                done(json_reply(*past));
              });
}

} // namespace

decoded<take_snapshot> read_snapshot(const json& body, const std::string& session) {
  take_snapshot wish;
  wish.session = session;
  for (auto [name, to] :
       {std::pair{"name", &wish.name}, std::pair{"description", &wish.description}}) {
    auto text = read_text_member(body, name);
    if (!text)
      return text.why();
    *to = std::move(*text);
  }
  return wish;
}

decoded<rollback> read_rollback(const json& body, const std::string& session) {
  rollback wish;
  wish.session = session;
  auto snapshot = read_text_member(body, "snapshot_id");
  if (!snapshot)
    return snapshot.why();
  wish.snapshot = std::move(*snapshot);
  const char* first = "create_pre_rollback_snapshot";
  if (auto member = body.find(first); member != body.end() && !member->is_null()) {
    if (!member->is_boolean())
      return malformed{first, "must be true or false, is " + detail::kind_of(*member)};
    wish.snapshot_first = member->get<bool>();
  }
  return wish;
}

void with_session_of_past(const shared_context& c, const std::string& id, const responder& done,
                          std::function<void(const session_info&, bool is_open)> go_on) {
  c->gateway.ask<session_list>(list_sessions{.agent_id = {}, .session = id},
                               [id, done, go_on = std::move(go_on)](expected<session_list> found) {
                                 if (!found)
                                   return done(error_reply(found.error()));
                                 if (!found->sessions.empty())
                                   return go_on(found->sessions.front(), true);
                                 go_on(past_session(id), false);
                               });
}

void ask_history(const shared_context& c, query_history wish, const std::string& id,
                 std::function<void(const expected<json>&, bool is_open)> then) {
  auto told = [c, id, then](const history_page& page, bool is_open, const std::string& session) {
    c->gateway.ask<snapshot_list>(list_snapshots{.session = session, .agent_id = {}},
                                  [page, id, is_open, then](expected<snapshot_list> saved) {
                                    // History is of use without them, too.
                                    snapshot_list known = saved ? *saved : snapshot_list{};
                                    then(history_json(page, id, known.snapshots), is_open);
                                  });
  };
  c->gateway.ask<session_list>(
      list_sessions{.agent_id = {}, .session = id},
      [c, id, wish = std::move(wish), then, told](expected<session_list> found) mutable {
        if (!found)
          return then(found.error(), false);
        bool is_open = !found->sessions.empty();
        session_info session = is_open ? found->sessions.front() : past_session(id);
        wish.machine = session.machine;
        c->gateway.ask<history_page>(
            std::move(wish),
            [then, told, is_open, session = session.session](expected<history_page> page) {
              if (!page)
                return then(page.error(), is_open);
              told(*page, is_open, session);
            });
      });
}

void add_state_routes(router& routes, const shared_context& c) {
  auto with = [c](void (*serve)(const shared_context&, const request&, const responder&)) {
    return [c, serve](const request& what, const responder& done) { serve(c, what, done); };
  };
  routes.post("/api/vms/{id}/snapshots", with(create));
  routes.get("/api/vms/{id}/snapshots", with(list));
  routes.erase("/api/vms/{id}/snapshots/{snapshot_id}", with(erase));
  routes.post("/api/vms/{id}/rollback/{snapshot_id}", with(roll_back));
  routes.get("/api/vms/{id}/history", with(history));
}

} // namespace berth::http::fcctl
