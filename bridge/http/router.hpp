// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/message.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace berth::http {

/// Whether a route asks for a token when tokens are configured.
enum class access : std::uint8_t { guarded, open };

/// What a router found for a request.
struct match {
  /// Set when the route exists.
  const handler* serve = nullptr;
  /// Set when the route exists and is a WebSocket's.
  const socket_factory* upgrade = nullptr;
  access guard = access::guarded;
  std::map<std::string, std::string> params = {};
  /// Methods of the path, for `Allow`; empty: there is no such path.
  std::string allow = {};
};

/// Which handler serves which method and path. A pattern is a path whose segments may be `{name}`;
/// where several fit, the one whose first differing segment is literal wins, so `/vms/metrics` wins
/// over `/vms/{id}`. HEAD is served by GET. Filled before the server starts, read-only after.
class router {
public:
  void add(std::string_view method, std::string_view pattern, handler serve,
           access guard = access::guarded);
  void get(std::string_view pattern, handler serve, access guard = access::guarded) {
    add("GET", pattern, std::move(serve), guard);
  }
  void post(std::string_view pattern, handler serve) { add("POST", pattern, std::move(serve)); }
  void put(std::string_view pattern, handler serve) { add("PUT", pattern, std::move(serve)); }
  void erase(std::string_view pattern, handler serve) { add("DELETE", pattern, std::move(serve)); }
  /// A GET that upgrades to a WebSocket.
  void websocket(std::string_view pattern, socket_factory upgrade);

  match find(std::string_view method, const std::vector<std::string>& path) const;

private:
  struct segment {
    std::string text;
    bool literal = true;
  };
  struct entry {
    std::string method;
    handler serve;
    socket_factory upgrade;
    access guard = access::guarded;
  };
  struct route {
    std::vector<segment> segments;
    std::vector<entry> entries;
  };

  route& route_of(std::string_view pattern);
  static bool fits(const route& candidate, const std::vector<std::string>& path);

  /// In the order of preference.
  std::vector<route> routes_;
};

} // namespace berth::http
