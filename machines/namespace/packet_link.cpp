// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/packet_link.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace berth::machines::spawner {

namespace {

union control_buffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int) * packet_fds_max)];
};

} // namespace

packet_link::sent packet_link::send_now(std::span<const std::byte> data, std::span<const int> fds) {
  iovec part{const_cast<std::byte*>(data.data()), data.size()};
  control_buffer control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    std::memset(control.bytes, 0, sizeof control.bytes);
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(head), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
      return sent::yes;
    if (errno == EINTR)
      continue;
    // ETOOMANYREFS: too many descriptors in flight for this user; they land as the peer reads.
    bool full =
        errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == ETOOMANYREFS;
    return full ? sent::later : sent::gone;
  }
}

bool packet_link::send(std::span<const std::byte> data, std::span<const int> fds) {
  if (!socket_ || fds.size() > packet_fds_max)
    return false;
  if (waiting_.empty()) {
    sent result = send_now(data, fds);
    if (result != sent::later)
      return result == sent::yes;
  }
  waiting packet{{data.begin(), data.end()}, {}};
  for (int fd : fds) {
    packet.fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!packet.fds.back())
      return false;
  }
  waiting_.push_back(std::move(packet));
  return true;
}

bool packet_link::flush() {
  while (!waiting_.empty()) {
    std::vector<int> fds;
    for (const auto& fd : waiting_.front().fds)
      fds.push_back(fd.get());
    sent result = send_now(waiting_.front().data, fds);
    if (result == sent::later)
      return true;
    if (result == sent::gone)
      return false;
    waiting_.pop_front();
  }
  return true;
}

packet_link::received packet_link::receive(std::span<std::byte> data, std::size_t& size,
                                           std::vector<owned_fd>& fds) {
  fds.clear();
  iovec part{data.data(), data.size()};
  control_buffer control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t count = 0;
  do
    count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (count < 0 && errno == EINTR);
  if (count < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK ? received::nothing : received::end;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
      continue;
    std::size_t bytes = head->cmsg_len - CMSG_LEN(0);
    for (std::size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(head) + at, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  size = static_cast<std::size_t>(count);
  bool cut = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  return count == 0 || cut ? received::end : received::packet;
}

} // namespace berth::machines::spawner
