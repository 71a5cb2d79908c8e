// SPDX-License-Identifier: Apache-2.0
#include "app/client.hpp"

#include "config/settings.hpp"
#include "messages/fd.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <arpa/inet.h>
#include <cstdlib>
#include <poll.h>

namespace berth {

namespace {

constexpr std::chrono::milliseconds knock_timeout{2000};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Whether a stream socket at an address takes a connection.
bool takes(int family, const sockaddr* address, socklen_t size) {
  owned_fd probe{::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!probe)
    return false;
  if (::connect(probe.get(), address, size) == 0 || errno == EAGAIN)
    return true;
  if (errno != EINPROGRESS)
    return false;
  pollfd ready{probe.get(), POLLOUT, 0};
  if (::poll(&ready, 1, static_cast<int>(knock_timeout.count())) != 1)
    return false;
  int failed = 0;
  socklen_t length = sizeof failed;
  ::getsockopt(probe.get(), SOL_SOCKET, SO_ERROR, &failed, &length);
  return failed == 0;
}

/// Whether somebody listens. Where that cannot be told without a look-up of names: yes.
bool answers(const std::string& endpoint) {
  if (endpoint.starts_with("ipc://")) {
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    std::string path = endpoint.substr(6);
    if (path.size() >= sizeof place.sun_path)
      return false;
    path.copy(place.sun_path, path.size());
    return takes(AF_UNIX, reinterpret_cast<const sockaddr*>(&place), sizeof place);
  }
  auto colon = endpoint.rfind(':');
  if (!endpoint.starts_with("tcp://") || colon < 6)
    return true;
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port =
      htons(static_cast<std::uint16_t>(std::strtoul(endpoint.c_str() + colon + 1, nullptr, 10)));
  std::string host = endpoint.substr(6, colon - 6);
  if (::inet_pton(AF_INET, host == "localhost" ? "127.0.0.1" : host.c_str(), &place.sin_addr) != 1)
    return true;
  return takes(AF_INET, reinterpret_cast<const sockaddr*>(&place), sizeof place);
}

/// Where a server of this host is: the own socket file, the system's, or the TCP default.
std::string find_endpoint() {
  settings own;
  fill_paths(own);
  for (const auto& candidate : {own.zmq_ipc, std::string{"ipc:///run/berth/berth.ipc"}})
    if (candidate.starts_with("ipc://") && answers(candidate))
      return candidate;
  if (answers(own.zmq_router))
    return own.zmq_router;
  return own.zmq_ipc.empty() ? own.zmq_router : own.zmq_ipc;
}

} // namespace

expected<std::unique_ptr<client>> client::connect(std::string endpoint) {
  if (endpoint.empty())
    endpoint = environment("BERTH_ENDPOINT");
  if (endpoint.empty())
    endpoint = find_endpoint();
  if (!answers(endpoint))
    return fail(ec::not_found,
                "no server answers at " + endpoint + ": start one with `berth serve`");
  try {
    std::unique_ptr<client> made{new client{endpoint}};
    std::string server_key = environment("BERTH_CURVE_SERVER_KEY");
    if (!server_key.empty()) {
      made->socket_.set(zmq::sockopt::curve_serverkey, server_key);
      made->socket_.set(zmq::sockopt::curve_publickey, environment("BERTH_CURVE_PUBLIC_KEY"));
      made->socket_.set(zmq::sockopt::curve_secretkey, environment("BERTH_CURVE_SECRET_KEY"));
    }
    made->socket_.connect(endpoint);
    return made;
  } catch (const zmq::error_t& wrong) {
    return fail(ec::malformed, "connect to " + endpoint + ": " + wrong.what());
  }
}

client::client(std::string endpoint)
  : endpoint_(std::move(endpoint))
  , socket_(context_, zmq::socket_type::dealer) {
  socket_.set(zmq::sockopt::linger, 200);
  socket_.set(zmq::sockopt::sndhwm, 0);
  socket_.set(zmq::sockopt::ipv6, true);
}

std::uint64_t client::send_encoded(std::string_view op, const bytes& body) {
  std::uint64_t id = ++last_id_;
  msgpack::sbuffer buffer{body.size() + 64};
  msgpack::packer<msgpack::sbuffer> out{buffer};
  out.pack_map(3);
  out.pack("id");
  out.pack(id);
  out.pack("op");
  out.pack(std::string{op});
  out.pack("body");
  buffer.write(body.data(), body.size());
  socket_.send(zmq::const_buffer{}, zmq::send_flags::sndmore);
  socket_.send(zmq::buffer(zmq_protocol), zmq::send_flags::sndmore);
  socket_.send(zmq::buffer(buffer.data(), buffer.size()), zmq::send_flags::none);
  return id;
}

std::optional<client_reply> client::receive() {
  for (;;) {
    zmq::message_t frame;
    if (!socket_.recv(frame, zmq::recv_flags::dontwait))
      return std::nullopt;
    while (frame.more())
      (void)socket_.recv(frame);
    client_reply reply;
    reply.data.assign(frame.data<char>(), frame.data<char>() + frame.size());
    auto tree = object_tree::parse(reply.data, {.borrow = true});
    if (!tree || tree->root().type != msgpack::type::MAP)
      continue;
    const auto* id = detail::find_member(tree->root(), "id");
    const auto* ok = detail::find_member(tree->root(), "ok");
    if (ok == nullptr || ok->type != msgpack::type::BOOLEAN)
      continue;
    if (id != nullptr && id->type == msgpack::type::POSITIVE_INTEGER)
      reply.id = id->via.u64;
    reply.ok = ok->via.boolean;
    if (const auto* why = detail::find_member(tree->root(), "error"); !reply.ok && why != nullptr)
      if (auto read = decode<refusal>(*why))
        reply.why = *read;
    return reply;
  }
}

expected<client_reply> client::wait(std::uint64_t id, std::chrono::milliseconds timeout) {
  auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    if (auto early = early_.extract(id))
      return std::move(early.mapped());
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return fail(ec::deadline, "no answer from " + endpoint_ + " within "
                                    + std::to_string(timeout.count() / 1000) + " s");
    auto item = poll_item();
    zmq::poll(&item, 1, left);
    while (auto reply = receive())
      early_.insert_or_assign(reply->id, std::move(*reply));
  }
}

} // namespace berth
