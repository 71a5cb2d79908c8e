// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace berth::models {

/// One request to an endpoint.
struct exchange {
  std::string url;
  /// JSON to be posted; empty: a GET.
  std::string body;
  /// Sent as "Authorization: Bearer ...", or as "api-key: ..."; empty: none. Never logged, never in
  /// an error.
  std::string key;
  bool key_has_own_header = false;
  /// Not over a connection that was used before: over one, libcurl may send the request twice.
  bool fresh_connection = false;
  std::chrono::milliseconds connect_timeout{5'000};
  /// Between two pieces of the answer; before the first one only `whole_timeout` counts when
  /// `waits_for_first` is set.
  std::chrono::milliseconds silence_timeout{120'000};
  bool waits_for_first = false;
  /// Of all of it.
  std::chrono::milliseconds whole_timeout{300'000};
};

/// How an exchange ended.
struct exchange_end {
  enum class how : std::uint8_t {
    /// The answer ended as HTTP says it; `status` is its status.
    complete,
    /// The listener wanted no more.
    stopped,
    /// The connection could not be made, or broke.
    network,
    /// The other side cannot be trusted (certificate), or the URL leads nowhere.
    hopeless,
    silence,
    deadline
  };
  how what = how::network;
  int status = 0;
  std::optional<std::chrono::milliseconds> retry_after;
  /// What libcurl says, for a human; names hosts, never a key.
  std::string detail;
};

/// Who is told about an exchange. All calls come from the wire's thread and return at once.
class exchange_listener {
public:
  virtual ~exchange_listener() = default;
  /// Bytes of the answer's body. False: enough, close the connection.
  virtual bool on_data(int status, std::string_view data) = 0;
  /// All bytes that have come so far were given. False: what follows is not needed, and the
  /// connection is closed unless the answer ends very soon.
  virtual bool on_pause() = 0;
  /// Nothing follows. Not called for an exchange that was cancelled.
  virtual void on_end(exchange_end end) = 0;
};

/// Connections to endpoints: one thread that waits for sockets and for time, and libcurl. It never
/// follows a redirect, never takes a proxy from the environment, speaks HTTP and HTTPS only,
/// verifies certificates, and keeps connections for the next exchange.
class wire {
public:
  using token = std::uint64_t;

  wire();
  /// Closes every connection; no listener is called any more when it returns.
  ~wire();
  wire(const wire&) = delete;
  wire& operator=(const wire&) = delete;

  /// Begins an exchange. Any thread.
  token start(exchange what, std::shared_ptr<exchange_listener> listener);
  /// Closes the connection of an exchange at once. Any thread; one that ended already is no error.
  void cancel(token which);

private:
  struct transfer;
  class engine;
  struct order {
    token which = 0;
    std::optional<exchange> what; // none: cancel
    std::shared_ptr<exchange_listener> listener;
  };

  void post(order one);
  void run();

  owned_fd wake_;
  std::mutex mutex_;
  std::vector<order> orders_; // guarded by mutex_
  token last_token_ = 0;      // guarded by mutex_
  bool stopping_ = false;     // guarded by mutex_
  std::thread thread_;
};

} // namespace berth::models
