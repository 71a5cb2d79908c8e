// SPDX-License-Identifier: Apache-2.0
#include "bench/client.hpp"

#include "messages/errors.hpp"

#include <algorithm>
#include <array>

namespace berth::bench {

namespace {

constexpr std::string_view protocol = "BERTH/1";

std::string_view text_of(const bytes& data) {
  return {data.data(), data.size()};
}

answer take_apart(const zmq::message_t& frame) {
  auto tree = object_tree::parse({static_cast<const char*>(frame.data()), frame.size()});
  if (!tree)
    throw failure{"reply: " + tree.why().text()};
  answer got{.tree = std::move(*tree)};
  const auto& root = got.tree.root();
  if (root.type != msgpack::type::MAP)
    throw failure{"a reply is not a map"};
  const auto* id = detail::find_member(root, "id");
  const auto* ok = detail::find_member(root, "ok");
  if (id == nullptr || ok == nullptr || ok->type != msgpack::type::BOOLEAN)
    throw failure{"a reply lacks id or ok"};
  if (id->type == msgpack::type::POSITIVE_INTEGER)
    got.id = id->via.u64;
  got.ok = ok->via.boolean;
  got.value = detail::find_member(root, got.ok ? "body" : "error");
  if (got.value == nullptr)
    throw failure{"a reply has neither body nor error"};
  return got;
}

} // namespace

std::string answer::refusal_text() const {
  auto why = decode<refusal>(*value);
  return why ? why->name + ": " + why->detail : "a refusal that cannot be read";
}

std::vector<std::uint8_t> encode_request(std::uint64_t id, std::string_view op, const json& body) {
  return json::to_msgpack({{"id", id}, {"op", op}, {"body", body}});
}

client::client(zmq::context_t& context, const std::string& endpoint, zmq::socket_type type)
  : socket_(context, type) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.set(zmq::sockopt::reconnect_ivl, 10);
  socket_.set(zmq::sockopt::sndtimeo, 10'000);
  if (type == zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::sndhwm, 0);
    socket_.set(zmq::sockopt::rcvhwm, 0);
  }
  socket_.connect(endpoint);
}

std::uint64_t client::send(std::string_view op, const json& body) {
  std::uint64_t id = next_id_++;
  send_encoded(encode_request(id, op, body));
  return id;
}

void client::send_encoded(const std::vector<std::uint8_t>& request) {
  if (!socket_.send(zmq::buffer(protocol), zmq::send_flags::sndmore)
      || !socket_.send(zmq::buffer(request), zmq::send_flags::none))
    throw failure{"a request could not be sent within 10 s"};
}

answer client::receive(milliseconds limit) {
  if (!wait_readable(socket_, limit))
    throw failure{"no reply within " + std::to_string(limit.count()) + " ms"};
  zmq::message_t frame;
  do {
    if (!socket_.recv(frame, zmq::recv_flags::dontwait))
      throw failure{"a reply broke off"};
  } while (frame.more());
  return take_apart(frame);
}

bool wait_readable(zmq::socket_t& socket, milliseconds limit) {
  auto until = clock::now() + limit;
  std::array<zmq::pollitem_t, 1> items{{{socket.handle(), 0, ZMQ_POLLIN, 0}}};
  for (;;) {
    check_stop();
    auto left = std::chrono::ceil<milliseconds>(until - clock::now());
    if (left < milliseconds::zero())
      return false;
    try {
      if (zmq::poll(items.data(), items.size(), std::min(left, milliseconds{200})) > 0)
        return true;
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR)
        throw;
    }
    if (left == milliseconds::zero())
      return false;
  }
}

void expect_output(const outcome& of, std::string_view text) {
  bool good = of.state == job_state::exited && of.exit_code && *of.exit_code == 0
              && text_of(of.stdout_data) == text;
  if (good)
    return;
  std::string exit_code = of.exit_code ? std::to_string(*of.exit_code) : "none";
  throw failure{"job " + of.job + " ended as " + std::string{name_of(of.state)} + ", exit code "
                + exit_code + ", stdout '" + std::string{text_of(of.stdout_data).substr(0, 100)}
                + "', stderr '" + std::string{text_of(of.stderr_data).substr(0, 300)} + "' "
                + of.detail};
}

} // namespace berth::bench
