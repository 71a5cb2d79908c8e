// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"
#include "messages/limits.hpp"

#include <msgpack.hpp>

#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

/// msgpack, both ways, from the description of a message. Nothing else in the project calls
/// msgpack.
namespace berth {

/// Why bytes are not the message they should be. `field` is the path of the member, for example
/// `files[3].path`; empty when the bytes as a whole are at fault.
struct malformed {
  std::string field;
  std::string reason;

  std::string text() const { return field.empty() ? reason : field + ": " + reason; }
};

/// What decoding gives: a message, or the reason why there is none.
template <class T>
class [[nodiscard]] decoded {
public:
  decoded(T value)
    : value_(std::move(value)) {}
  decoded(malformed why)
    : why_(std::move(why)) {}

  explicit operator bool() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const malformed& why() const { return why_; }

private:
  std::optional<T> value_;
  malformed why_;
};

/// How much a peer may make us allocate.
struct decode_bounds {
  std::size_t elements = limits::elements_max;
  std::size_t text_bytes = limits::request_bytes_max;
  std::size_t binary_bytes = limits::request_bytes_max;
  std::size_t depth = limits::depth_max;
  /// Values in all lists and maps together: a byte on the wire can stand for 24 in memory.
  std::size_t values = 8 * limits::elements_max;
  /// Text and bytes of the tree stay in the data that was parsed, which must outlive the tree.
  bool borrow = false;
};

/// Whether text is well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// A msgpack object tree with the memory it lives in.
class object_tree {
public:
  /// Parses bytes that must be exactly one msgpack value, within bounds.
  static decoded<object_tree> parse(std::span<const char> data, const decode_bounds& bounds = {});

  const msgpack::object& root() const { return handle_.get(); }

private:
  explicit object_tree(msgpack::object_handle handle)
    : handle_(std::move(handle)) {}
  msgpack::object_handle handle_;
};

namespace detail {

using packer = msgpack::packer<msgpack::sbuffer>;

template <class T>
void write(packer& out, const T& value);

template <class T>
void write_members(packer& out, const T& value) {
  std::apply(
      [&](const auto&... f) {
        (...,
         (out.pack_str(static_cast<std::uint32_t>(std::string_view{f.name}.size())),
          out.pack_str_body(f.name, static_cast<std::uint32_t>(std::string_view{f.name}.size())),
          write(out, value.*(f.member))));
      },
      T::fields());
}

template <class T>
constexpr std::uint32_t member_count() {
  return static_cast<std::uint32_t>(std::tuple_size_v<decltype(T::fields())>);
}

template <class T>
void write(packer& out, const T& value) {
  if constexpr (named_enum<T>) {
    std::string_view name = name_of(value);
    out.pack_str(static_cast<std::uint32_t>(name.size()));
    out.pack_str_body(name.data(), static_cast<std::uint32_t>(name.size()));
  } else if constexpr (is_maybe<T>) {
    if (value)
      write(out, *value);
    else
      out.pack_nil();
  } else if constexpr (std::is_same_v<T, bytes>) {
    out.pack_bin(static_cast<std::uint32_t>(value.size()));
    out.pack_bin_body(value.data(), static_cast<std::uint32_t>(value.size()));
  } else if constexpr (is_vector<T>) {
    out.pack_array(static_cast<std::uint32_t>(value.size()));
    for (const auto& element : value)
      write(out, element);
  } else if constexpr (is_text_map<T>) {
    out.pack_map(static_cast<std::uint32_t>(value.size()));
    for (const auto& [key, element] : value) {
      out.pack(key);
      write(out, element);
    }
  } else if constexpr (described<T>) {
    out.pack_map(member_count<T>());
    write_members(out, value);
  } else {
    out.pack(value);
  }
}

std::string kind_of(const msgpack::object& from);

template <class T>
bool read(const msgpack::object& from, T& to, malformed& why);

/// Puts the name of the enclosing member before the path of what failed inside it.
inline bool within(std::string_view name, malformed& why) {
  bool index = !why.field.empty() && why.field.front() == '[';
  why.field = std::string{name} + (why.field.empty() || index ? why.field : "." + why.field);
  return false;
}

template <class T>
bool read_number(const msgpack::object& from, T& to, malformed& why) {
  if constexpr (std::is_floating_point_v<T>) {
    if (from.type == msgpack::type::FLOAT64 || from.type == msgpack::type::FLOAT32)
      to = static_cast<T>(from.via.f64);
    else if (from.type == msgpack::type::POSITIVE_INTEGER)
      to = static_cast<T>(from.via.u64);
    else if (from.type == msgpack::type::NEGATIVE_INTEGER)
      to = static_cast<T>(from.via.i64);
    else
      return why.reason = "must be a number, is " + kind_of(from), false;
    return true;
  } else {
    if (from.type == msgpack::type::NEGATIVE_INTEGER) {
      if (std::is_unsigned_v<T>)
        return why.reason = "must not be negative", false;
      if (from.via.i64 < static_cast<std::int64_t>(std::numeric_limits<T>::min()))
        return why.reason = "is too small", false;
      to = static_cast<T>(from.via.i64);
      return true;
    }
    if (from.type != msgpack::type::POSITIVE_INTEGER)
      return why.reason = "must be a whole number, is " + kind_of(from), false;
    if (from.via.u64 > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
      return why.reason = "is too large", false;
    to = static_cast<T>(from.via.u64);
    return true;
  }
}

inline bool read_text(const msgpack::object& from, std::string& to, malformed& why) {
  if (from.type != msgpack::type::STR)
    return why.reason = "must be text, is " + kind_of(from), false;
  std::string_view text{from.via.str.ptr, from.via.str.size};
  if (!is_utf8(text))
    return why.reason = "must be UTF-8", false;
  to.assign(text);
  return true;
}

/// Bytes may come as binary or as text: many msgpack libraries know only one of them.
inline bool read_bytes(const msgpack::object& from, bytes& to, malformed& why) {
  if (from.type == msgpack::type::BIN)
    to.assign(from.via.bin.ptr, from.via.bin.ptr + from.via.bin.size);
  else if (from.type == msgpack::type::STR)
    to.assign(from.via.str.ptr, from.via.str.ptr + from.via.str.size);
  else
    return why.reason = "must be bytes, is " + kind_of(from), false;
  return true;
}

const msgpack::object* find_member(const msgpack::object& map, std::string_view name);

template <class Owner, class Field>
bool read_member(const msgpack::object& from, Owner& to, const Field& f, malformed& why) {
  const msgpack::object* member = find_member(from, f.name);
  bool absent = member == nullptr || member->type == msgpack::type::NIL;
  if (!absent)
    return read(*member, to.*(f.member), why) || within(f.name, why);
  if (f.need == presence::optional)
    return true;
  why.reason = "is missing";
  return within(f.name, why);
}

template <class T>
bool read(const msgpack::object& from, T& to, malformed& why) {
  if constexpr (std::is_same_v<T, bool>) {
    if (from.type != msgpack::type::BOOLEAN)
      return why.reason = "must be true or false, is " + kind_of(from), false;
    to = from.via.boolean;
    return true;
  } else if constexpr (named_enum<T>) {
    std::string text;
    if (!read_text(from, text, why))
      return false;
    auto value = from_name<T>(text);
    if (!value)
      return why.reason = "must be one of " + wire_type<T>(), false;
    to = *value;
    return true;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return read_number(from, to, why);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return read_text(from, to, why);
  } else if constexpr (std::is_same_v<T, bytes>) {
    return read_bytes(from, to, why);
  } else if constexpr (is_maybe<T>) {
    if (from.type == msgpack::type::NIL)
      return to.reset(), true;
    return read(from, to.emplace(), why);
  } else if constexpr (is_vector<T>) {
    if (from.type != msgpack::type::ARRAY)
      return why.reason = "must be a list, is " + kind_of(from), false;
    to.clear();
    to.resize(from.via.array.size);
    for (std::uint32_t i = 0; i < from.via.array.size; ++i)
      if (!read(from.via.array.ptr[i], to[i], why))
        return within("[" + std::to_string(i) + "]", why);
    return true;
  } else if constexpr (is_text_map<T>) {
    if (from.type != msgpack::type::MAP)
      return why.reason = "must be a map, is " + kind_of(from), false;
    to.clear();
    for (std::uint32_t i = 0; i < from.via.map.size; ++i) {
      std::string key;
      if (!read_text(from.via.map.ptr[i].key, key, why))
        return within("(key)", why);
      if (!read(from.via.map.ptr[i].val, to[key], why))
        return within(key, why);
    }
    return true;
  } else {
    if (from.type != msgpack::type::MAP)
      return why.reason = "must be a map, is " + kind_of(from), false;
    return std::apply([&](const auto&... f) { return (... && read_member(from, to, f, why)); },
                      T::fields());
  }
}

} // namespace detail

/// A message as a msgpack map of names to values.
template <described T>
bytes encode(const T& message) {
  msgpack::sbuffer buffer;
  detail::packer out{buffer};
  detail::write(out, message);
  return {buffer.data(), buffer.data() + buffer.size()};
}

/// A message as a msgpack map whose first member is `type`, for streams that carry many types.
template <described T>
bytes encode_tagged(const T& message) {
  msgpack::sbuffer buffer;
  detail::packer out{buffer};
  out.pack_map(detail::member_count<T>() + 1);
  out.pack("type");
  out.pack(T::type_name);
  detail::write_members(out, message);
  return {buffer.data(), buffer.data() + buffer.size()};
}

/// Reads a message from a parsed tree. Unknown members are ignored.
template <described T>
decoded<T> decode(const msgpack::object& from) {
  T message;
  malformed why;
  if (!detail::read(from, message, why))
    return why;
  return message;
}

/// Reads a message from bytes, which must hold exactly one. Unknown members are ignored.
template <described T>
decoded<T> decode(std::span<const char> data, const decode_bounds& bounds = {}) {
  auto tree = object_tree::parse(data, bounds);
  if (!tree)
    return tree.why();
  return decode<T>(tree->root());
}

/// The `type` member of a tagged message; empty when there is none.
std::string_view type_tag(const msgpack::object& from);

} // namespace berth
