// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/outbox.hpp"

#include <sys/eventfd.h>
#include <system_error>

#include <cerrno>

namespace berth {

namespace {

int make_eventfd() {
  int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0)
    throw std::system_error(errno, std::generic_category(), "eventfd for the ZeroMQ outbox");
  return fd;
}

std::size_t weight_of(const zmq_event& event) {
  return event.topic.size() + event.body.size();
}

} // namespace

zmq_outbox::zmq_outbox(std::size_t events_max, std::size_t event_bytes_max)
  : events_max_(events_max)
  , event_bytes_max_(event_bytes_max)
  , wake_(make_eventfd()) {}

void zmq_outbox::publish(std::string topic, bytes body) {
  if (!wanted())
    return;
  zmq_event event{std::move(topic), std::move(body)};
  std::unique_lock guard{mutex_};
  if (closed_)
    return;
  event_bytes_ += weight_of(event);
  events_.push_back(std::move(event));
  while (events_.size() > events_max_ || (event_bytes_ > event_bytes_max_ && events_.size() > 1)) {
    event_bytes_ -= weight_of(events_.front());
    events_.pop_front();
    dropped_.fetch_add(1, std::memory_order_relaxed);
  }
  signal(std::move(guard));
}

void zmq_outbox::put(zmq_reply reply) {
  std::unique_lock guard{mutex_};
  if (closed_)
    return;
  replies_.push_back(std::move(reply));
  signal(std::move(guard));
}

bool zmq_outbox::take(std::vector<zmq_reply>& replies, std::vector<zmq_event>& events,
                      std::size_t events_max) {
  replies.clear();
  events.clear();
  std::lock_guard guard{mutex_};
  replies.swap(replies_);
  while (!events_.empty() && events.size() < events_max) {
    event_bytes_ -= weight_of(events_.front());
    events.push_back(std::move(events_.front()));
    events_.pop_front();
  }
  bool more = !events_.empty();
  if (!more) { // a late signal() may write after its message was taken
    std::uint64_t count = 0;
    [[maybe_unused]] auto got = ::read(wake_.get(), &count, sizeof count);
    signalled_ = false;
  }
  return more;
}

void zmq_outbox::wake() {
  signal(std::unique_lock{mutex_});
}

void zmq_outbox::close() {
  std::lock_guard guard{mutex_};
  closed_ = true;
  wanted_ = false;
  replies_.clear();
  events_.clear();
  event_bytes_ = 0;
}

void zmq_outbox::signal(std::unique_lock<std::mutex> guard) {
  if (signalled_)
    return;
  signalled_ = true;
  // Before the bridge is woken, which takes it at once.
  guard.unlock();
  // Cannot fail: the counter is small and the descriptor is ours.
  const std::uint64_t one = 1;
  [[maybe_unused]] auto put = ::write(wake_.get(), &one, sizeof one);
}

} // namespace berth
