// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "bridge/zmq/options.hpp"
#include "bridge/zmq/outbox.hpp"

#include <memory>
#include <string>

namespace berth {

/// What the bridge has done so far.
struct zmq_counters {
  std::uint64_t requests = 0;
  std::uint64_t refused = 0;
  std::uint64_t replies = 0;
  /// Answers whose client was gone.
  std::uint64_t orphaned = 0;
  std::uint64_t events = 0;
  std::uint64_t events_dropped = 0;
  /// Requests that wait for their answers now.
  std::uint64_t open = 0;
  /// Connections that have such requests.
  std::uint64_t connections = 0;
  /// Subscriptions now.
  std::uint64_t subscriptions = 0;
};

/// The door of ZeroMQ: a ROUTER for requests and an XPUB for events, owned by one thread of its
/// own. Any thread may call; the gateway must outlive it or end its requests.
class zmq_bridge {
public:
  /// Binds everything, then starts the thread. `outbox` is what the actors publish events to; make
  /// it first. Fails with the endpoint and the reason, leaving nothing bound.
  static expected<std::unique_ptr<zmq_bridge>> start(zmq_options options, caf::actor_system& system,
                                                     gateway_actor gateway,
                                                     std::shared_ptr<zmq_outbox> outbox);
  /// Stops as stop() does.
  ~zmq_bridge();
  zmq_bridge(const zmq_bridge&) = delete;
  zmq_bridge& operator=(const zmq_bridge&) = delete;

  /// The endpoints as they were bound, with their real ports; `ipc` is empty when there is none.
  const std::string& router_endpoint() const;
  const std::string& ipc_endpoint() const;
  const std::string& events_endpoint() const;

  zmq_counters counters() const;

  /// Sends the replies that are there, closes the sockets, joins the thread. Later replies are
  /// forgotten. May be called again.
  void stop();

private:
  class loop;
  explicit zmq_bridge(std::unique_ptr<loop> owned);
  std::unique_ptr<loop> loop_;
};

} // namespace berth
