// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/envelope.hpp"

#include <algorithm>
#include <cstdlib>

namespace berth {

namespace {

std::string_view text_of(const zmq::message_t& frame) {
  return {static_cast<const char*>(frame.data()), frame.size()};
}

/// Text of a client as it may stand in an answer: short and printable.
std::string quote(std::string_view text) {
  std::string shown{"'"};
  for (char c : text.substr(0, 64))
    shown += c >= ' ' && c <= '~' ? c : '?';
  return shown + (text.size() > 64 ? "...'" : "'");
}

/// Appends to a string; what msgpack::packer writes to.
struct string_buffer {
  std::string& text;
  void write(const char* data, std::size_t size) { text.append(data, size); }
};

bool is_id(const msgpack::object& value) {
  switch (value.type) {
  case msgpack::type::NIL:
  case msgpack::type::POSITIVE_INTEGER:
  case msgpack::type::NEGATIVE_INTEGER:
    return true;
  case msgpack::type::STR:
    return value.via.str.size <= limits::name_bytes_max;
  case msgpack::type::BIN:
    return value.via.bin.size <= limits::name_bytes_max;
  default:
    return false;
  }
}

} // namespace

zmq_incoming read_frames(std::span<const zmq::message_t> frames, std::size_t count) {
  zmq_incoming in;
  in.from.peer = text_of(frames[0]);
  auto rest = frames.subspan(1);
  // Everything up to the first empty frame is the way back, unless the protocol comes at once.
  bool bare = !rest.empty() && text_of(rest[0]) == zmq_protocol;
  if (!bare) {
    auto kept = rest.first(std::min(rest.size(), zmq_hops_max + 1));
    auto empty = std::ranges::find_if(kept, [](const auto& frame) { return frame.size() == 0; });
    if (empty != kept.end()) {
      auto hops = static_cast<std::size_t>(empty - kept.begin());
      for (std::size_t i = 0; i < hops; ++i)
        in.from.hops.emplace_back(text_of(rest[i]));
      in.from.delimiter = true;
      rest = rest.subspan(hops + 1);
    }
  }
  if (count > frames.size() || rest.size() != 2) {
    std::size_t got = rest.size() + (count - frames.size());
    in.why = zmq_refusal(ec::malformed, "frames: expected [BERTH/1] [request] after an optional "
                                        "empty frame, got "
                                            + std::to_string(got) + " there");
    return in;
  }
  std::string_view protocol = text_of(rest[0]);
  if (protocol != zmq_protocol) {
    bool other_version = protocol.starts_with("BERTH/");
    in.why = zmq_refusal(other_version ? ec::unsupported : ec::malformed,
                         "protocol frame: expected 'BERTH/1', got " + quote(protocol));
    return in;
  }
  in.body = {static_cast<const char*>(rest[1].data()), rest[1].size()};
  return in;
}

zmq_call read_call(const msgpack::object& root) {
  zmq_call call{.id = std::string{nil_id}, .op = {}, .body = nullptr, .why = {}};
  if (root.type != msgpack::type::MAP) {
    call.why = zmq_refusal(ec::malformed,
                           "a request must be a map {id, op, body}, is " + detail::kind_of(root));
    return call;
  }
  if (const auto* id = detail::find_member(root, "id")) {
    if (!is_id(*id)) {
      call.why = zmq_refusal(ec::malformed, "id: must be text or bytes of at most "
                                                + std::to_string(limits::name_bytes_max)
                                                + " bytes, or a whole number");
      return call;
    }
    call.id.clear();
    string_buffer buffer{call.id};
    msgpack::packer<string_buffer>{buffer}.pack(*id);
  }
  const auto* op = detail::find_member(root, "op");
  if (op == nullptr || op->type == msgpack::type::NIL)
    call.why = zmq_refusal(ec::malformed, "op: is missing");
  else if (op->type != msgpack::type::STR)
    call.why = zmq_refusal(ec::malformed, "op: must be text, is " + detail::kind_of(*op));
  else
    call.op = {op->via.str.ptr, op->via.str.size};
  call.body = detail::find_member(root, "body");
  if (call.body != nullptr && call.body->type == msgpack::type::NIL)
    call.body = nullptr;
  return call;
}

refusal zmq_refusal(ec code, std::string detail) {
  return {.code = static_cast<std::uint32_t>(code),
          .name = std::string{name_of(code)},
          .detail = std::move(detail),
          .retry_after_ms = {}};
}

namespace detail {

void begin_reply(packer& out, msgpack::sbuffer& buffer, std::string_view id, bool ok) {
  out.pack_map(3);
  out.pack("id");
  buffer.write(id.data(), id.size());
  out.pack("ok");
  out.pack(ok);
  out.pack(ok ? "body" : "error");
}

zmq::message_t to_message(msgpack::sbuffer&& buffer) {
  // What fits into a few cache lines is copied: cheaper than a reference count.
  if (buffer.size() <= 256)
    return zmq::message_t{buffer.data(), buffer.size()};
  std::size_t size = buffer.size();
  char* data = buffer.release();
  return zmq::message_t{data, size, [](void* owned, void*) { std::free(owned); }};
}

} // namespace detail

zmq::message_t encode_refusal(std::string_view id, const refusal& why) {
  msgpack::sbuffer buffer{512};
  detail::packer out{buffer};
  detail::begin_reply(out, buffer, id, false);
  detail::write(out, why);
  return detail::to_message(std::move(buffer));
}

} // namespace berth
