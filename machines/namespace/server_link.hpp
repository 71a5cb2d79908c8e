// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/packet_link.hpp"
#include "machines/reactor.hpp"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace berth::machines {

/// The server's end of the socket to its spawner or launcher. On the reactor's thread, but for
/// closed() and wait_closed().
class server_link : public std::enable_shared_from_this<server_link> {
public:
  struct handlers {
    /// What the process said. False when it is no report, which ends the link.
    std::function<bool(std::span<std::byte> packet, std::vector<owned_fd>& fds)> on_packet;
    /// The process has ended. If it was killed the kernel kills what it kept (PR_SET_PDEATHSIG),
    /// and the cgroups are swept by the next start. What the handlers hold is let go then.
    std::function<void()> on_end;
  };

  server_link(owned_fd socket, reactor& loop)
    : loop_(loop)
    , link_(std::move(socket)) {}

  void open(handlers told);
  /// False when the process has ended.
  bool ask(std::span<const std::byte> packet, std::span<const int> fds = {});
  /// Says no more to the process, which ends everything, tells so, and ends itself.
  void shut_down();
  void close();

  bool closed() const;
  /// Waits until the process's end was handled.
  bool wait_closed(std::chrono::milliseconds limit);

private:
  void on_events(std::uint32_t events);
  void rewatch();

  reactor& loop_;
  spawner::packet_link link_;
  handlers told_;
  reactor::token watch_ = 0;
  bool want_out_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false; // guarded by mutex_
};

} // namespace berth::machines
