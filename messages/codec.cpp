// SPDX-License-Identifier: Apache-2.0
#include "messages/codec.hpp"

#include <exception>

namespace berth {

bool is_utf8(std::string_view text) {
  auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = 0;
  while (i < text.size()) {
    unsigned char first = at(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || i + length > text.size())
      return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((at(i + k) & 0xC0) != 0x80)
        return false;
    unsigned char second = at(i + 1);
    bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    bool surrogate = first == 0xED && second > 0x9F;
    bool beyond = first == 0xF4 && second > 0x8F;
    if (overlong || surrogate || beyond)
      return false;
    i += length;
  }
  return true;
}

namespace {

/// Counts what a tree would hold, before memory is spent on it.
struct counting_visitor : msgpack::null_visitor {
  explicit counting_visitor(const decode_bounds& limit)
    : bounds(limit) {}

  bool start_array(std::uint32_t count) {
    values += count;
    return values <= bounds.values && ++depth <= bounds.depth;
  }
  bool start_map(std::uint32_t count) {
    values += std::size_t{2} * count;
    return values <= bounds.values && ++depth <= bounds.depth;
  }
  bool end_array() { return --depth, true; }
  bool end_map() { return --depth, true; }

  const decode_bounds& bounds;
  std::size_t values = 0;
  std::size_t depth = 0;
};

/// Whether all lists and maps together stay within bounds; broken msgpack is the parser's matter.
bool within_values(std::span<const char> data, const decode_bounds& bounds) {
  counting_visitor count{bounds};
  std::size_t offset = 0;
  msgpack::parse(data.data(), data.size(), offset, count);
  return count.values <= bounds.values;
}

bool refer(msgpack::type::object_type, std::size_t, void*) {
  return true;
}

} // namespace

decoded<object_tree> object_tree::parse(std::span<const char> data, const decode_bounds& bounds) {
  if (data.empty())
    return malformed{"", "is empty, expected one msgpack value"};
  try {
    // Fewer bytes than values allowed can only promise too many, which the parser refuses.
    if (data.size() > bounds.values && !within_values(data, bounds))
      return malformed{"", "holds more than " + std::to_string(bounds.values) + " values"};
    msgpack::unpack_limit limit{
        bounds.elements, bounds.elements, bounds.text_bytes, bounds.binary_bytes, 0, bounds.depth};
    std::size_t offset = 0;
    msgpack::object_handle handle = msgpack::unpack(
        data.data(), data.size(), offset, bounds.borrow ? refer : nullptr, nullptr, limit);
    if (offset != data.size())
      return malformed{"", "has " + std::to_string(data.size() - offset)
                               + " bytes after the msgpack value"};
    return object_tree{std::move(handle)};
  } catch (const msgpack::insufficient_bytes&) {
    return malformed{"", "ends in the middle of a msgpack value"};
  } catch (const msgpack::size_overflow&) {
    return malformed{"", "is larger or deeper than allowed"};
  } catch (const std::exception&) {
    return malformed{"", "is not msgpack"};
  }
}

std::string_view type_tag(const msgpack::object& from) {
  if (from.type != msgpack::type::MAP)
    return {};
  const msgpack::object* tag = detail::find_member(from, "type");
  if (tag == nullptr || tag->type != msgpack::type::STR)
    return {};
  return {tag->via.str.ptr, tag->via.str.size};
}

namespace detail {

std::string kind_of(const msgpack::object& from) {
  switch (from.type) {
  case msgpack::type::NIL:
    return "null";
  case msgpack::type::BOOLEAN:
    return "a boolean";
  case msgpack::type::POSITIVE_INTEGER:
  case msgpack::type::NEGATIVE_INTEGER:
    return "a whole number";
  case msgpack::type::FLOAT32:
  case msgpack::type::FLOAT64:
    return "a fraction";
  case msgpack::type::STR:
    return "text";
  case msgpack::type::BIN:
    return "bytes";
  case msgpack::type::ARRAY:
    return "a list";
  case msgpack::type::MAP:
    return "a map";
  default:
    return "an extension";
  }
}

const msgpack::object* find_member(const msgpack::object& map, std::string_view name) {
  for (std::uint32_t i = 0; i < map.via.map.size; ++i) {
    const auto& key = map.via.map.ptr[i].key;
    if (key.type == msgpack::type::STR
        && std::string_view{key.via.str.ptr, key.via.str.size} == name)
      return &map.via.map.ptr[i].val;
  }
  return nullptr;
}

} // namespace detail

} // namespace berth
