// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/zmq/envelope.hpp"
#include "messages/caf.hpp"
#include "messages/operations.hpp"

#include <zmq.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace berth {

/// The name of the operation that a request belongs to.
template <class Request>
std::string_view op_of() {
  std::string_view name;
  auto match = [&](const auto& each) {
    if constexpr (std::is_same_v<typename std::remove_cvref_t<decltype(each)>::request, Request>)
      name = each.op;
  };
  std::apply([&](const auto&... each) { (..., match(each)); }, operations);
  return name;
}

/// A server's answer to one request, still encoded.
struct client_reply {
  std::uint64_t id = 0;
  bool ok = false;
  refusal why;
  /// The whole reply; `body` of it is decoded by what was asked.
  bytes data;
};

/// One connection to a server, over a DEALER. For one thread. Waits on the socket, never in a loop.
class client {
public:
  /// Connects after a look whether anything listens there. An empty endpoint is BERTH_ENDPOINT,
  /// else the socket file of a server on this host, else tcp://127.0.0.1:5555. With
  /// BERTH_CURVE_SERVER_KEY, BERTH_CURVE_PUBLIC_KEY and BERTH_CURVE_SECRET_KEY it speaks CURVE.
  static expected<std::unique_ptr<client>> connect(std::string endpoint);

  /// Asks and waits. Fails with `deadline` when no answer comes in time.
  template <class Reply, class Request>
  expected<Reply> ask(const Request& request,
                      std::chrono::milliseconds timeout = std::chrono::seconds{30}) {
    auto reply = wait(send(request), timeout);
    return reply ? read<Reply>(*reply) : expected<Reply>{reply.error()};
  }

  /// Asks without waiting; returns the id that the answer will have.
  template <class Request>
  std::uint64_t send(const Request& request) {
    return send_encoded(op_of<Request>(), encode(request));
  }

  /// An answer that has come, if any. Does not wait.
  std::optional<client_reply> receive();

  /// The body of an answer, or the server's refusal as an error.
  template <class Reply>
  static expected<Reply> read(const client_reply& reply) {
    if (!reply.ok)
      return caf::make_error(static_cast<ec>(reply.why.code), reply.why.detail,
                             reply.why.retry_after_ms.value_or(0));
    auto tree = object_tree::parse(reply.data, {.borrow = true});
    if (!tree)
      return fail(ec::malformed, "the server's answer " + tree.why().text());
    const auto* body = detail::find_member(tree->root(), "body");
    if (body == nullptr)
      return fail(ec::malformed, "the server's answer has no body");
    auto value = decode<Reply>(*body);
    if (!value)
      return fail(ec::malformed, "the server's answer: " + value.why().text());
    return std::move(*value);
  }

  /// How long a question for news waits at the server.
  static constexpr std::uint32_t news_wait_ms = 20'000;
  /// After how long without an answer to it the server is given up, and the words for that.
  static constexpr std::chrono::milliseconds silence_max{2 * news_wait_ms};
  std::string silence() const { return "the server at " + endpoint_ + " does not answer any more"; }

  /// For zmq::poll beside other descriptors.
  zmq::pollitem_t poll_item() { return {socket_.handle(), 0, ZMQ_POLLIN, 0}; }
  const std::string& endpoint() const { return endpoint_; }

private:
  explicit client(std::string endpoint);
  std::uint64_t send_encoded(std::string_view op, const bytes& body);
  expected<client_reply> wait(std::uint64_t id, std::chrono::milliseconds timeout);

  std::string endpoint_;
  zmq::context_t context_{1};
  zmq::socket_t socket_;
  std::uint64_t last_id_ = 0;
  /// Answers that came while another was waited for.
  std::map<std::uint64_t, client_reply> early_;
};

} // namespace berth
