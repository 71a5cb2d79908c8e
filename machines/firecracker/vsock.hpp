// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/reactor.hpp"
#include "messages/fd.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace berth::machines::firecracker {

/// Asks Firecracker's vsock for a port of its guest: a line is said, a line is heard, and then the
/// stream is the guest's. Firecracker hangs up where nobody listens. On the reactor's thread.
class vsock_call : public std::enable_shared_from_this<vsock_call> {
public:
  /// The stream, or why there is none. Called once, unless it is closed before.
  using done_handler = std::function<void(owned_fd stream, const std::string& error)>;

  vsock_call(reactor& loop, owned_fd socket)
    : loop_(loop)
    , socket_(std::move(socket)) {}

  void begin(std::uint32_t port, std::chrono::milliseconds within, done_handler done);
  void close();

private:
  void on_events();
  void end(const std::string& error);

  reactor& loop_;
  owned_fd socket_;
  done_handler done_;
  reactor::token watch_ = 0;
  reactor::token timer_ = 0;
  std::string heard_;
};

} // namespace berth::machines::firecracker
