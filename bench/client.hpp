// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/common.hpp"
#include "messages/codec.hpp"
#include "messages/operations.hpp"

#include <nlohmann/json.hpp>
#include <zmq.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A client of the server as any other would be: it writes msgpack by another library than the
/// server, so that the two cannot be wrong together.
namespace berth::bench {

using json = nlohmann::json;

/// One reply, taken apart.
struct answer {
  std::uint64_t id = 0;
  bool ok = false;
  object_tree tree;
  /// The body or the error, inside `tree`.
  const msgpack::object* value = nullptr;

  /// The body as a message; throws the refusal when it is one.
  template <described Reply>
  Reply as() const {
    if (!ok)
      throw failure{refusal_text()};
    auto message = decode<Reply>(*value);
    if (!message)
      throw failure{std::string{Reply::type_name} + ": " + message.why().text()};
    return std::move(*message);
  }
  std::string refusal_text() const;
};

/// A request, encoded: the map {id, op, body}.
std::vector<std::uint8_t> encode_request(std::uint64_t id, std::string_view op, const json& body);

/// A connection for requests: one at a time over REQ, or many in flight over DEALER.
class client {
public:
  client(zmq::context_t& context, const std::string& endpoint,
         zmq::socket_type type = zmq::socket_type::req);

  /// Sends a request and returns the id it was given.
  std::uint64_t send(std::string_view op, const json& body);
  void send_encoded(const std::vector<std::uint8_t>& request);
  /// The next reply. Throws when none comes within `limit`.
  answer receive(milliseconds limit = milliseconds{60'000});

  /// One request and its reply.
  template <described Reply>
  Reply call(std::string_view op, const json& body = json::object(),
             milliseconds limit = milliseconds{60'000}) {
    send(op, body);
    return receive(limit).as<Reply>();
  }

private:
  zmq::socket_t socket_;
  std::uint64_t next_id_ = 1;
};

/// Waits until a socket can be read. False when `limit` is over.
bool wait_readable(zmq::socket_t& socket, milliseconds limit);

/// Body of a run request.
inline json program(std::string_view language, std::string_view code) {
  return {{"language", language}, {"code", code}};
}

/// Throws unless the program ended by itself with 0 and wrote this to standard output.
void expect_output(const outcome& of, std::string_view text);

} // namespace berth::bench
