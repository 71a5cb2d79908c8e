// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/errors.hpp"
#include "bridge/http/router.hpp"
#include "messages/operations.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <unordered_set>
#include <utility>

namespace berth {
class porter;
} // namespace berth

namespace berth::http {

/// Runs something on the server's thread after a while, at once when that is nothing; drops it once
/// the server is gone. Any thread may call it.
using poster = std::function<void(std::chrono::milliseconds, std::function<void()>)>;

/// A facade's way to the GATEWAY: asks through the porter, and brings answers to the server's
/// thread. Who waits for an answer is kept here, not by the porter, which outlives the server's
/// sockets: close() lets all of them go. Copies are one desk; the server's thread only.
class desk {
public:
  desk(porter& carrier, poster post)
    : carrier_(carrier)
    , post_(std::move(post)) {}

  /// Asks the GATEWAY; `done(expected<Reply>)` runs on the server's thread. Defined for every
  /// operation, in desk.cpp: what CAF makes of them is compiled once.
  template <class Reply, class Request>
  void ask(Request what, std::function<void(expected<Reply>)> done) const;

  /// Runs something on the server's thread, after what is running there now.
  void later(std::function<void()> work) const { post_({}, std::move(work)); }
  /// The same, not before so long.
  void after(std::chrono::milliseconds wait, std::function<void()> work) const {
    post_(wait, std::move(work));
  }

  /// Forgets who waits, and asks nothing more. Once the server's thread is gone.
  void close() const {
    waiting_->closed = true;
    auto all = std::exchange(waiting_->callbacks, {});
  }

private:
  struct waiting_room {
    std::unordered_set<std::shared_ptr<void>> callbacks;
    bool closed = false;
  };

  porter& carrier_;
  poster post_;
  std::shared_ptr<waiting_room> waiting_ = std::make_shared<waiting_room>();
};

/// One foreign contract: routes, and translation both ways. Nothing else. Lives as long as the
/// server that it was added to; everything it does happens on that server's thread.
class facade {
public:
  virtual ~facade() = default;

  /// Adds its routes. Called once, before the server starts.
  virtual void add_routes(router& routes, const desk& gateway) = 0;
};

} // namespace berth::http
