// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"
#include "config/settings.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace berth {

/// What the ZeroMQ door is made of.
struct zmq_options {
  /// Where requests come in, `tcp://HOST:PORT`; port 0 or `*`: any free one.
  std::string router = "tcp://127.0.0.1:5555";
  /// Second place for requests, `ipc://PATH`; empty: none. Needs no key: the file's mode guards it.
  std::string ipc;
  /// Where events go out.
  std::string events = "tcp://127.0.0.1:5556";

  /// CURVE keys of the server in Z85; both or neither. They guard every TCP endpoint.
  std::string curve_secret_key;
  std::string curve_public_key;
  /// Public keys of the clients let in; empty: every client that knows the server's key.
  std::vector<std::string> curve_clients;

  /// Permission bits of the socket file.
  std::uint32_t ipc_mode = 0660;
  /// Requests of one connection that wait for their answers.
  std::size_t requests_per_connection_max = 1024;
  /// Requests of all connections that wait for their answers.
  std::size_t requests_open_max = limits::requests_open_max;
  /// Replies of one connection that wait because it does not read; with as many waiting, refusals
  /// to it are dropped. Answers to accepted requests never are.
  std::size_t refusals_waiting_max = 1024;
  /// Messages per peer that ZeroMQ itself holds in each direction.
  int high_water_mark = 1024;
  /// Between beats on a silent connection; a peer that misses three is gone.
  std::chrono::milliseconds heartbeat{10'000};
  /// How long a new connection may take to say who it is.
  std::chrono::milliseconds handshake{10'000};
  /// How long the last replies may take to leave when the bridge stops.
  std::chrono::milliseconds linger{500};

  /// The part of the settings that concerns this door.
  static zmq_options from(const settings& values) {
    zmq_options made;
    made.router = values.zmq_router;
    made.ipc = values.zmq_ipc;
    made.events = values.zmq_events;
    made.curve_secret_key = values.zmq_curve_secret_key;
    made.curve_public_key = values.zmq_curve_public_key;
    made.curve_clients = values.zmq_curve_clients;
    return made;
  }
};

} // namespace berth
