// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/context.hpp"

namespace berth::http::terraphim {

namespace {

/// Reads a request and names its conversation, so that its progress can be followed from the start,
/// and the chat itself, so that who leaves cancels nobody else's.
decoded<chat> read_turn(const request& what) {
  auto body = read_body(what);
  if (!body)
    return body.why();
  auto turn = read_chat(*body);
  if (turn && turn->conversation.empty())
    turn->conversation = new_conversation_id();
  if (turn && turn->turn.empty())
    turn->turn = new_turn_id();
  return turn;
}

/// What an agent says is always 200, whatever it says: only a request that is none is not.
void take_turn(const shared_context& c, const request& what, const responder& done) {
  auto turn = read_turn(what);
  if (!turn)
    return done(malformed_reply(turn.why()));
  if (what.header("accept").find("text/event-stream") != std::string_view::npos)
    return stream_chat(c, std::move(*turn), done);
  auto answered = std::make_shared<bool>(false);
  done.when_gone([c, own = cancel_chat{turn->conversation, turn->turn}, answered] {
    if (!*answered)
      c->gateway.ask<chat_cancelled>(own, [](const expected<chat_cancelled>&) {});
  });
  chat asked = *turn;
  c->gateway.ask<chat_reply>(std::move(asked), [done, answered, turn = std::move(*turn)](
                                                   const expected<chat_reply>& answer) {
    *answered = true;
    done(json_reply(answer ? chat_json(*answer) : chat_failed_json(answer.error(), turn)));
  });
}

void stream_turn(const shared_context& c, const request& what, const responder& done) {
  auto turn = read_turn(what);
  if (!turn)
    return done(malformed_reply(turn.why()));
  stream_chat(c, std::move(*turn), done);
}

json conversation_json(const conversation_info& info) {
  json made = to_json(info);
  put_twice(made, "conversation_id", info.conversation);
  made["created_at"] = to_rfc3339(info.created_at_ms);
  made["last_used_at"] = to_rfc3339(info.last_used_at_ms);
  return made;
}

void conversations(const shared_context& c, const request& what, const responder& done) {
  std::string id = what.param("id");
  c->gateway.ask<conversation_list>(
      list_conversations{.conversation = id}, [id, done](const expected<conversation_list>& all) {
        if (!all)
          return done(error_reply(all.error()));
        json list = json::array();
        for (const auto& each : all->conversations)
          list.push_back(conversation_json(each));
        if (id.empty())
          return done(json_reply({{"status", "success"}, {"conversations", std::move(list)}}));
        if (list.empty())
          return done(error_reply(ec::not_found, "conversation: there is no " + id));
        json one = std::move(list.front());
        one["status"] = "success";
        done(json_reply(one));
      });
}

void forget(const shared_context& c, const request& what, const responder& done) {
  c->gateway.ask<conversation_closed>(close_conversation{what.param("id")},
                                      [done](const expected<conversation_closed>& gone) {
                                        if (!gone)
                                          return done(error_reply(gone.error()));
                                        json body{{"status", "success"}};
                                        put_twice(body, "conversation_id", gone->conversation);
                                        done(json_reply(body));
                                      });
}

void cancel_turn(const shared_context& c, const request& what, const responder& done) {
  cancel_chat wish{what.param("id"), std::string{what.query_of("turn_id")}};
  c->gateway.ask<chat_cancelled>(std::move(wish), [done](const expected<chat_cancelled>& answer) {
    if (!answer)
      return done(error_reply(answer.error()));
    json body{{"status", "success"}, {"was_busy", answer->was_busy}};
    put_twice(body, "conversation_id", answer->conversation);
    put_twice(body, "turn_id", or_null(answer->turn));
    done(json_reply(body));
  });
}

} // namespace

void add_chat_routes(router& routes, const shared_context& c) {
  routes.post("/chat", with(c, take_turn));
  routes.post("/chat/stream", with(c, stream_turn));
  routes.get("/conversations", with(c, conversations));
  routes.get("/conversations/{id}", with(c, conversations));
  routes.erase("/conversations/{id}", with(c, forget));
  routes.post("/conversations/{id}/cancel", with(c, cancel_turn));
}

} // namespace berth::http::terraphim
