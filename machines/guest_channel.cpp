// SPDX-License-Identifier: Apache-2.0
#include "machines/guest_channel.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace berth::machines {

namespace {

/// Read from one machine at a time, so that a chatty one does not starve the others.
constexpr std::size_t read_bytes = 256 * limits::kib;
/// The length before a frame's body.
constexpr std::size_t frame_head_bytes = 4;
/// How often that much is read when a machine has ended.
constexpr int drain_rounds = 16;

} // namespace

guest_channel::guest_channel(reactor& loop, owned_fd socket, std::size_t queue_bytes)
  : loop_(loop)
  , queue_bytes_max_(queue_bytes)
  , socket_(std::move(socket)) {}

void guest_channel::open(handlers told) {
  told_ = std::move(told);
  watch();
}

void guest_channel::watch() {
  {
    std::lock_guard guard{mutex_};
    if (closed_ || !socket_ || watch_ != 0)
      return;
    watch_ =
        loop_.watch(socket_.get(), (held_ ? 0U : EPOLLIN) | (want_out_ ? EPOLLOUT : 0U),
                    [self = shared_from_this()](std::uint32_t events) { self->on_events(events); });
  }
  if (overflowed_)
    overflow();
}

void guest_channel::drain() {
  for (int round = 0; round < drain_rounds && watch_ != 0; ++round)
    read_some();
}

void guest_channel::replace(owned_fd socket) {
  loop_.forget(watch_);
  watch_ = 0;
  cutter_ = {};
  unframed_bytes_ = 0;
  greeted_ = true;
  {
    std::lock_guard guard{mutex_};
    socket_ = std::move(socket);
    want_out_ = false;
    // What was sent in part is said anew.
    if (!queue_.empty())
      queue_.front().sent = 0;
  }
  watch();
  flush();
}

void guest_channel::close() {
  loop_.forget(watch_);
  watch_ = 0;
  std::lock_guard guard{mutex_};
  closed_ = true;
  socket_.reset();
  queue_.clear();
  queued_bytes_ = 0;
}

void guest_channel::on_events(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0)
    flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
    read_some();
}

void guest_channel::read_some() {
  static thread_local std::array<char, read_bytes> buffer;
  ssize_t count = 0;
  do
    count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  while (count < 0 && errno == EINTR);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
    return;
  if (count <= 0)
    return end("the guest closed its channel");
  cutter_.push({buffer.data(), static_cast<std::size_t>(count)});
  unframed_bytes_ += static_cast<std::size_t>(count);
  while (auto body = cutter_.next()) {
    unframed_bytes_ -= body->size() + frame_head_bytes;
    take(*body);
    if (watch_ == 0)
      return;
  }
  if (cutter_.broken())
    end("the guest announced a frame of impossible length");
}

void guest_channel::take(std::span<const char> body) {
  auto frame = guest::decode_frame<guest::from_guest>(body);
  if (!frame)
    return end("the guest sent what is no frame: " + frame.why().text());
  const auto* hello = std::get_if<guest::hello>(&*frame);
  if (greeted_ == (hello != nullptr))
    return end(greeted_ ? "the guest said hello twice" : "the guest did not begin with hello");
  if (hello != nullptr && hello->version != guest::protocol_version)
    return end("the guest speaks version " + std::to_string(hello->version)
               + " of the protocol, not " + std::to_string(guest::protocol_version));
  greeted_ = true;
  told_.on_frame(std::move(*frame));
}

void guest_channel::end(std::string why) {
  auto self = shared_from_this();
  close();
  told_.on_end(std::move(why));
}

void guest_channel::send(const guest::to_guest& message) {
  spoken_to_ = true;
  enqueue(std::visit([](const auto& one) { return guest::encode_frame(one); }, message), false);
}

void guest_channel::send_first(const guest::to_guest& message) {
  enqueue(std::visit([](const auto& one) { return guest::encode_frame(one); }, message), true);
}

/// Sends at once when nothing waits: a hand-over to the reactor costs more than the call itself.
void guest_channel::enqueue(bytes data, bool first) {
  std::unique_lock lock{mutex_};
  if (closed_)
    return;
  std::size_t size = data.size();
  bool fits = queue_.empty() || queued_bytes_ + size <= queue_bytes_max_;
  if (fits) {
    auto place = first ? std::find_if(queue_.begin(), queue_.end(),
                                      [](const outgoing& one) { return one.ticket != 0; })
                       : queue_.end();
    bool next = place == queue_.begin();
    queue_.insert(place, {.data = std::move(data)});
    queued_bytes_ += size;
    bool was_waiting = want_out_;
    if (!next || (flush_locked() && want_out_ == was_waiting))
      return;
  }
  lock.unlock();
  loop_.post([self = shared_from_this(), fits] {
    if (fits)
      self->flush();
    else
      self->overflow();
  });
}

/// A channel that is not open, or has no socket yet, ends when it is and has one.
void guest_channel::overflow() {
  overflowed_ = true;
  if (watch_ != 0)
    end("more was sent to the guest than it takes");
}

/// Writes until the socket is full or a pause comes. False when the guest is gone, which the
/// reading side will tell.
bool guest_channel::flush_locked() {
  want_out_ = false;
  while (!closed_ && socket_ && !queue_.empty() && queue_.front().ticket == 0) {
    outgoing& first = queue_.front();
    ssize_t count = ::send(socket_.get(), first.data.data() + first.sent,
                           first.data.size() - first.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0) {
      want_out_ = errno == EAGAIN || errno == EWOULDBLOCK;
      return want_out_;
    }
    first.sent += static_cast<std::size_t>(count);
    if (first.sent < first.data.size())
      continue;
    queued_bytes_ -= first.data.size();
    queue_.pop_front();
  }
  return true;
}

void guest_channel::flush() {
  {
    std::lock_guard guard{mutex_};
    flush_locked();
  }
  rewatch();
}

void guest_channel::rewatch() {
  std::lock_guard guard{mutex_};
  if (watch_ != 0)
    loop_.rewatch(watch_, (held_ ? 0U : EPOLLIN) | (want_out_ ? EPOLLOUT : 0U));
}

void guest_channel::pause(std::uint32_t ticket) {
  std::lock_guard guard{mutex_};
  if (!closed_)
    queue_.push_back({.data = {}, .sent = 0, .ticket = ticket});
}

void guest_channel::resume(std::uint32_t ticket) {
  {
    std::lock_guard guard{mutex_};
    auto paused = std::find_if(queue_.begin(), queue_.end(),
                               [&](const outgoing& one) { return one.ticket == ticket; });
    if (ticket == 0 || paused == queue_.end())
      return;
    queue_.erase(paused);
  }
  loop_.post([self = shared_from_this()] { self->flush(); });
}

void guest_channel::hold(bool held) {
  loop_.post([self = shared_from_this(), held] {
    self->held_ = held;
    self->rewatch();
  });
}

} // namespace berth::machines
