// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/vsock.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace berth::machines::firecracker {

namespace {

/// "OK " and a port, its end of line included.
constexpr std::size_t answer_bytes_max = 32;

} // namespace

void vsock_call::begin(std::uint32_t port, std::chrono::milliseconds within, done_handler done) {
  done_ = std::move(done);
  auto self = shared_from_this();
  const std::string line = "CONNECT " + std::to_string(port) + "\n";
  // It is short, and the first: it fits, or nobody is there.
  if (::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT)
      != static_cast<ssize_t>(line.size()))
    return end("the vsock does not listen");
  watch_ = loop_.watch(socket_.get(), EPOLLIN, [self](std::uint32_t) { self->on_events(); });
  timer_ = loop_.after(within, [self] {
    self->timer_ = 0;
    self->end("the guest does not answer on its vsock");
  });
}

/// A byte at a time: what follows the line is the guest's.
void vsock_call::on_events() {
  auto self = shared_from_this();
  while (socket_) {
    char byte = 0;
    ssize_t count = ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
      return;
    if (count <= 0)
      return end("nobody in the guest listens on its vsock");
    heard_ += byte;
    if (byte == '\n')
      return end(heard_.starts_with("OK ") ? "" : "the vsock answered what is none");
    if (heard_.size() >= answer_bytes_max)
      return end("the vsock answered what is none");
  }
}

void vsock_call::close() {
  done_ = nullptr;
  if (!socket_)
    return;
  loop_.forget(watch_);
  loop_.cancel(timer_);
  socket_.reset();
}

void vsock_call::end(const std::string& error) {
  auto done = std::exchange(done_, nullptr);
  loop_.forget(watch_);
  loop_.cancel(timer_);
  owned_fd stream = std::move(socket_);
  if (done)
    done(error.empty() ? std::move(stream) : owned_fd{}, error);
}

} // namespace berth::machines::firecracker
