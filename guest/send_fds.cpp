// SPDX-License-Identifier: Apache-2.0
#include "guest/send_fds.hpp"

#include <sys/socket.h>

#include <array>
#include <cstring>

namespace berth::guest {

namespace {

constexpr std::size_t fds_max = 4;

} // namespace

bool send_with_fds(int socket, std::span<const char> data, std::span<const int> fds) {
  iovec part{const_cast<char*>(data.data()), data.size()};
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
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
         == static_cast<ssize_t>(data.size());
}

} // namespace berth::guest
