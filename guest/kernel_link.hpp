// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/event_loop.hpp"
#include "messages/guest.hpp"

#include <functional>
#include <span>

namespace berth::guest {

/// The guest's end of the socket to a live interpreter, or to a parked copy of one. Neither side
/// ever has to read more than the other may say: an interpreter that does not read is given up.
class kernel_link {
public:
  using frame_handler = std::function<void(std::span<const char>)>;
  /// Told when the other end is gone, or (true) said what is no frame.
  using end_handler = std::function<void(bool broken)>;

  kernel_link(event_loop& loop, frame_handler on_frame, end_handler on_end)
    : loop_(loop)
    , on_frame_(std::move(on_frame))
    , on_end_(std::move(on_end)) {}
  ~kernel_link() { close(); }
  kernel_link(const kernel_link&) = delete;
  kernel_link& operator=(const kernel_link&) = delete;

  /// Makes the socket; gives the other end, invalid when there is none to be had.
  owned_fd open();
  /// Sends one frame with descriptors beside it. False when it does not fit or nobody is there.
  bool send(const bytes& frame, std::span<const int> fds = {});
  /// Hears what was said until now, the end aside.
  void hear_rest();
  /// Whether nobody is at the other end any more.
  bool hung_up() const;
  void close();

private:
  bool receive();

  event_loop& loop_;
  frame_handler on_frame_;
  end_handler on_end_;
  owned_fd socket_;
  frame_cutter cutter_;
  bool in_receive_ = false;
};

} // namespace berth::guest
