// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"

#include <caf/actor.hpp>
#include <caf/actor_system.hpp>
#include <caf/message.hpp>

#include <functional>
#include <memory>
#include <utility>

namespace berth {

/// Carries requests of a thread that is no actor to the GATEWAY, and the answers back, without an
/// actor between: the porter looks like one to the GATEWAY, and an answer is handed over where it
/// is given. Owned by a bridge; any thread may ask. The callback runs on the GATEWAY's worker: it
/// hands over and returns.
class porter {
public:
  porter(caf::actor_system& system, gateway_actor gateway);
  /// Answers that come later are forgotten.
  ~porter();
  porter(const porter&) = delete;
  porter& operator=(const porter&) = delete;

  /// Asks and calls `callback(expected<Reply>)` exactly once, unless the system ends first.
  template <class Reply, class Request, class Callback>
  void ask(Request request, Callback callback) {
    auto done = [callback = std::move(callback)](caf::message answer) mutable {
      if (answer.template match_elements<Reply>())
        callback(expected<Reply>{std::move(answer.template get_mutable_as<Reply>(0))});
      else if (answer.template match_elements<error>())
        callback(expected<Reply>{std::move(answer.template get_mutable_as<error>(0))});
      else
        callback(expected<Reply>{fail(ec::internal, "an answer of another type came")});
    };
    send(caf::make_message(std::move(request)), std::move(done));
  }

private:
  using receiver = std::function<void(caf::message)>;
  struct desk;

  void send(caf::message request, receiver done);

  std::shared_ptr<desk> desk_;
  caf::strong_actor_ptr gateway_;
  caf::actor companion_;
};

} // namespace berth
