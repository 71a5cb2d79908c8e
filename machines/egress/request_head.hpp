// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/egress/policy.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

/// What a program says to the proxy first: HTTP's CONNECT, or a request for a whole http URL. All
/// of it is hostile.
namespace berth::machines::egress {

struct request_head {
  destination to;
  /// CONNECT: what follows is nobody's affair but the two ends'.
  bool tunnel = false;
  /// Otherwise the head as the other end is to get it: for its own path, with a Host of our own
  /// making, without what is meant for a proxy, for one exchange.
  std::string forward;
  /// So many bytes belong to the request after its head; nothing: all that comes.
  std::optional<std::uint64_t> body_bytes;
};

/// An answer that ends the connection.
struct rejection {
  int status = 400;
  std::string reason;
};

/// Length of the head that a stream begins with, its empty line included; 0 when it is not whole.
std::size_t head_size(std::string_view data);
std::variant<request_head, rejection> parse_request_head(std::string_view head);
/// The rejection as HTTP: the reason is in the status line, where most clients show it, and in the
/// body.
std::string rejection_text(const rejection& why);

} // namespace berth::machines::egress
