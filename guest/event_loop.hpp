// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>

namespace berth::guest {

/// The guest's one thread: waits on descriptors, level-triggered, and calls who watches them.
class event_loop {
public:
  /// Told the epoll events of its descriptor.
  using handler = std::function<void(std::uint32_t)>;

  event_loop();

  /// Starts to watch; a descriptor that is watched already gets the new events and handler.
  /// A descriptor epoll cannot watch (a plain file) is reported by false.
  bool watch(int fd, std::uint32_t events, handler call);
  /// Ends watching. Harmless when the descriptor is not watched. Call before closing it.
  void forget(int fd);
  bool watches(int fd) const { return watched_.contains(fd); }

  /// Waits for events, at most so long (-1: for ever), and handles them. Returns how many came.
  int turn(int timeout_ms);

private:
  struct entry {
    std::uint32_t generation;
    std::shared_ptr<handler> call;
  };

  owned_fd epoll_;
  std::uint32_t generation_ = 0;
  std::unordered_map<int, entry> watched_;
};

} // namespace berth::guest
