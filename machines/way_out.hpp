// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace berth::machines {

/// Where programs in a machine that has a network find it: a proxy of HTTP on the machine's own
/// loopback. The machine has no other interface, so it has no other way.
inline constexpr std::uint16_t way_out_port = 3128;
/// Connections that may wait to be accepted there.
inline constexpr int way_out_backlog = 64;

/// Who serves such sockets. A socket belongs to the network namespace in which it was made, so one
/// that was made in a machine's is reached from there, and by nobody else, while whoever holds the
/// descriptor may live outside.
class way_out {
public:
  virtual ~way_out() = default;

  /// Takes over a machine's listening socket, and serves it until what is returned is let go. Any
  /// thread.
  virtual std::shared_ptr<void> serve(const std::string& machine, owned_fd listener) = 0;
  /// What is to be said about it, a line a fact. Any thread.
  virtual std::vector<std::string> facts() const { return {}; }
};

} // namespace berth::machines
