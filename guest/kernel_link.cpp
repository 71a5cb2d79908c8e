// SPDX-License-Identifier: Apache-2.0
#include "guest/kernel_link.hpp"

#include "guest/send_fds.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <poll.h>

namespace berth::guest {

namespace {

/// Reads of the last words of an interpreter that is gone: no more than one cell may show.
constexpr int last_reads_max = 128;

} // namespace

owned_fd kernel_link::open() {
  close();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return {};
  socket_.reset(ends[0]);
  cutter_ = {};
  loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t) { receive(); });
  return owned_fd{ends[1]};
}

bool kernel_link::send(const bytes& frame, std::span<const int> fds) {
  return send_with_fds(socket_.get(), frame, fds);
}

/// One read and what it brought. False when nothing more is there now.
bool kernel_link::receive() {
  static std::array<char, 64 * limits::kib> buffer;
  ssize_t count = recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return false;
  if (count <= 0) {
    loop_.forget(socket_.get());
    if (!in_receive_)
      on_end_(false);
    return false;
  }
  cutter_.push({buffer.data(), static_cast<std::size_t>(count)});
  // A handler may close this link, or destroy it never: its owner waits for the process's end.
  while (auto body = cutter_.next())
    on_frame_(*body);
  if (cutter_.broken() && !in_receive_) {
    loop_.forget(socket_.get());
    on_end_(true);
    return false;
  }
  return true;
}

void kernel_link::hear_rest() {
  in_receive_ = true;
  for (int i = 0; i < last_reads_max && socket_ && receive(); ++i) {
  }
  in_receive_ = false;
}

bool kernel_link::hung_up() const {
  pollfd end{socket_.get(), 0, 0};
  return poll(&end, 1, 0) == 1 && (end.revents & POLLHUP) != 0;
}

void kernel_link::close() {
  loop_.forget(socket_.get());
  socket_.reset();
}

} // namespace berth::guest
