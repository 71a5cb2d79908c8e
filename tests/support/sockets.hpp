// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <functional>
#include <memory>
#include <netinet/in.h>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

/// Plain TCP on the host's loopback, for tests.
namespace berth::test {

/// How long a socket waits before a test is said to hang.
inline constexpr timeval socket_limit{.tv_sec = 60, .tv_usec = 0};

/// A listening socket of 127.0.0.1 at a free port.
inline owned_fd listen_on(std::uint16_t& port, int flags = SOCK_CLOEXEC) {
  owned_fd made{::socket(AF_INET, SOCK_STREAM | flags, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(made.get(), generic, size) != 0 || ::listen(made.get(), 64) != 0
      || ::getsockname(made.get(), generic, &size) != 0)
    return {};
  port = ntohs(address.sin_port);
  return made;
}

inline owned_fd connect_to(std::uint16_t port) {
  owned_fd made{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  ::setsockopt(made.get(), SOL_SOCKET, SO_RCVTIMEO, &socket_limit, sizeof socket_limit);
  ::setsockopt(made.get(), SOL_SOCKET, SO_SNDTIMEO, &socket_limit, sizeof socket_limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    made.reset();
  return made;
}

inline bool say(const owned_fd& to, std::string_view text) {
  while (!text.empty()) {
    ssize_t count = ::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (count <= 0)
      return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

/// Hears until so much was said, the text came, or the end.
inline std::string hear(const owned_fd& from, std::string_view until = {},
                        std::size_t most = std::string::npos) {
  std::string heard;
  char room[16 * 1024];
  while (heard.size() < most) {
    ssize_t count = ::recv(from.get(), room, std::min(sizeof room, most - heard.size()), 0);
    if (count <= 0)
      break;
    heard.append(room, static_cast<std::size_t>(count));
    if (!until.empty() && heard.find(until) != std::string::npos)
      break;
  }
  return heard;
}

/// A server on the host's loopback: each connection is given to the function, on a thread.
class tcp_server {
public:
  using talk = std::function<void(const owned_fd& client)>;

  explicit tcp_server(talk with)
    : with_(std::move(with))
    , listener_(listen_on(port))
    , accepts_([this] { accept(); }) {}
  ~tcp_server() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    accepts_.join();
    for (auto& one : talks_)
      one.join();
  }
  tcp_server(const tcp_server&) = delete;
  tcp_server& operator=(const tcp_server&) = delete;

  /// One of HTTP that answers with the head that it was sent, as its body.
  static void echo_head(const owned_fd& client) {
    std::string head = hear(client, "\r\n\r\n");
    (void)say(client, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(head.size())
                          + "\r\nConnection: close\r\n\r\n" + head);
  }
  /// One that says all that it hears.
  static void echo(const owned_fd& client) {
    char room[16 * 1024];
    for (ssize_t count = 0; (count = ::recv(client.get(), room, sizeof room, 0)) > 0;)
      if (!say(client, {room, static_cast<std::size_t>(count)}))
        break;
  }

  std::uint16_t port = 0;
  std::atomic<int> connections{0};

private:
  void accept() {
    while (!stopping_) {
      owned_fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
      if (!client)
        continue;
      ::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &socket_limit, sizeof socket_limit);
      ++connections;
      talks_.emplace_back(
          [this, one = std::make_shared<owned_fd>(std::move(client))] { with_(*one); });
    }
  }

  const talk with_;
  owned_fd listener_;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> talks_;
  std::thread accepts_;
};

} // namespace berth::test
