// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/context.hpp"

#include <charconv>

namespace berth::http::terraphim {

namespace {

/// A workflow that fails is 200 with `success: false`, in every pattern; so is one that could not
/// begin for what it asks. What the client may mend or try again later has a status of its own.
reply refused_reply(const error& why, const workflow_request& asked) {
  bool of_http = why == ec::malformed || why == ec::too_large || why == ec::no_capacity
                 || why == ec::shutting_down || why == ec::already_exists || why == ec::internal;
  return of_http ? error_reply(why) : json_reply(workflow_failed_json(why, asked));
}

void run(const shared_context& c, const request& what, const responder& done) {
  auto pattern = pattern_of(what.param("id"));
  if (!pattern)
    return done(error_reply(ec::not_found, "no workflow pattern is called "
                                               + to_utf8(what.param("id").substr(0, 100))));
  auto body = read_body(what);
  auto asked =
      body ? read_workflow(*body, *pattern, c->values) : decoded<workflow_request>{body.why()};
  if (!asked)
    return done(malformed_reply(asked.why()));
  if (asked->what.workflow.empty())
    asked->what.workflow = new_workflow_id();
  auto answer = [done, asked = *asked](const expected<workflow_info>& info) {
    if (!info)
      return done(refused_reply(info.error(), asked));
    done(json_reply(workflow_json(*info, asked), asked.async ? 202 : 200));
  };
  c->announce(asked->what.workflow);
  if (!asked->async)
    return c->gateway.ask<workflow_info>(std::move(asked->what), std::move(answer));
  submit_workflow wish;
  static_cast<run_workflow&>(wish) = std::move(asked->what);
  c->gateway.ask<workflow_info>(std::move(wish), std::move(answer));
}

/// Asks something about one workflow and answers in a shape.
template <class Request>
handler about(const shared_context& c, json (*shape)(const workflow_info&)) {
  return [c, shape](const request& what, const responder& done) {
    c->gateway.ask<workflow_info>(
        Request{what.param("id")}, [done, shape](const expected<workflow_info>& info) {
          done(info ? json_reply(shape(*info)) : error_reply(info.error()));
        });
  };
}

/// What became of a wish to change a workflow.
json changed_json(const workflow_info& info) {
  json made = status_json(info);
  made["success"] = true;
  made["message"] = "the workflow is " + std::string{name_of(info.status)};
  return made;
}

json list_json(const workflow_list& all) {
  json list = json::array();
  for (const auto& info : all.workflows)
    list.push_back(status_json(info));
  return list;
}

void list(const shared_context& c, const request&, const responder& done) {
  c->gateway.ask<workflow_list>(list_workflows{}, [done](const expected<workflow_list>& all) {
    done(all ? json_reply(list_json(*all)) : error_reply(all.error()));
  });
}

/// The workflows that run, as the sessions that the JavaScript client knows them by.
void sessions(const shared_context& c, const request&, const responder& done) {
  c->gateway.ask<workflow_list>(list_workflows{.alive_only = true},
                                [done](const expected<workflow_list>& all) {
                                  if (!all)
                                    return done(error_reply(all.error()));
                                  json list = list_json(*all);
                                  std::size_t count = list.size();
                                  done(json_reply({{"status", "success"},
                                                   {"sessions", std::move(list)},
                                                   {"total", count},
                                                   {"total_count", count}}));
                                });
}

void events(const shared_context& c, const request& what, const responder& done) {
  std::string_view from = what.header("last-event-id");
  if (from.empty())
    from = what.query_of("after");
  std::uint64_t after = 0;
  auto [end, why] = std::from_chars(from.data(), from.data() + from.size(), after);
  if (!from.empty() && (why != std::errc{} || end != from.data() + from.size()))
    return done(malformed_reply({"after", "must be a whole number"}));
  stream_workflow(c, what.param("id"), after, done);
}

} // namespace

void add_workflow_routes(router& routes, const shared_context& c) {
  for (std::string base : {"/workflows", "/api/workflows"}) {
    routes.get(base, with(c, list));
    routes.get(base + "/sessions", with(c, sessions));
    routes.post(base + "/{id}", with(c, run));
    routes.get(base + "/{id}", about<get_workflow>(c, status_json));
    routes.get(base + "/{id}/status", about<get_workflow>(c, status_json));
    routes.get(base + "/{id}/trace", about<get_workflow>(c, trace_json));
    routes.get(base + "/{id}/events", with(c, events));
    for (const char* word : {"/cancel", "/stop"})
      routes.post(base + "/{id}" + word, about<cancel_workflow>(c, changed_json));
    routes.post(base + "/{id}/pause", about<pause_workflow>(c, changed_json));
    routes.post(base + "/{id}/resume", about<resume_workflow>(c, changed_json));
  }
}

} // namespace berth::http::terraphim
