// SPDX-License-Identifier: Apache-2.0
#include "guest/channel.hpp"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace berth::guest {

channel::channel(event_loop& loop, int fd, frame_handler on_frame, end_handler on_end)
  : loop_(loop)
  , fd_(fd)
  , on_frame_(std::move(on_frame))
  , on_end_(std::move(on_end)) {
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  watch(false);
}

void channel::watch(bool for_writing) {
  watching_writes_ = for_writing;
  loop_.watch(fd_, for_writing ? EPOLLIN | EPOLLOUT : EPOLLIN,
              [this](std::uint32_t events) { on_event(events); });
}

void channel::on_event(std::uint32_t events) {
  if (events & EPOLLOUT)
    flush();
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
    receive();
}

void channel::receive() {
  static std::array<char, 64 * limits::kib> buffer;
  ssize_t count = ::read(fd_, buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (count <= 0)
    return on_end_(false);
  cutter_.push({buffer.data(), static_cast<std::size_t>(count)});
  while (auto body = cutter_.next())
    on_frame_(*body);
  if (cutter_.broken())
    on_end_(true);
}

void channel::flush() {
  while (sent_ < queue_.size()) {
    ssize_t count = write(fd_, queue_.data() + sent_, queue_.size() - sent_);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0 && errno != EAGAIN)
      return on_end_(false);
    if (count < 0)
      break;
    sent_ += static_cast<std::size_t>(count);
  }
  if (sent_ == queue_.size() || sent_ >= queue_bytes_full) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
  bool waiting = !queue_.empty();
  if (waiting != watching_writes_)
    watch(waiting);
}

} // namespace berth::guest
