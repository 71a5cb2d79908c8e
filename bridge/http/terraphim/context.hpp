// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"
#include "bridge/http/terraphim/translate.hpp"

#include <chrono>
#include <memory>
#include <set>
#include <string>

/// The parts of the Terraphim facade. Only its own sources include this.
namespace berth::http::terraphim {

/// A WebSocket that hears of every workflow that is started over HTTP: its client starts one by
/// POST and then waits for the socket to tell how it went, without ever having subscribed.
class workflow_audience {
public:
  virtual ~workflow_audience() = default;

  virtual void on_started(const std::string& workflow) = 0;
};

/// What every route of the facade needs. Lives on the server's thread.
struct context {
  desk gateway;
  const settings& values;
  /// Sockets that are open now.
  std::set<workflow_audience*> audience = {};

  void announce(const std::string& workflow) const {
    auto all = audience;
    for (auto* each : all)
      each->on_started(workflow);
  }
};

using shared_context = std::shared_ptr<context>;

/// How long until a stream that has ended is looked at again, since its next turn may begin.
inline constexpr std::chrono::milliseconds again_wait{50};
/// How long until a question for news is asked again that found no place.
inline constexpr std::chrono::milliseconds place_wait{500};

/// New ids, of a conversation, a chat and a workflow.
std::string new_conversation_id();
std::string new_turn_id();
std::string new_workflow_id();

/// A handler that is given the context.
inline handler with(const shared_context& c,
                    void (*serve)(const shared_context&, const request&, const responder&)) {
  return [c, serve](const request& what, const responder& done) { serve(c, what, done); };
}

/// Starts to stream the events of a workflow, from after a number to its end.
void stream_workflow(const shared_context& c, const std::string& workflow, std::uint64_t after,
                     const responder& done);
/// Takes a turn and streams what happens, its reply at the end. Cancels it when the client leaves.
void stream_chat(const shared_context& c, chat what, const responder& done);

void add_config_routes(router& routes, const shared_context& c);
void add_chat_routes(router& routes, const shared_context& c);
void add_workflow_routes(router& routes, const shared_context& c);
void add_live_routes(router& routes, const shared_context& c);

} // namespace berth::http::terraphim
