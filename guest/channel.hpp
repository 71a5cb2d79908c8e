// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/event_loop.hpp"
#include "messages/guest.hpp"

#include <functional>
#include <span>

namespace berth::guest {

/// The byte stream to the server: frames in, frames out. What is said in one turn of the loop
/// leaves in one write.
class channel {
public:
  /// Beyond so much unsent data the channel is full, and who can wait must wait.
  static constexpr std::size_t queue_bytes_full = 1 << 20;

  using frame_handler = std::function<void(std::span<const char>)>;
  /// Told when the stream ended: by its peer, or (true) because what came is no frame.
  using end_handler = std::function<void(bool broken)>;

  channel(event_loop& loop, int fd, frame_handler on_frame, end_handler on_end);

  template <described T>
  void send(const T& message) {
    enqueue(encode_frame(message));
  }

  /// Whether output should be held back. Answers may still be sent.
  bool full() const { return queue_.size() - sent_ >= queue_bytes_full; }
  /// Writes what the peer takes now.
  void flush();

private:
  void enqueue(const bytes& frame) { queue_.insert(queue_.end(), frame.begin(), frame.end()); }
  void on_event(std::uint32_t events);
  void receive();
  void watch(bool for_writing);

  event_loop& loop_;
  int fd_;
  frame_handler on_frame_;
  end_handler on_end_;
  frame_cutter cutter_;
  bytes queue_;
  std::size_t sent_ = 0;
  bool watching_writes_ = false;
};

} // namespace berth::guest
