// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"

#include <caf/actor_system.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>

#include <functional>
#include <memory>
#include <utility>

namespace berth {

/// One thing for the porter's actor to do. Stays in the process.
struct porter_task {
  std::function<void(caf::event_based_actor*)> work;
};

} // namespace berth

CAF_BEGIN_TYPE_ID_BLOCK(berth_bridge, caf::id_block::berth_actors::end)

  CAF_ADD_TYPE_ID(berth_bridge, (berth::porter_task))

CAF_END_TYPE_ID_BLOCK(berth_bridge)

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(berth::porter_task)

namespace berth {

/// Carries requests of a thread that is no actor to the GATEWAY, and the answers back. Owned by a
/// bridge; any thread may ask. The callback runs on an actor's worker: it hands over and returns.
class porter {
public:
  porter(caf::actor_system& system, gateway_actor gateway);
  ~porter();
  porter(const porter&) = delete;
  porter& operator=(const porter&) = delete;

  /// Asks and calls `callback(expected<Reply>)` exactly once, unless the system ends first.
  template <class Reply, class Request, class Callback>
  void ask(Request request, Callback callback) {
    auto done = std::make_shared<Callback>(std::move(callback));
    porter_task task{
        [gateway = gateway_, request = std::move(request), done](caf::event_based_actor* self) {
          self->request(gateway, caf::infinite, request)
              .then([done](Reply& reply) { (*done)(expected<Reply>{std::move(reply)}); },
                    [done](error& why) { (*done)(expected<Reply>{std::move(why)}); });
        }};
    caf::anon_send(actor_, std::move(task));
  }

private:
  gateway_actor gateway_;
  caf::actor actor_;
};

} // namespace berth
