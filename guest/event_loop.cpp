// SPDX-License-Identifier: Apache-2.0
#include "guest/event_loop.hpp"

#include <sys/epoll.h>

#include <array>

namespace berth::guest {

event_loop::event_loop()
  : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

bool event_loop::watch(int fd, std::uint32_t events, handler call) {
  auto found = watched_.find(fd);
  bool known = found != watched_.end();
  // The generation tells a late event of a closed descriptor from one of its successor's.
  std::uint32_t generation = known ? found->second.generation : ++generation_;
  epoll_event event{};
  event.events = events;
  event.data.u64 = std::uint64_t{generation} << 32 | static_cast<std::uint32_t>(fd);
  if (epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
    return false;
  watched_[fd] = entry{generation, std::make_shared<handler>(std::move(call))};
  return true;
}

void event_loop::forget(int fd) {
  if (watched_.erase(fd) != 0)
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

int event_loop::turn(int timeout_ms) {
  std::array<epoll_event, 64> events;
  int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    auto found = watched_.find(static_cast<int>(event.data.u64 & 0xFFFFFFFF));
    if (found == watched_.end() || found->second.generation != event.data.u64 >> 32)
      continue;
    // Held: the handler may forget its own descriptor.
    std::shared_ptr<handler> call = found->second.call;
    (*call)(event.events);
  }
  return count;
}

} // namespace berth::guest
