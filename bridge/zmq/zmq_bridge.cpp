// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/zmq_bridge.hpp"

#include "bridge/zmq/access.hpp"
#include "bridge/zmq/dispatch.hpp"
#include "config/log.hpp"

#include <atomic>
#include <cerrno>
#include <deque>
#include <pthread.h>
#include <thread>
#include <unordered_map>
#include <unordered_set>

namespace berth {

namespace {

/// Requests read in one go, so that replies and events get their turn.
constexpr int requests_per_turn = 256;
/// Events sent in one go, so that requests get theirs.
constexpr std::size_t events_per_turn = 512;
/// How often a connection that does not read its replies is tried again.
constexpr std::chrono::milliseconds retry_pause{5};
/// What a request has beside its files: ids, names, limits.
constexpr std::size_t overhead_bytes = 64 * limits::kib;
/// A subscription is a topic's beginning.
constexpr std::size_t topic_bytes_max = 1 * limits::kib;

/// A connection with requests that wait for answers, or with answers that wait for it.
struct connection {
  /// What names the requests: the way back and the id. Those without an id are only counted.
  std::unordered_set<std::string> ids;
  std::size_t open = 0;
  std::deque<zmq_reply> waiting;
};

/// What a request is told apart by on its connection; empty without an id.
std::string key_of(const zmq_address& from, std::string_view id) {
  if (id == nil_id)
    return {};
  std::string key{id};
  for (const auto& hop : from.hops)
    key.append(1, '\0').append(hop);
  return key;
}

/// Sends one event; the body goes without a copy unless it is small.
void send_event(zmq::socket_t& socket, zmq_event& event) {
  constexpr std::size_t copied_max = 512;
  socket.send(zmq::buffer(event.topic), zmq::send_flags::sndmore | zmq::send_flags::dontwait);
  if (event.body.size() <= copied_max) {
    socket.send(zmq::buffer(event.body), zmq::send_flags::dontwait);
    return;
  }
  auto* owned = new bytes(std::move(event.body));
  zmq::message_t message{owned->data(), owned->size(),
                         [](void*, void* hint) { delete static_cast<bytes*>(hint); }, owned};
  socket.send(message, zmq::send_flags::dontwait);
}

} // namespace

/// The thread, and all that only it touches.
class zmq_bridge::loop {
public:
  loop(zmq_options options, caf::actor_system& system, gateway_actor gateway,
       std::shared_ptr<zmq_outbox> outbox)
    : options_(std::move(options))
    , outbox_(std::move(outbox))
    , dispatcher_(system, std::move(gateway), outbox_) {}

  ~loop() { stop(); }

  error bind();
  void start();
  void stop();

  zmq_counters counters() const;

  std::string router_endpoint;
  std::string ipc_endpoint;
  std::string events_endpoint;

private:
  void configure(zmq::socket_t& socket) const;
  void demand_keys(zmq::socket_t& socket) const;
  void run();
  void turn();
  bool read_request();
  void serve(std::span<const zmq::message_t> frames, std::size_t count);
  void refuse(const zmq_address& to, std::string_view id, refusal why);
  void deliver(zmq_reply reply);
  bool send(zmq_reply& reply);
  void settle(const zmq_reply& reply);
  void retry();
  void read_subscriptions();

  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
    counter.fetch_add(amount, std::memory_order_relaxed);
  }

  const zmq_options options_;
  std::shared_ptr<zmq_outbox> outbox_;
  zmq_dispatcher dispatcher_;
  zmq::context_t context_{1};
  std::optional<zap_keeper> zap_;
  zmq::socket_t router_;
  zmq::socket_t events_;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;

  std::unordered_map<std::string, connection> connections_;
  /// Connections with replies that wait for them.
  std::unordered_set<std::string> slow_;
  std::size_t open_ = 0;
  std::size_t subscriptions_ = 0;
  std::vector<zmq::message_t> frames_;
  std::vector<zmq_reply> replies_taken_;
  std::vector<zmq_event> events_taken_;

  std::atomic<std::uint64_t> requests_ = 0;
  std::atomic<std::uint64_t> refused_ = 0;
  std::atomic<std::uint64_t> replies_ = 0;
  std::atomic<std::uint64_t> orphaned_ = 0;
  std::atomic<std::uint64_t> events_sent_ = 0;
  std::atomic<std::uint64_t> open_now_ = 0;
  std::atomic<std::uint64_t> connections_now_ = 0;
  std::atomic<std::uint64_t> subscriptions_now_ = 0;
};

void zmq_bridge::loop::configure(zmq::socket_t& socket) const {
  auto beat = static_cast<int>(options_.heartbeat.count());
  socket.set(zmq::sockopt::linger, static_cast<int>(options_.linger.count()));
  socket.set(zmq::sockopt::sndhwm, options_.high_water_mark);
  socket.set(zmq::sockopt::rcvhwm, options_.high_water_mark);
  socket.set(zmq::sockopt::heartbeat_ivl, beat);
  socket.set(zmq::sockopt::heartbeat_timeout, 3 * beat);
  socket.set(zmq::sockopt::handshake_ivl, static_cast<int>(options_.handshake.count()));
  socket.set(zmq::sockopt::ipv6, true);
}

/// Endpoints bound after this need a key that ZAP admits; those before it do not.
void zmq_bridge::loop::demand_keys(zmq::socket_t& socket) const {
  socket.set(zmq::sockopt::zap_domain, zap_domain);
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_secretkey, options_.curve_secret_key);
}

error zmq_bridge::loop::bind() {
  if (error wrong = check_access(options_))
    return wrong;
  const std::string* place = &options_.router;
  try {
    bool keys = !options_.curve_secret_key.empty();
    if (keys)
      zap_.emplace(context_, options_.curve_clients);
    router_ = zmq::socket_t{context_, zmq::socket_type::router};
    configure(router_);
    // A reply that does not fit is said to be so, instead of being dropped.
    router_.set(zmq::sockopt::router_mandatory, true);
    router_.set(zmq::sockopt::maxmsgsize,
                static_cast<std::int64_t>(limits::request_bytes_max + overhead_bytes));
    if (!options_.ipc.empty()) {
      place = &options_.ipc;
      if (error wrong = clear_ipc(options_.ipc))
        return wrong;
      router_.bind(options_.ipc);
      ipc_endpoint = router_.get(zmq::sockopt::last_endpoint);
      if (error wrong = guard_ipc(ipc_endpoint, options_.ipc_mode))
        return wrong;
    }
    place = &options_.router;
    if (keys)
      demand_keys(router_);
    router_.bind(options_.router);
    router_endpoint = router_.get(zmq::sockopt::last_endpoint);

    place = &options_.events;
    events_ = zmq::socket_t{context_, zmq::socket_type::xpub};
    configure(events_);
    events_.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(topic_bytes_max));
    if (keys)
      demand_keys(events_);
    events_.bind(options_.events);
    events_endpoint = events_.get(zmq::sockopt::last_endpoint);
  } catch (const zmq::error_t& wrong) {
    ec code = wrong.num() == EADDRINUSE ? ec::already_exists : ec::internal;
    return fail(code, "bind " + *place + ": " + wrong.what());
  }
  return {};
}

void zmq_bridge::loop::start() {
  thread_ = std::thread{[this] { run(); }};
  ::pthread_setname_np(thread_.native_handle(), "berth-zmq");
}

void zmq_bridge::loop::stop() {
  if (thread_.joinable()) {
    stopping_ = true;
    outbox_->wake();
    thread_.join();
  }
  outbox_->close();
  zap_.reset();
  router_.close();
  events_.close();
  context_.close();
  // libzmq leaves the file of a named ipc endpoint; without a server behind it, it only misleads.
  if (!ipc_endpoint.empty())
    (void)clear_ipc(options_.ipc);
  ipc_endpoint.clear();
}

zmq_counters zmq_bridge::loop::counters() const {
  return {.requests = requests_,
          .refused = refused_,
          .replies = replies_,
          .orphaned = orphaned_,
          .events = events_sent_,
          .events_dropped = outbox_->events_dropped(),
          .open = open_now_,
          .connections = connections_now_,
          .subscriptions = subscriptions_now_};
}

void zmq_bridge::loop::run() {
  while (!stopping_) {
    try {
      turn();
    } catch (const zmq::error_t& wrong) {
      if (wrong.num() != EINTR)
        log::error("zmq", "turn failed", {{"why", wrong.what()}});
    }
  }
  // What is there leaves; linger bounds how long that may take.
  try {
    outbox_->take(replies_taken_, events_taken_, std::numeric_limits<std::size_t>::max());
    for (auto& reply : replies_taken_)
      deliver(std::move(reply));
    for (auto& event : events_taken_)
      send_event(events_, event);
  } catch (const zmq::error_t& wrong) {
    log::warn("zmq", "last replies not sent", {{"why", wrong.what()}});
  }
}

void zmq_bridge::loop::turn() {
  std::array<zmq::pollitem_t, 4> items{{
      {router_.handle(), 0, ZMQ_POLLIN, 0},
      {events_.handle(), 0, ZMQ_POLLIN, 0},
      {nullptr, outbox_->fd(), ZMQ_POLLIN, 0},
      {zap_ ? zap_->socket().handle() : nullptr, -1, ZMQ_POLLIN, 0},
  }};
  zmq::poll(items.data(), zap_ ? 4 : 3,
            slow_.empty() ? std::chrono::milliseconds{-1} : retry_pause);
  if (zap_ && items[3].revents != 0)
    zap_->serve();
  if (items[1].revents != 0)
    read_subscriptions();
  if (items[2].revents != 0) {
    outbox_->take(replies_taken_, events_taken_, events_per_turn);
    for (auto& reply : replies_taken_)
      deliver(std::move(reply));
    for (auto& event : events_taken_)
      send_event(events_, event);
    add(events_sent_, events_taken_.size());
  }
  if (!slow_.empty())
    retry();
  if (items[0].revents != 0)
    for (int i = 0; i < requests_per_turn && read_request(); ++i)
      continue;
  open_now_.store(open_, std::memory_order_relaxed);
  connections_now_.store(connections_.size(), std::memory_order_relaxed);
}

bool zmq_bridge::loop::read_request() {
  frames_.clear();
  std::size_t count = 0;
  for (bool more = true; more;) {
    zmq::message_t frame;
    if (!router_.recv(frame, zmq::recv_flags::dontwait))
      return false;
    more = frame.more();
    // Frames beyond any that could be right are counted and let go.
    if (++count <= zmq_frames_max + 1)
      frames_.push_back(std::move(frame));
  }
  add(requests_);
  serve(frames_, count);
  return true;
}

void zmq_bridge::loop::serve(std::span<const zmq::message_t> frames, std::size_t count) {
  zmq_incoming in = read_frames(frames, count);
  if (in.why.code != 0)
    return refuse(in.from, nil_id, std::move(in.why));
  auto tree = object_tree::parse(in.body, {.borrow = true});
  if (!tree)
    return refuse(in.from, nil_id, zmq_refusal(ec::malformed, "request: " + tree.why().text()));
  zmq_call call = read_call(tree->root());
  if (call.why.code != 0)
    return refuse(in.from, call.id, std::move(call.why));

  auto full = [](std::string what) {
    refusal why = zmq_refusal(ec::no_capacity, std::move(what));
    why.retry_after_ms = static_cast<std::uint32_t>(limits::retry_after.count());
    return why;
  };
  if (open_ >= options_.requests_open_max)
    return refuse(in.from, call.id, full("too many requests wait for their answers"));
  std::string key = key_of(in.from, call.id);
  auto known = connections_.find(in.from.peer);
  if (known != connections_.end()) {
    const connection& from = known->second;
    if (from.open >= options_.requests_per_connection_max)
      return refuse(in.from, call.id,
                    full("this connection has " + std::to_string(from.open)
                         + " requests that wait for their answers or whose answers it does not "
                           "read"));
    if (!key.empty() && from.ids.contains(key))
      return refuse(in.from, call.id,
                    zmq_refusal(ec::already_exists,
                                "id: a request of this connection with the same id waits for its "
                                "answer"));
  }
  // The reply passes through the outbox, which this thread alone reads: it cannot overtake.
  if (auto why = dispatcher_.dispatch(call, in.from))
    return refuse(in.from, call.id, std::move(*why));
  connection& from = connections_[in.from.peer];
  ++from.open;
  ++open_;
  if (!key.empty())
    from.ids.insert(std::move(key));
}

void zmq_bridge::loop::refuse(const zmq_address& to, std::string_view id, refusal why) {
  add(refused_);
  deliver(
      {.to = to, .id = std::string{id}, .body = encode_refusal(id, why), .ends_request = false});
}

void zmq_bridge::loop::deliver(zmq_reply reply) {
  auto known = connections_.find(reply.to.peer);
  bool queued = known != connections_.end() && !known->second.waiting.empty();
  if (!queued && send(reply))
    return settle(reply);
  // The client does not read. Answers to what was accepted wait for it, and keep their places among
  // its open requests, so that it gets no more of them.
  std::string peer = reply.to.peer;
  connection& slow = connections_[peer];
  if (!reply.ends_request && slow.waiting.size() >= options_.refusals_waiting_max)
    return;
  slow.waiting.push_back(std::move(reply));
  slow_.insert(std::move(peer));
}

/// Hands a reply to ZeroMQ. False: the connection takes no more now.
bool zmq_bridge::loop::send(zmq_reply& reply) {
  int rc = zmq_send(router_.handle(), reply.to.peer.data(), reply.to.peer.size(),
                    ZMQ_SNDMORE | ZMQ_DONTWAIT);
  if (rc < 0) {
    if (zmq_errno() == EAGAIN)
      return false;
    add(orphaned_); // EHOSTUNREACH: the client is gone.
    return true;
  }
  // The peer was chosen and has room for a message: what follows cannot block.
  auto more = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
  for (const auto& hop : reply.to.hops)
    router_.send(zmq::buffer(hop), more);
  if (reply.to.delimiter)
    router_.send(zmq::const_buffer{}, more);
  router_.send(zmq::buffer(zmq_protocol), more);
  router_.send(reply.body, zmq::send_flags::dontwait);
  add(replies_);
  return true;
}

/// A reply has left, or its client has: the request is over.
void zmq_bridge::loop::settle(const zmq_reply& reply) {
  if (!reply.ends_request)
    return;
  auto known = connections_.find(reply.to.peer);
  if (known == connections_.end())
    return;
  connection& from = known->second;
  if (std::string key = key_of(reply.to, reply.id); !key.empty())
    from.ids.erase(key);
  --from.open;
  --open_;
  if (from.open == 0 && from.waiting.empty())
    connections_.erase(known);
}

void zmq_bridge::loop::retry() {
  for (auto peer = slow_.begin(); peer != slow_.end();) {
    connection& from = connections_[*peer];
    while (!from.waiting.empty() && send(from.waiting.front())) {
      zmq_reply sent = std::move(from.waiting.front());
      from.waiting.pop_front();
      if (sent.ends_request) {
        if (std::string key = key_of(sent.to, sent.id); !key.empty())
          from.ids.erase(key);
        --from.open;
        --open_;
      }
    }
    if (!from.waiting.empty()) {
      ++peer;
      continue;
    }
    if (from.open == 0)
      connections_.erase(*peer);
    peer = slow_.erase(peer);
  }
}

void zmq_bridge::loop::read_subscriptions() {
  zmq::message_t frame;
  while (events_.recv(frame, zmq::recv_flags::dontwait)) {
    // The first byte tells; ZeroMQ reports only the first and the last of equal topics, and the end
    // of those whose subscriber is gone.
    if (frame.size() == 0)
      continue;
    char what = *static_cast<const char*>(frame.data());
    if (what == 1)
      ++subscriptions_;
    else if (what == 0 && subscriptions_ > 0)
      --subscriptions_;
  }
  subscriptions_now_.store(subscriptions_, std::memory_order_relaxed);
  outbox_->want(subscriptions_ > 0);
}

expected<std::unique_ptr<zmq_bridge>> zmq_bridge::start(zmq_options options,
                                                        caf::actor_system& system,
                                                        gateway_actor gateway,
                                                        std::shared_ptr<zmq_outbox> outbox) {
  auto made =
      std::make_unique<loop>(std::move(options), system, std::move(gateway), std::move(outbox));
  if (error wrong = made->bind())
    return wrong;
  made->start();
  return std::unique_ptr<zmq_bridge>{new zmq_bridge{std::move(made)}};
}

zmq_bridge::zmq_bridge(std::unique_ptr<loop> owned)
  : loop_(std::move(owned)) {}

zmq_bridge::~zmq_bridge() = default;

const std::string& zmq_bridge::router_endpoint() const {
  return loop_->router_endpoint;
}

const std::string& zmq_bridge::ipc_endpoint() const {
  return loop_->ipc_endpoint;
}

const std::string& zmq_bridge::events_endpoint() const {
  return loop_->events_endpoint;
}

zmq_counters zmq_bridge::counters() const {
  return loop_->counters();
}

void zmq_bridge::stop() {
  loop_->stop();
}

} // namespace berth
