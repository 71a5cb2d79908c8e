// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/inside/boot.hpp"
#include "machines/reactor.hpp"
#include "messages/guest.hpp"

#include <deque>
#include <functional>
#include <span>

namespace berth::machines::inside {

/// The byte stream between the host and this virtual machine: a virtio-serial port named `berth`,
/// or a connection to a vsock port. The host's end may go and come: what is half said then is
/// forgotten. All on the reactor's thread.
class port {
public:
  using frame_handler = std::function<void(std::span<const char> body)>;
  /// More than so much that the host has not taken: whoever can wait must wait.
  static constexpr std::size_t queue_bytes_full = std::size_t{1} << 20;

  port(reactor& loop, frame_handler on_frame, std::function<void(bool full)> on_full)
    : loop_(loop)
    , on_frame_(std::move(on_frame))
    , on_full_(std::move(on_full)) {}

  /// Finds or makes the channel. Returns why not, or an empty text.
  std::string open(const boot_options& options);
  void send(bytes frame);

private:
  std::string open_serial();
  std::string open_vsock(std::uint32_t number);
  void accept();
  void attach(owned_fd stream);
  void detach();
  void on_event(std::uint32_t events);
  void receive();
  void flush();
  void rewatch();
  void tell_full();

  reactor& loop_;
  frame_handler on_frame_;
  std::function<void(bool)> on_full_;
  owned_fd listener_;
  reactor::token listening_ = 0;
  owned_fd stream_;
  reactor::token watch_ = 0;
  guest::frame_cutter cutter_;
  std::deque<bytes> queue_;
  std::size_t sent_ = 0;
  std::size_t queued_ = 0;
  bool full_ = false;
  bool want_out_ = false;
};

} // namespace berth::machines::inside
