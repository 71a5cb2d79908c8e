// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/client.hpp"
#include "bench/host.hpp"
#include "bench/process.hpp"

#include <set>
#include <string>
#include <utility>
#include <vector>

namespace berth::bench {

/// What a stopped server left behind, one text each; empty is right.
using leftovers = std::vector<std::string>;

/// A server of the bench's own: its own directories, endpoints and configuration.
class server {
public:
  /// Starts `berth serve` and waits until it is healthy. `config` is merged over the bench's own
  /// configuration. Throws with the end of its log when it does not come up.
  server(zmq::context_t& context, const std::string& executable, const json& config);
  /// Kills it when stop() was not called.
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  pid_t pid() const { return pid_; }
  /// Where requests go, by ipc.
  std::string endpoint() const { return "ipc://" + runtime_ + "/berth.ipc"; }
  /// Where events come from.
  const std::string& events() const { return events_; }
  /// Where HTTP is served.
  std::uint16_t http_port() const { return http_port_; }
  const health_info& health() const { return health_; }

  client connect(zmq::socket_type type = zmq::socket_type::req);
  /// Waits until no job waits or runs and the pool of idle machines no longer changes.
  void settle(milliseconds limit = milliseconds{20'000});
  /// Machines that stand ready.
  std::uint32_t idle_machines();

  /// Stops it by SIGTERM, waits for its end, looks for what it left. Throws when it has to be
  /// killed or fails.
  leftovers stop();

private:
  void launch(const std::string& executable, const std::string& config_file);
  void wait_healthy();
  bool wait_end(milliseconds limit);
  std::string log_end() const;

  zmq::context_t& context_;
  temporary_directory place_;
  std::string runtime_;
  std::string events_;
  std::uint16_t http_port_ = 0;
  health_info health_;
  pid_t pid_ = -1;
  int status_ = 0;
};

} // namespace berth::bench
