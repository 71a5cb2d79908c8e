// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"
#include "config/settings.hpp"
#include "messages/limits.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace berth::http {

/// What bounds a server and its clients.
struct server_options {
  /// A numeric address.
  std::string address = "127.0.0.1";
  /// 0: any free port; see server::port().
  std::uint16_t port = 0;
  /// Second port, the Terraphim server's; 0: none.
  std::uint16_t terraphim_port = 0;
  /// Bearer tokens that let a client in; empty: none is asked for.
  std::vector<std::string> tokens = {};

  std::size_t connections_max = 1024;
  std::uint32_t header_bytes_max = 32 * 1024;
  std::size_t body_bytes_max = limits::request_bytes_max;
  std::size_t socket_message_bytes_max = 4 * limits::mib;
  /// How long a connection may be silent between requests.
  std::chrono::milliseconds idle_timeout{75'000};
  /// How long a request's header may take from its first byte.
  std::chrono::milliseconds header_timeout{10'000};
  /// How long a request's body may take.
  std::chrono::milliseconds body_timeout{60'000};
  /// How long one part of a reply may take to be sent.
  std::chrono::milliseconds write_timeout{60'000};
  /// How long a WebSocket may be silent; it is pinged at half of it.
  std::chrono::milliseconds socket_idle_timeout{120'000};
};

/// Every facade that this build has.
std::vector<std::unique_ptr<facade>> make_facades(const settings& values);

/// What the settings say, with the other bounds at their defaults.
server_options options_of(const settings& values);

/// The HTTP and WebSocket door: one listener or two, one thread, any number of facades.
/// Constructed, filled, started and stopped by one thread. The porter and its actor system outlive
/// it.
class server {
public:
  server(server_options options, porter& carrier);
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  /// Adds a contract. Before start() only.
  void add(std::unique_ptr<facade> contract);

  /// Binds, listens and starts the thread. The error names address and port.
  error start();

  /// The port that is listened on, once started.
  std::uint16_t port() const;
  /// The second one; 0: there is none.
  std::uint16_t terraphim_port() const;

  /// Closes every connection and joins the thread. Idempotent.
  void stop();

private:
  struct core;
  std::shared_ptr<core> core_;
};

} // namespace berth::http

namespace berth {

/// The server with every facade that this build has, as the settings ask for it.
std::unique_ptr<http::server> make_http_server(const settings& values, porter& carrier);

} // namespace berth
