// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace berth::test {

/// model_server.py as a child process: it plays a script over real sockets, in both dialects, and
/// keeps what it was asked. The head of that file describes scripts and records. Dies with this.
class model_server {
public:
  /// Returns when it listens. Throws std::runtime_error when it cannot, or the script is no good.
  explicit model_server(const nlohmann::json& script = nlohmann::json::object());
  model_server(const model_server&) = delete;
  model_server& operator=(const model_server&) = delete;
  ~model_server();

  std::uint16_t port() const { return port_; }
  /// http://127.0.0.1:PORT, as `base_url` of an endpoint of either dialect.
  std::string url() const;

  /// Plays this from now on.
  void play(const nlohmann::json& script) const;
  /// What it was asked, oldest first.
  nlohmann::json requests() const;
  /// Forgets what it was asked.
  void forget() const;
  /// How many requests are open now and were at most, connections, and how many replies are held.
  nlohmann::json state() const;
  /// Lets go the replies that are held under this name.
  void release(const std::string& name) const;

private:
  nlohmann::json call(std::string_view method, const std::string& path,
                      const std::string& body = {}) const;

  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

} // namespace berth::test
