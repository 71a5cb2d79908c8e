// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"

namespace berth::http::fcctl {

namespace {

/// A session by id, name or machine id; of one that is not open (any more) what its id says.
struct found_session {
  session_info info;
  bool is_open = false;
};

void find_session(const shared_context& c, const std::string& id,
                  std::function<void(const expected<found_session>&)> then) {
  c->gateway.ask<session_list>(list_sessions{.agent_id = {}, .session = id},
                               [id, then = std::move(then)](expected<session_list> answer) {
                                 if (!answer)
                                   return then(answer.error());
                                 if (answer->sessions.empty())
                                   return then(found_session{past_session(id), false});
                                 then(found_session{std::move(answer->sessions.front()), true});
                               });
}

void create(const shared_context& c, const request& what, const responder& done) {
  save_state(c, what, what.param("id"), 201, done);
}

void list(const shared_context& c, const request& what, const responder& done) {
  std::string id = what.param("id");
  find_session(c, id, [c, id, done](const expected<found_session>& found) {
    if (!found)
      return done(error_reply(found.error()));
    c->gateway.ask<snapshot_list>(
        list_snapshots{.session = found->info.session, .agent_id = {}},
        [id, is_open = found->is_open, done](expected<snapshot_list> answer) {
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

/// A body is not needed, and most clients send none.
void roll_back(const shared_context& c, const request& what, const responder& done) {
  take_back(c, what, what.param("id"), what.param("snapshot_id"), done);
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

decoded<rollback> read_rollback(const json& body, const std::string& session,
                                const std::string& snapshot_of_path) {
  rollback wish;
  wish.session = session;
  auto snapshot = read_text_member(body, "snapshot_id");
  if (!snapshot)
    return snapshot.why();
  wish.snapshot = snapshot_of_path.empty() ? std::move(*snapshot) : snapshot_of_path;
  const char* first = "create_pre_rollback_snapshot";
  if (auto member = body.find(first); member != body.end() && !member->is_null()) {
    if (!member->is_boolean())
      return malformed{first, "must be true or false, is " + detail::kind_of(*member)};
    wish.snapshot_first = member->get<bool>();
  }
  if (wish.snapshot.empty())
    return malformed{"snapshot_id", "is missing"};
  return wish;
}

void save_state(const shared_context& c, const request& what, const std::string& session,
                int status, const responder& done) {
  auto body = read_body(what);
  auto wish = body ? read_snapshot(*body, session) : body.why();
  if (!wish)
    return done(malformed_reply(wish.why()));
  c->gateway.ask<snapshot_info>(std::move(*wish), [status, done](expected<snapshot_info> answer) {
    done(answer ? json_reply(snapshot_json(*answer), status) : error_reply(answer.error()));
  });
}

void take_back(const shared_context& c, const request& what, const std::string& session,
               const std::string& snapshot_of_path, const responder& done) {
  auto body = read_body(what);
  auto wish = body ? read_rollback(*body, session, snapshot_of_path) : body.why();
  if (!wish)
    return done(malformed_reply(wish.why()));
  c->gateway.ask<rolled_back>(std::move(*wish), [done](expected<rolled_back> answer) {
    done(answer ? json_reply(rolled_back_json(*answer)) : error_reply(answer.error()));
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
  find_session(
      c, id, [c, wish = std::move(wish), then, told](const expected<found_session>& found) mutable {
        if (!found)
          return then(found.error(), false);
        wish.machine = found->info.machine;
        c->gateway.ask<history_page>(std::move(wish),
                                     [then, told, session = *found](expected<history_page> page) {
                                       if (!page)
                                         return then(page.error(), session.is_open);
                                       told(*page, session.is_open, session.info.session);
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
