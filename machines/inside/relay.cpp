// SPDX-License-Identifier: Apache-2.0
#include "machines/inside/relay.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <utility>

namespace berth::machines::inside {

namespace {

/// What QEMU's own network gives its guest, and calls its host.
constexpr const char* device = "eth0";
constexpr std::uint32_t own_address = 0x0A00'020F; // 10.0.2.15
constexpr std::uint32_t own_mask = 0xFFFF'FF00;
constexpr std::uint32_t host_address = 0x0A00'0202; // 10.0.2.2
/// A device is found by the kernel beside us; under a loaded host it takes a while.
constexpr int device_tries = 3'000;
constexpr useconds_t device_pause_us = 2'000;
/// The host's proxy has bounds of its own; others wait in the kernel's queue.
constexpr std::size_t links_max = 64;

sockaddr as_generic(const sockaddr_in& from) {
  sockaddr to{};
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
  return to;
}

sockaddr address_of(std::uint32_t host, std::uint16_t port) {
  sockaddr_in made{};
  made.sin_family = AF_INET;
  made.sin_port = htons(port);
  made.sin_addr.s_addr = htonl(host);
  return as_generic(made);
}

} // namespace

std::string raise_network() {
  owned_fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  ifreq request{};
  std::strcpy(request.ifr_name, device);
  for (int left = device_tries; ::ioctl(socket.get(), SIOCGIFINDEX, &request) != 0; --left) {
    if (left == 0)
      return "there is no network device";
    ::usleep(device_pause_us);
  }
  request.ifr_addr = address_of(own_address, 0);
  bool done = ::ioctl(socket.get(), SIOCSIFADDR, &request) == 0;
  request.ifr_netmask = address_of(own_mask, 0);
  done = done && ::ioctl(socket.get(), SIOCSIFNETMASK, &request) == 0;
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  done = done && ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
  return done ? std::string{} : std::string{"the network device: "} + std::strerror(errno);
}

struct relay::link {
  owned_fd near;
  owned_fd far;
  reactor::token connecting = 0;
  std::shared_ptr<pump> bytes;
};

std::shared_ptr<void> relay::serve(const std::string&, owned_fd listener) {
  loop_.post([self = shared_from_this(), kept = std::make_shared<owned_fd>(std::move(listener))] {
    self->listener_ = std::move(*kept);
    self->accept();
  });
  // As long as this machine lives.
  return shared_from_this();
}

void relay::accept() {
  while (listener_ && links_.size() < links_max) {
    owned_fd near{::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)};
    if (!near && (errno == EINTR || errno == ECONNABORTED))
      continue;
    if (!near)
      break;
    auto one = std::make_shared<link>();
    one->near = std::move(near);
    one->far.reset(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const sockaddr host = address_of(host_address, port_);
    if (!one->far || (::connect(one->far.get(), &host, sizeof host) != 0 && errno != EINPROGRESS))
      continue;
    links_.insert(one);
    one->connecting =
        loop_.watch(one->far.get(), EPOLLOUT, [self = weak_from_this(), one](std::uint32_t) {
          if (auto alive = self.lock())
            alive->on_connected(one);
        });
  }
  const bool full = links_.size() >= links_max;
  if (full && watch_ != 0)
    loop_.forget(std::exchange(watch_, 0));
  else if (!full && watch_ == 0 && listener_)
    watch_ = loop_.watch(listener_.get(), EPOLLIN, [self = weak_from_this()](std::uint32_t) {
      if (auto alive = self.lock())
        alive->accept();
    });
}

void relay::on_connected(const std::shared_ptr<link>& one) {
  const std::shared_ptr<link> keep = one; // the handler that holds it goes now
  loop_.forget(std::exchange(keep->connecting, 0));
  int failed = 0;
  socklen_t size = sizeof failed;
  if (::getsockopt(keep->far.get(), SOL_SOCKET, SO_ERROR, &failed, &size) != 0 || failed != 0)
    return end(keep);
  int yes = 1;
  for (const owned_fd* side : {&keep->near, &keep->far})
    ::setsockopt(side->get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  keep->bytes =
      std::make_shared<pump>(loop_, std::move(keep->near), std::move(keep->far), pump::settings{});
  keep->bytes->open({}, {}, [self = weak_from_this(), of = std::weak_ptr{keep}] {
    auto alive = self.lock();
    auto ended = of.lock();
    if (alive && ended)
      alive->end(ended);
  });
}

void relay::end(const std::shared_ptr<link>& one) {
  loop_.forget(std::exchange(one->connecting, 0));
  if (one->bytes)
    one->bytes->close();
  links_.erase(one);
  accept();
}

void relay::renew() {
  const std::set<std::shared_ptr<link>> all = links_;
  for (const auto& one : all)
    end(one);
}

} // namespace berth::machines::inside
