// SPDX-License-Identifier: Apache-2.0
#include "machines/pump.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace berth::machines {

pump::pump(reactor& loop, owned_fd near, owned_fd far, const settings& how)
  : loop_(loop)
  , how_(how)
  , ends_{std::move(near), std::move(far)} {
  flows_[0].left = how.near_bytes;
  // A server may take half a connection for a client that has gone.
  flows_[0].tells_end = !how.near_bytes;
}

void pump::open(std::string_view for_far, std::string_view of_near, std::function<void()> on_end) {
  on_end_ = std::move(on_end);
  flows_[0].data.assign(for_far.begin(), for_far.end());
  take(flows_[0], of_near);
  last_moved_ = reactor::clock::now();
  if (drain(0))
    rewatch();
  else
    end();
}

void pump::close() {
  on_end_ = nullptr;
  for (std::size_t side : {0U, 1U}) {
    loop_.forget(std::exchange(watches_[side], 0));
    ends_[side].reset();
  }
}

/// Adds bytes of the source, as far as they belong.
void pump::take(flow& to, std::string_view bytes) {
  if (to.left) {
    bytes = bytes.substr(0, std::min<std::uint64_t>(*to.left, bytes.size()));
    *to.left -= bytes.size();
  }
  to.data.insert(to.data.end(), bytes.begin(), bytes.end());
}

/// Reads once from a side. False: the connection is broken.
bool pump::fill(std::size_t from) {
  flow& to = flows_[from];
  if (from == 0 && only_waits())
    return drop_near();
  if (!to.open() || to.waiting() >= how_.buffer_bytes)
    return true;
  char room[16 * 1024];
  ssize_t count =
      ::recv(ends_[from].get(), room, std::min(sizeof room, how_.buffer_bytes - to.waiting()), 0);
  if (count < 0)
    return errno == EAGAIN || errno == EINTR;
  last_moved_ = reactor::clock::now();
  if (count == 0)
    to.ended = true;
  else
    take(to, {room, static_cast<std::size_t>(count)});
  return true;
}

bool pump::drop_near() {
  char room[16 * 1024];
  ssize_t count = ::recv(ends_[0].get(), room, sizeof room, 0);
  near_gone_ = count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
  return true;
}

/// Writes what waits, from a side to the other. False: the connection is broken.
bool pump::drain(std::size_t from) {
  flow& of = flows_[from];
  owned_fd& to = ends_[1 - from];
  while (of.waiting() > 0) {
    ssize_t count = ::send(to.get(), of.data.data() + of.begin, of.waiting(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0 && errno == EAGAIN)
      return true;
    if (count < 0)
      return false;
    of.begin += static_cast<std::size_t>(count);
    of.sent += static_cast<std::uint64_t>(count);
    last_moved_ = reactor::clock::now();
  }
  of.data.clear();
  of.begin = 0;
  if (!of.open() && !std::exchange(of.shut, true) && of.tells_end)
    ::shutdown(to.get(), SHUT_WR);
  return true;
}

bool pump::is_over() const {
  return flows_[1].shut && (how_.ends_with_far ? near_gone_ || flows_[0].ended : flows_[0].shut);
}

void pump::on_events(std::size_t side, std::uint32_t events) {
  auto self = shared_from_this();
  bool whole = true;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
    whole = fill(side) && (only_waits() || drain(side));
  if (whole && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
    whole = drain(1 - side);
  if (!whole || is_over())
    return end();
  rewatch();
}

/// A side is watched for what can be done with it. One with which nothing can be done is not
/// watched at all: its hang-up would be told without end.
void pump::rewatch() {
  for (std::size_t side : {0U, 1U}) {
    const flow& reads = flows_[side];
    const flow& writes = flows_[1 - side];
    std::uint32_t wanted = 0;
    if (only_waits())
      wanted = side == 0 ? EPOLLIN : 0U;
    else if (reads.open() && reads.waiting() < how_.buffer_bytes)
      wanted |= EPOLLIN;
    if (writes.waiting() > 0 && !only_waits())
      wanted |= EPOLLOUT;
    if (wanted == watched_[side] && (watches_[side] != 0 || wanted == 0))
      continue;
    watched_[side] = wanted;
    if (wanted == 0) {
      loop_.forget(std::exchange(watches_[side], 0));
    } else if (watches_[side] != 0) {
      loop_.rewatch(watches_[side], wanted);
    } else {
      // Held by whoever opened it; what comes after its end finds nobody.
      watches_[side] = loop_.watch(ends_[side].get(), wanted,
                                   [weak = weak_from_this(), side](std::uint32_t events) {
                                     if (auto self = weak.lock())
                                       self->on_events(side, events);
                                   });
    }
  }
}

void pump::end() {
  auto self = shared_from_this();
  auto told = std::exchange(on_end_, nullptr);
  close();
  if (told)
    told();
}

} // namespace berth::machines
