// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/proxy.hpp"

#include "config/log.hpp"
#include "machines/egress/request_head.hpp"
#include "machines/pump.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <set>
#include <utility>

namespace berth::machines::egress {

namespace {

using clock = reactor::clock;

/// How often connections are looked at whose time may be over.
constexpr std::chrono::milliseconds sweep_every{250};
/// How soon is accepted again when the server has no descriptor left.
constexpr std::chrono::milliseconds accept_pause{100};
/// Connections accepted before others are heard.
constexpr int accepts_at_once = 16;

/// Room for an address of either family.
struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  int family = AF_INET;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

socket_address socket_address_of(const ip_address& address, std::uint16_t port) {
  socket_address made;
  if (address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address.bytes.data() + 12, 4);
    std::memcpy(&made.storage, &v4, sizeof v4);
    made.size = sizeof v4;
    return made;
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  std::memcpy(&v6.sin6_addr, address.bytes.data(), 16);
  std::memcpy(&made.storage, &v6, sizeof v6);
  made.size = sizeof v6;
  made.family = AF_INET6;
  return made;
}

void send_at_once(int fd) {
  int yes = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

} // namespace

/// What all machines of the proxy share. Counters apart, on the reactor's thread.
class proxy::shared : public std::enable_shared_from_this<shared> {
public:
  shared(reactor& on, std::vector<network_rule> list, std::string what,
         std::shared_ptr<resolver> names, const bounds& limits)
    : loop(on)
    , rules(std::move(list))
    , about(std::move(what))
    , by(std::move(names))
    , within(limits) {}

  void sweep();
  void watch_time();

  reactor& loop;
  const std::vector<network_rule> rules;
  const std::string about;
  const std::shared_ptr<resolver> by;
  const bounds within;

  std::set<std::shared_ptr<connection>> connections;
  bool sweeping = false;

  std::atomic<std::uint64_t> connected{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> failed{0};
  std::atomic<std::uint64_t> open{0};
  std::atomic<std::uint64_t> sent_bytes{0};
  std::atomic<std::uint64_t> received_bytes{0};
};

/// One machine's socket. On the reactor's thread.
class proxy::door : public std::enable_shared_from_this<door> {
public:
  door(std::shared_ptr<shared> of, std::string name, owned_fd listener)
    : shared_(std::move(of))
    , machine_(std::move(name))
    , listener_(std::move(listener)) {}

  void open() { watch(); }
  void close();
  void ended(const std::shared_ptr<connection>& one);
  const std::string& machine() const { return machine_; }

private:
  void watch();
  void accept();

  const std::shared_ptr<shared> shared_;
  const std::string machine_;
  owned_fd listener_;
  reactor::token watch_ = 0;
  std::set<std::shared_ptr<connection>> connections_;
};

/// One connection of a program: its request, then the bytes both ways, or a refusal.
class proxy::connection : public std::enable_shared_from_this<connection> {
public:
  connection(std::shared_ptr<shared> of, const std::shared_ptr<door>& from, owned_fd client)
    : shared_(std::move(of))
    , door_(from)
    , machine_(from->machine())
    , client_(std::move(client)) {}

  void open(bool crowded);
  void close();
  void look_at_time(clock::time_point now);

private:
  enum class state { reading_head, looking_up, connecting, passing, refusing, over };

  void watch_client(std::uint32_t events);
  void on_client();
  void read_farewell();
  void on_head(std::size_t size);
  void ask_name();
  void on_names(lookup_result found);
  void try_next();
  void on_connected();
  void pass();
  void refuse(int status, const std::string& reason, bool by_list = false);
  void expect(state next, std::chrono::milliseconds within) {
    state_ = next;
    deadline_ = clock::now() + within;
  }
  void drop_far();
  void finish();

  const std::shared_ptr<shared> shared_;
  const std::weak_ptr<door> door_;
  const std::string machine_;
  owned_fd client_;
  reactor::token client_watch_ = 0;
  owned_fd far_;
  reactor::token far_watch_ = 0;
  state state_ = state::reading_head;
  clock::time_point deadline_;
  std::string said_; // by the client, not passed on yet
  request_head head_;
  std::vector<ip_address> to_try_;
  std::size_t tried_ = 0;
  std::string last_failure_;
  bool in_time_ = true;
  std::size_t farewell_bytes_ = 0;
  std::shared_ptr<pump> pump_;
};

// --- what all share ------------------------------------------------------------------------------

void proxy::shared::watch_time() {
  if (std::exchange(sweeping, true))
    return;
  loop.after(sweep_every, [weak = weak_from_this()] {
    if (auto self = weak.lock())
      self->sweep();
  });
}

void proxy::shared::sweep() {
  sweeping = false;
  const auto now = clock::now();
  // Each may end meanwhile.
  const std::vector<std::shared_ptr<connection>> all{connections.begin(), connections.end()};
  for (const auto& one : all)
    one->look_at_time(now);
  if (!connections.empty())
    watch_time();
}

// --- a machine's socket --------------------------------------------------------------------------

void proxy::door::watch() {
  if (watch_ != 0 || !listener_ || connections_.size() >= shared_->within.connections_per_machine)
    return;
  watch_ = shared_->loop.watch(listener_.get(), EPOLLIN, [weak = weak_from_this()](std::uint32_t) {
    if (auto self = weak.lock())
      self->accept();
  });
}

void proxy::door::accept() {
  for (int i = 0; i < accepts_at_once; ++i) {
    if (connections_.size() >= shared_->within.connections_per_machine)
      return shared_->loop.forget(std::exchange(watch_, 0)); // others wait in the kernel's queue
    owned_fd client{::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)};
    if (!client && (errno == EINTR || errno == ECONNABORTED))
      continue;
    if (!client && errno == EAGAIN)
      return;
    if (!client) {
      shared_->loop.forget(std::exchange(watch_, 0));
      shared_->loop.after(accept_pause, [weak = weak_from_this()] {
        if (auto self = weak.lock())
          self->watch();
      });
      return;
    }
    bool crowded = shared_->connections.size() >= shared_->within.connections;
    auto one = std::make_shared<connection>(shared_, shared_from_this(), std::move(client));
    connections_.insert(one);
    shared_->connections.insert(one);
    ++shared_->open;
    shared_->watch_time();
    one->open(crowded);
  }
}

void proxy::door::ended(const std::shared_ptr<connection>& one) {
  connections_.erase(one);
  watch();
}

void proxy::door::close() {
  shared_->loop.forget(std::exchange(watch_, 0));
  listener_.reset();
  for (const auto& one : std::exchange(connections_, {}))
    one->close();
}

// --- a connection --------------------------------------------------------------------------------

void proxy::connection::open(bool crowded) {
  send_at_once(client_.get());
  expect(state::reading_head, shared_->within.head_within);
  watch_client(EPOLLIN);
  if (crowded)
    refuse(503, "too many connections of all machines");
}

void proxy::connection::watch_client(std::uint32_t events) {
  shared_->loop.forget(std::exchange(client_watch_, 0));
  if (events == 0)
    return;
  client_watch_ =
      shared_->loop.watch(client_.get(), events, [weak = weak_from_this()](std::uint32_t) {
        if (auto self = weak.lock())
          self->on_client();
      });
}

void proxy::connection::on_client() {
  if (state_ == state::refusing)
    return read_farewell();
  char room[4096];
  ssize_t count =
      ::recv(client_.get(), room, std::min(sizeof room, head_bytes_max - said_.size()), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (count < 0 || (count == 0 && said_.empty()))
    return finish();
  if (count == 0)
    return refuse(400, "the request ends before its head does");
  said_.append(room, static_cast<std::size_t>(count));
  if (std::size_t size = head_size(said_); size != 0)
    on_head(size);
  else if (said_.size() >= head_bytes_max)
    refuse(431, "more than " + std::to_string(head_bytes_max) + " bytes before the empty line");
}

void proxy::connection::on_head(std::size_t size) {
  // What the client says from here on waits in its own socket.
  watch_client(0);
  auto read = parse_request_head(std::string_view{said_}.substr(0, size));
  if (const auto* why = std::get_if<rejection>(&read))
    return refuse(why->status, why->reason);
  head_ = std::move(std::get<request_head>(read));
  said_.erase(0, size);
  if (!lists(shared_->rules, head_.to))
    return refuse(403, head_.to.text() + " is not on the list of " + shared_->about, true);
  if (!head_.to.address)
    return ask_name();
  to_try_ = {*head_.to.address};
  try_next();
}

void proxy::connection::ask_name() {
  expect(state::looking_up, shared_->within.lookup_within);
  reactor& loop = shared_->loop;
  bool asked =
      shared_->by->ask(head_.to.name, [&loop, weak = weak_from_this()](lookup_result found) {
        loop.post([weak, found = std::move(found)]() mutable {
          if (auto self = weak.lock())
            self->on_names(std::move(found));
        });
      });
  if (!asked)
    refuse(503, "too many names wait to be looked up");
}

void proxy::connection::on_names(lookup_result found) {
  if (state_ != state::looking_up)
    return;
  if (found.addresses.empty())
    return refuse(502, head_.to.name + " is not found: " + found.error);
  std::string why;
  for (const auto& one : found.addresses) {
    std::string reserved = why_not_to(shared_->rules, one, head_.to.port);
    if (reserved.empty() && to_try_.size() < addresses_max)
      to_try_.push_back(one.address);
    else if (!reserved.empty())
      why = reserved;
  }
  if (to_try_.empty())
    return refuse(403, head_.to.name + ": " + why, true);
  try_next();
}

/// What is connected to is what was checked: the name is not asked again.
void proxy::connection::try_next() {
  drop_far();
  while (tried_ < to_try_.size()) {
    const auto address = socket_address_of(to_try_[tried_++], head_.to.port);
    far_.reset(::socket(address.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!far_
        || (::connect(far_.get(), address.get(), address.size) != 0 && errno != EINPROGRESS)) {
      last_failure_ = std::strerror(errno);
      continue;
    }
    expect(state::connecting, shared_->within.connect_within);
    far_watch_ =
        shared_->loop.watch(far_.get(), EPOLLOUT, [weak = weak_from_this()](std::uint32_t) {
          if (auto self = weak.lock())
            self->on_connected();
        });
    return;
  }
  far_.reset();
  refuse(in_time_ ? 502 : 504, head_.to.text() + " cannot be reached: " + last_failure_);
}

void proxy::connection::on_connected() {
  int failed = 0;
  socklen_t size = sizeof failed;
  if (::getsockopt(far_.get(), SOL_SOCKET, SO_ERROR, &failed, &size) != 0)
    failed = errno;
  if (failed != 0) {
    last_failure_ = std::strerror(failed);
    in_time_ = true;
    return try_next();
  }
  shared_->loop.forget(std::exchange(far_watch_, 0));
  send_at_once(far_.get());
  ++shared_->connected;
  log::debug("egress", "connected",
             {{"machine", machine_},
              {"to", head_.to.text()},
              {"address", to_try_[tried_ - 1].text()},
              {"by", head_.tunnel ? "CONNECT" : "http"}});
  pass();
}

void proxy::connection::pass() {
  state_ = state::passing;
  if (head_.tunnel) {
    constexpr std::string_view answer = "HTTP/1.1 200 Connection established\r\n\r\n";
    // The first bytes on a socket that takes some kilobytes.
    if (::send(client_.get(), answer.data(), answer.size(), MSG_NOSIGNAL)
        != static_cast<ssize_t>(answer.size()))
      return finish();
  }
  pump_ = std::make_shared<pump>(
      shared_->loop, std::move(client_), std::move(far_),
      pump::settings{.buffer_bytes = shared_->within.buffer_bytes,
                     .near_bytes = head_.tunnel ? std::nullopt : head_.body_bytes,
                     .ends_with_far = !head_.tunnel});
  pump_->open(head_.forward, std::exchange(said_, {}), [weak = weak_from_this()] {
    if (auto self = weak.lock())
      self->finish();
  });
}

/// Says why not, and that no more comes. What the client says meanwhile is read and dropped, for a
/// while: closing on unread bytes would take the answer back.
void proxy::connection::refuse(int status, const std::string& reason, bool by_list) {
  drop_far();
  ++(by_list ? shared_->refused : shared_->failed);
  log::debug("egress", by_list ? "refused" : "failed",
             {{"machine", machine_}, {"status", std::to_string(status)}, {"why", reason}});
  const std::string answer = rejection_text({status, reason});
  (void)::send(client_.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
  ::shutdown(client_.get(), SHUT_WR);
  expect(state::refusing, shared_->within.farewell_within);
  watch_client(EPOLLIN);
}

void proxy::connection::read_farewell() {
  char room[4096];
  ssize_t count = ::recv(client_.get(), room, sizeof room, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  farewell_bytes_ += count > 0 ? static_cast<std::size_t>(count) : 0;
  if (count <= 0 || farewell_bytes_ > shared_->within.buffer_bytes)
    finish();
}

void proxy::connection::look_at_time(clock::time_point now) {
  if (state_ == state::passing) {
    auto within =
        pump_->only_waits() ? shared_->within.farewell_within : shared_->within.idle_within;
    if (now - pump_->last_moved() > within)
      finish();
    return;
  }
  if (now < deadline_)
    return;
  switch (state_) {
  case state::reading_head:
    return refuse(408, "the request was not said in time");
  case state::looking_up:
    return refuse(504, head_.to.name + " was not looked up in time");
  case state::connecting:
    last_failure_ = "no answer in time";
    in_time_ = false;
    return try_next();
  default:
    return finish();
  }
}

void proxy::connection::drop_far() {
  shared_->loop.forget(std::exchange(far_watch_, 0));
  far_.reset();
}

void proxy::connection::finish() {
  auto self = shared_from_this();
  close();
  if (auto from = door_.lock())
    from->ended(self);
}

void proxy::connection::close() {
  if (std::exchange(state_, state::over) == state::over)
    return;
  auto self = shared_from_this();
  watch_client(0);
  drop_far();
  client_.reset();
  if (pump_) {
    shared_->sent_bytes += pump_->sent_far();
    shared_->received_bytes += pump_->sent_near();
    pump_->close();
  }
  shared_->connections.erase(self);
  --shared_->open;
}

// --- the proxy -----------------------------------------------------------------------------------

proxy::proxy(reactor& loop, std::vector<network_rule> rules, std::string about,
             std::shared_ptr<resolver> by, const bounds& within)
  : shared_(
      std::make_shared<shared>(loop, std::move(rules), std::move(about), std::move(by), within)) {}

proxy::~proxy() {
  const proxy_counts all = counts();
  log::info("egress", "the way out is closed",
            {{"list", shared_->about},
             {"connected", std::to_string(all.connected)},
             {"refused", std::to_string(all.refused)},
             {"failed", std::to_string(all.failed)},
             {"sent_bytes", std::to_string(all.sent_bytes)},
             {"received_bytes", std::to_string(all.received_bytes)}});
}

std::shared_ptr<void> proxy::serve(const std::string& machine, owned_fd listener) {
  auto made = std::make_shared<door>(shared_, machine, std::move(listener));
  reactor& loop = shared_->loop;
  loop.post([made] { made->open(); });
  // The address is the door's; what is let go with it is its work.
  return {made.get(), [made, &loop](void*) { loop.post([made] { made->close(); }); }};
}

proxy_counts proxy::counts() const {
  return {.connected = shared_->connected,
          .refused = shared_->refused,
          .failed = shared_->failed,
          .open = shared_->open,
          .sent_bytes = shared_->sent_bytes,
          .received_bytes = shared_->received_bytes};
}

std::vector<std::string> proxy::facts() const {
  constexpr std::size_t named_max = 8;
  std::string places;
  for (std::size_t i = 0; i < shared_->rules.size() && i < named_max; ++i)
    places += (i == 0 ? "" : ", ") + shared_->rules[i].text;
  if (shared_->rules.size() > named_max)
    places += " and " + std::to_string(shared_->rules.size() - named_max) + " more";
  return {"network: none but a proxy on the machine's loopback, port "
          + std::to_string(way_out_port) + ", which leads to " + places};
}

} // namespace berth::machines::egress
