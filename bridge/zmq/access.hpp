// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/zmq/options.hpp"
#include "messages/caf.hpp"

#include <zmq.hpp>

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

/// Who may come in: which endpoints are bound without keys, and which keys open those with.
namespace berth {

/// The domain that TCP endpoints with CURVE announce to ZAP.
inline constexpr const char* zap_domain = "berth";

/// Whether a TCP endpoint can be reached from this host only. A name other than localhost and an
/// interface other than lo count as reachable from outside.
bool is_loopback(std::string_view endpoint);

/// Checks endpoints and keys before anything is bound: known transports, keys that are keys, no
/// bind beyond loopback without them.
error check_access(const zmq_options& options);

/// Makes the place of an ipc endpoint ready: removes the socket that a dead server left. Fails with
/// already_exists when a live one answers there or the file is no socket.
error clear_ipc(const std::string& endpoint);

/// Sets the permission bits of a bound ipc endpoint.
error guard_ipc(const std::string& endpoint, std::uint32_t mode);

/// ZAP (RFC 27): answers for the I/O thread of ZeroMQ whether a client's key is known. Lives in the
/// bridge's thread; bind before any endpoint that needs it.
class zap_keeper {
public:
  zap_keeper(zmq::context_t& context, const std::vector<std::string>& clients);

  zmq::socket_t& socket() { return socket_; }
  /// Answers all that was asked.
  void serve();

private:
  bool admits(std::string_view mechanism, std::string_view key) const;

  zmq::socket_t socket_;
  std::unordered_set<std::string> keys_;
};

} // namespace berth
