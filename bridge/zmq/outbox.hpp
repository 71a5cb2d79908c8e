// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "bridge/zmq/envelope.hpp"
#include "config/limits.hpp"
#include "messages/fd.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace berth {

/// One event on its way to the subscribers.
struct zmq_event {
  std::string topic;
  bytes body;
};

/// What actors hand to the bridge's thread: replies, which are never dropped, and events, of which
/// the oldest go when too many wait. Made before the actors that publish; any thread may put, the
/// bridge's thread takes. Requests are bounded where they come in, and with them the replies.
class zmq_outbox final : public event_sink {
public:
  explicit zmq_outbox(std::size_t events_max = limits::outbox_messages_max,
                      std::size_t event_bytes_max = 64 * limits::mib);

  bool wanted() const override { return wanted_.load(std::memory_order_relaxed); }
  void publish(std::string topic, bytes body) override;

  /// Hands a reply over. After close() it is forgotten: nobody is there to send it.
  void put(zmq_reply reply);

  /// Readable while something waits.
  int fd() const { return wake_.get(); }
  /// Takes all replies and up to `events_max` events; both vectors are emptied first. True when
  /// events are left.
  bool take(std::vector<zmq_reply>& replies, std::vector<zmq_event>& events,
            std::size_t events_max);
  /// Makes fd() readable though nothing waits.
  void wake();
  /// Whether anybody has subscribed.
  void want(bool anybody) { wanted_.store(anybody, std::memory_order_relaxed); }
  /// Forgets what waits and whatever comes after.
  void close();

  /// Events dropped because the bridge could not keep up.
  std::uint64_t events_dropped() const { return dropped_.load(std::memory_order_relaxed); }

private:
  /// Lets go of the lock.
  void signal(std::unique_lock<std::mutex> guard);

  const std::size_t events_max_;
  const std::size_t event_bytes_max_;
  owned_fd wake_;
  std::atomic<bool> wanted_ = false;
  std::atomic<std::uint64_t> dropped_ = 0;
  std::mutex mutex_;
  std::vector<zmq_reply> replies_;
  std::deque<zmq_event> events_;
  std::size_t event_bytes_ = 0;
  bool signalled_ = false;
  bool closed_ = false;
};

} // namespace berth
