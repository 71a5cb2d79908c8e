// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/porter.hpp"
#include "bridge/zmq/envelope.hpp"
#include "bridge/zmq/outbox.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace berth {

/// Turns what a client asked for into messages to the GATEWAY, by the one list of operations, and
/// puts the encoded answers into the outbox. Used by the bridge's thread.
class zmq_dispatcher {
public:
  zmq_dispatcher(caf::actor_system& system, gateway_actor gateway,
                 std::shared_ptr<zmq_outbox> outbox);

  /// Decodes the body of a call and asks. Afterwards exactly one reply comes to the outbox; with a
  /// refusal none does, and nothing was asked.
  std::optional<refusal> dispatch(const zmq_call& call, const zmq_address& from);

private:
  using handler = std::function<std::optional<refusal>(const zmq_call&, const zmq_address&)>;

  template <class Operation>
  void add(const Operation& operation);

  porter porter_;
  std::shared_ptr<zmq_outbox> outbox_;
  std::unordered_map<std::string_view, handler> handlers_;
};

/// The names of operations that an unknown one may have been meant to be, nearest first.
std::vector<std::string_view> close_operations(std::string_view name);

} // namespace berth
