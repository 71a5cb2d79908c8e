// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/reactor.hpp"
#include "messages/fd.hpp"
#include "messages/guest.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace berth::machines {

/// The server's end of the byte stream to a guest, whatever wall the guest is behind. The guest is
/// hostile: frames are bounded, a stream that is no frames, does not begin with hello or says it
/// twice is over, and a guest that does not read fills a bounded queue only.
///
/// Reading and the owner's handlers belong to the reactor's thread; sending is any thread's.
class guest_channel : public std::enable_shared_from_this<guest_channel> {
public:
  struct handlers {
    /// One frame. The first is hello, of our version of the protocol.
    std::function<void(guest::from_guest)> on_frame;
    /// The stream is over, and why. Said once; nothing is read any more.
    std::function<void(std::string why)> on_end;
  };

  /// `queue_bytes` may wait for the guest to read; one whole frame always fits.
  guest_channel(reactor& loop, owned_fd socket, std::size_t queue_bytes);

  // On the reactor's thread.

  /// Begins to read, as soon as there is a socket.
  void open(handlers told);
  /// Reads what came already, a bounded number of times: frames that were said before a death are
  /// heard before it.
  void drain();
  /// Goes on with another socket, to a guest that said hello in an earlier life and has nothing
  /// under way in either direction. What waits to be sent waits on.
  void replace(owned_fd socket);
  /// Whether the guest said hello.
  bool greeted() const { return greeted_; }
  /// Whether anything was ever said, or waits to be said, by send().
  bool spoken_to() const { return spoken_to_; }
  /// Whether no frame has come in part.
  bool at_frame_end() const { return unframed_bytes_ == 0; }
  /// Reads and sends no more.
  void close();

  // Any thread.

  /// Says something to the guest, in order. What exceeds the queue ends the channel.
  void send(const guest::to_guest& message);
  /// Says it before everything that waits behind a pause.
  void send_first(const guest::to_guest& message);
  /// What is sent from now on waits until resume() with the same number, not 0.
  void pause(std::uint32_t ticket);
  void resume(std::uint32_t ticket);
  /// Stops and goes on reading.
  void hold(bool held);

private:
  /// Bytes for the guest, or a pause.
  struct outgoing {
    bytes data;
    std::size_t sent = 0;
    std::uint32_t ticket = 0; ///< not 0: a pause
  };

  void enqueue(bytes data, bool first);
  bool flush_locked();
  void flush();
  void rewatch();
  void watch();
  void on_events(std::uint32_t events);
  void read_some();
  void take(std::span<const char> body);
  void end(std::string why);
  void overflow();

  reactor& loop_;
  const std::size_t queue_bytes_max_;

  // The reactor's thread only.
  handlers told_;
  guest::frame_cutter cutter_;
  std::size_t unframed_bytes_ = 0; // of a frame that came in part
  reactor::token watch_ = 0;
  bool greeted_ = false;
  bool held_ = false;
  bool overflowed_ = false;

  std::atomic<bool> spoken_to_ = false;
  std::mutex mutex_;
  /// Guarded by mutex_, but closed by the reactor's thread only, which may read it without.
  owned_fd socket_;
  std::deque<outgoing> queue_;   // guarded by mutex_
  std::size_t queued_bytes_ = 0; // guarded by mutex_
  bool want_out_ = false;        // guarded by mutex_
  bool closed_ = false;          // guarded by mutex_
};

} // namespace berth::machines
