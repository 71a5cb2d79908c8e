// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/codec.hpp"
#include "messages/errors.hpp"

#include <zmq.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The frames of the protocol BERTH/1 and the maps in them. docs/protocol.md is the specification.
namespace berth {

inline constexpr std::string_view zmq_protocol = "BERTH/1";
/// Frames before the empty one: a REQ with ZMQ_REQ_CORRELATE sends one, each proxy adds one.
inline constexpr std::size_t zmq_hops_max = 4;
/// Frames of a message that are looked at; one with more is refused.
inline constexpr std::size_t zmq_frames_max = zmq_hops_max + 4;

/// Where a reply goes: the connection, and the frames that the client wants back as they were.
struct zmq_address {
  std::string peer;
  std::vector<std::string> hops;
  /// Whether the client put an empty frame before the protocol, as REQ does.
  bool delimiter = false;
};

/// A reply, encoded, on its way.
struct zmq_reply {
  zmq_address to;
  /// The client's id as msgpack; names the request among those of its connection.
  std::string id;
  zmq::message_t body;
  /// Whether it ends a request that was accepted. A refusal at the door ends none.
  bool ends_request = true;
};

/// One message from the ROUTER, taken apart. `body` points into the frames.
struct zmq_incoming {
  zmq_address from;
  std::span<const char> body;
  /// Why it cannot be a request; `code` is 0 when it can.
  refusal why;
};

/// Takes a message apart: [peer] [hops...] [empty] [BERTH/1] [body], the part between peer and
/// protocol being the client's choice. `count` is the number of frames that came, more than there
/// are when some were not kept.
zmq_incoming read_frames(std::span<const zmq::message_t> frames, std::size_t count);

/// What a body asks for. Points into the tree it was read from.
struct zmq_call {
  /// As msgpack; nil when the client gave none.
  std::string id;
  std::string_view op;
  /// Null when there is none.
  const msgpack::object* body = nullptr;
  /// Why it cannot be served; `code` is 0 when it can. `id` holds as far as it was understood.
  refusal why;
};

/// Reads the map {id, op, body}.
zmq_call read_call(const msgpack::object& root);

/// The id of a request that gave none.
inline constexpr std::string_view nil_id{"\xc0", 1};

/// A refusal with its frozen name.
refusal zmq_refusal(ec code, std::string detail);

namespace detail {

/// Begins a reply: the map, the id as it came, `ok`. One value must follow.
void begin_reply(packer& out, msgpack::sbuffer& buffer, std::string_view id, bool ok);

/// The buffer as a message, without a copy.
zmq::message_t to_message(msgpack::sbuffer&& buffer);

} // namespace detail

/// {id, ok: true, body}.
template <described Reply>
zmq::message_t encode_reply(std::string_view id, const Reply& body) {
  msgpack::sbuffer buffer{512};
  detail::packer out{buffer};
  detail::begin_reply(out, buffer, id, true);
  detail::write(out, body);
  return detail::to_message(std::move(buffer));
}

/// {id, ok: false, error}.
zmq::message_t encode_refusal(std::string_view id, const refusal& why);

} // namespace berth
