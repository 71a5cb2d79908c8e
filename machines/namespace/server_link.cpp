// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/server_link.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <utility>

namespace berth::machines {

using spawner::packet_link;

namespace {

/// More than any report has.
constexpr std::size_t report_bytes_max = 1024;
/// Reports that are taken before others are heard.
constexpr int rounds = 64;

} // namespace

void server_link::open(handlers told) {
  told_ = std::move(told);
  watch_ = loop_.watch(link_.fd(), EPOLLIN, [self = shared_from_this()](std::uint32_t events) {
    self->on_events(events);
  });
  if (watch_ == 0)
    close();
}

bool server_link::ask(std::span<const std::byte> packet, std::span<const int> fds) {
  if (!link_ || !link_.send(packet, fds))
    return false;
  rewatch();
  return true;
}

void server_link::rewatch() {
  if (link_.has_waiting() == want_out_)
    return;
  want_out_ = link_.has_waiting();
  loop_.rewatch(watch_, EPOLLIN | (want_out_ ? EPOLLOUT : 0U));
}

void server_link::on_events(std::uint32_t events) {
  auto self = shared_from_this();
  if ((events & EPOLLOUT) != 0) {
    if (!link_.flush())
      return close();
    rewatch();
  }
  for (int round = 0; round < rounds && link_; ++round) {
    alignas(std::max_align_t) std::array<std::byte, report_bytes_max> packet;
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    auto got = link_.receive(packet, size, fds);
    if (got == packet_link::received::nothing)
      return;
    if (got == packet_link::received::end || !told_.on_packet(std::span{packet}.first(size), fds))
      return close();
  }
}

void server_link::shut_down() {
  if (link_)
    ::shutdown(link_.fd(), SHUT_WR);
}

void server_link::close() {
  if (!link_)
    return;
  auto self = shared_from_this();
  loop_.forget(watch_);
  link_.close();
  auto told = std::exchange(told_, {});
  if (told.on_end)
    told.on_end();
  {
    std::lock_guard guard{mutex_};
    closed_ = true;
  }
  changed_.notify_all();
}

bool server_link::closed() const {
  std::lock_guard guard{mutex_};
  return closed_;
}

bool server_link::wait_closed(std::chrono::milliseconds limit) {
  std::unique_lock lock{mutex_};
  return changed_.wait_for(lock, limit, [this] { return closed_; });
}

} // namespace berth::machines
