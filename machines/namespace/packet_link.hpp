// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/protocol.hpp"
#include "messages/fd.hpp"

#include <cstddef>
#include <deque>
#include <initializer_list>
#include <span>
#include <vector>

namespace berth::machines::spawner {

/// Packets with descriptors over a SEQPACKET socket that never blocks its owner: what does not fit
/// the socket waits here, its descriptors duplicated. Single-threaded.
///
/// The queue's bound: the server's end holds at most a create, a destroy, a limit and one warm per
/// language for each living machine; the spawner's end at most the answers to them.
class packet_link {
public:
  packet_link() = default;
  explicit packet_link(owned_fd socket)
    : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  explicit operator bool() const { return static_cast<bool>(socket_); }
  void close() {
    socket_.reset();
    waiting_.clear();
  }

  /// Sends or queues. False when the peer is gone.
  bool send(std::span<const std::byte> data, std::span<const int> fds = {});
  template <class Pod>
  bool send_pod(const Pod& pod, std::span<const int> fds = {}) {
    return send(std::as_bytes(std::span{&pod, 1}), fds);
  }
  /// Whether to wait for EPOLLOUT.
  bool has_waiting() const { return !waiting_.empty(); }
  /// Sends what waits as far as it fits. False when the peer is gone.
  bool flush();

  enum class received { packet, nothing, end };
  /// Takes one packet, never waiting. `data` is filled from its start and `size` set; a packet that
  /// is longer than `data`, or that has more than packet_fds_max descriptors, is an end.
  received receive(std::span<std::byte> data, std::size_t& size, std::vector<owned_fd>& fds);

private:
  struct waiting {
    std::vector<std::byte> data;
    std::vector<owned_fd> fds;
  };
  enum class sent { yes, later, gone };
  sent send_now(std::span<const std::byte> data, std::span<const int> fds);

  owned_fd socket_;
  std::deque<waiting> waiting_;
};

} // namespace berth::machines::spawner
