// SPDX-License-Identifier: Apache-2.0
#include "guest/kernel_link.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace berth::guest {

namespace {

constexpr std::size_t fds_max = 4;
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
  iovec part{const_cast<char*>(frame.data()), frame.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(fds_max * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(head), fds.data(), fds.size_bytes());
  }
  return socket_
         && sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT)
                == static_cast<ssize_t>(frame.size());
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

void kernel_link::close() {
  loop_.forget(socket_.get());
  socket_.reset();
}

} // namespace berth::guest
