// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/resolver.hpp"

#include "config/threads.hpp"
#include "machines/egress/limits.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <ifaddrs.h>
#include <mutex>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <utility>

namespace berth::machines::egress {

namespace {

/// Of one server, and how often it is asked: a lookup ends within lookup_within even so.
constexpr int answer_within_s = 2;
constexpr int tries = 2;

std::optional<ip_address> address_in(const sockaddr* from) {
  ip_address made = *parse_ip("0.0.0.0");
  if (from == nullptr)
    return std::nullopt;
  if (from->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, from, sizeof v4);
    std::memcpy(made.bytes.data() + 12, &v4.sin_addr, 4);
    return made;
  }
  if (from->sa_family != AF_INET6)
    return std::nullopt;
  sockaddr_in6 v6{};
  std::memcpy(&v6, from, sizeof v6);
  std::memcpy(made.bytes.data(), &v6.sin6_addr, 16);
  return made;
}

std::vector<ip_address> own_addresses() {
  std::vector<ip_address> own;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0)
    return own;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next)
    if (auto address = address_in(one->ifa_addr))
      own.push_back(*address);
  ::freeifaddrs(all);
  return own;
}

} // namespace

lookup_result look_up(const std::string& name) {
  ::res_init(); // of this thread
  _res.options &= ~static_cast<unsigned long>(RES_DNSRCH | RES_DEFNAMES);
  _res.retrans = answer_within_s;
  _res.retry = tries;
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  lookup_result result;
  if (int why = ::getaddrinfo(name.c_str(), nullptr, &wanted, &found); why != 0) {
    result.error = ::gai_strerror(why);
    return result;
  }
  const auto own = own_addresses();
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    auto address = address_in(one->ai_addr);
    if (address && result.addresses.size() < addresses_max)
      result.addresses.push_back({*address, std::ranges::find(own, *address) != own.end()});
  }
  ::freeaddrinfo(found);
  return result;
}

struct resolver::shared {
  lookup by;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::pair<std::string, handler>> waiting; // guarded by mutex
  std::size_t threads = 0;                             // guarded by mutex
  std::size_t idle = 0;                                // guarded by mutex
  bool stopping = false;                               // guarded by mutex
};

resolver::resolver(lookup by)
  : shared_(std::make_shared<shared>()) {
  shared_->by = std::move(by);
}

resolver::~resolver() {
  std::lock_guard guard{shared_->mutex};
  shared_->stopping = true;
  shared_->waiting.clear();
  shared_->changed.notify_all();
}

bool resolver::ask(const std::string& name, handler then) {
  std::lock_guard guard{shared_->mutex};
  if (shared_->waiting.size() >= lookups_waiting_max)
    return false;
  shared_->waiting.emplace_back(name, std::move(then));
  if (shared_->idle < shared_->waiting.size() && shared_->threads < lookup_threads) {
    ++shared_->threads;
    start_without_signals([of = shared_] { run(of); }).detach();
  }
  shared_->changed.notify_one();
  return true;
}

void resolver::run(const std::shared_ptr<shared>& of) {
  std::unique_lock lock{of->mutex};
  while (true) {
    ++of->idle;
    of->changed.wait(lock, [&] { return of->stopping || !of->waiting.empty(); });
    --of->idle;
    if (of->stopping)
      return;
    auto [name, then] = std::move(of->waiting.front());
    of->waiting.pop_front();
    lock.unlock();
    lookup_result result = of->by(name);
    lock.lock();
    // Under the lock: whoever ends the resolver knows that nobody is called any more.
    if (!of->stopping)
      then(std::move(result));
    then = nullptr;
  }
}

} // namespace berth::machines::egress
