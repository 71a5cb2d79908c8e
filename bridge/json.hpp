// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/json.hpp"

#include <cmath>
#include <string>
#include <string_view>

/// JSON, both ways, from the description of a message: the same members, the same errors as
/// msgpack. Bytes are text where they are UTF-8, else `{"base64": "..."}`; both forms are read.
namespace berth {

/// Base64 with padding (RFC 4648, section 4).
std::string to_base64(std::string_view data);
/// The bytes of a base64 text, padded or not; both alphabets. Nothing for anything else.
std::optional<std::string> from_base64(std::string_view text);

namespace detail {

/// What a JSON value is, for an error text.
std::string kind_of(const json& from);

json bytes_to_json(const bytes& value);
bool read_json_bytes(const json& from, bytes& to, malformed& why);

template <class T>
json write_json(const T& value) {
  if constexpr (named_enum<T>) {
    return std::string{name_of(value)};
  } else if constexpr (is_maybe<T>) {
    return value ? write_json(*value) : json(nullptr);
  } else if constexpr (std::is_same_v<T, bytes>) {
    return bytes_to_json(value);
  } else if constexpr (is_vector<T>) {
    json list = json::array();
    for (const auto& element : value)
      list.push_back(write_json<typename T::value_type>(element));
    return list;
  } else if constexpr (is_text_map<T>) {
    json map = json::object();
    for (const auto& [key, element] : value)
      map[key] = write_json(element);
    return map;
  } else if constexpr (described<T>) {
    json map = json::object();
    std::apply([&](const auto&... f) { (..., (map[f.name] = write_json(value.*(f.member)))); },
               T::fields());
    return map;
  } else if constexpr (std::is_floating_point_v<T>) {
    return std::isfinite(value) ? json(value) : json(nullptr);
  } else {
    return value;
  }
}

template <class T>
bool read_json(const json& from, T& to, malformed& why);

template <class T>
bool read_json_number(const json& from, T& to, malformed& why) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!from.is_number())
      return why.reason = "must be a number, is " + kind_of(from), false;
    to = from.get<T>();
    return true;
  } else {
    if (!from.is_number_integer())
      return why.reason = "must be a whole number, is " + kind_of(from), false;
    if (from.is_number_unsigned()) {
      auto number = from.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
        return why.reason = "is too large", false;
      to = static_cast<T>(number);
      return true;
    }
    auto number = from.get<std::int64_t>();
    if (number < 0 && std::is_unsigned_v<T>)
      return why.reason = "must not be negative", false;
    if (number < 0 && number < static_cast<std::int64_t>(std::numeric_limits<T>::min()))
      return why.reason = "is too small", false;
    if (number > 0
        && static_cast<std::uint64_t>(number)
               > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
      return why.reason = "is too large", false;
    to = static_cast<T>(number);
    return true;
  }
}

inline bool read_json_text(const json& from, std::string& to, malformed& why) {
  if (!from.is_string())
    return why.reason = "must be text, is " + kind_of(from), false;
  to = from.get_ref<const std::string&>();
  if (!is_utf8(to))
    return why.reason = "must be UTF-8", false;
  return true;
}

template <class Owner, class Field>
bool read_json_member(const json& from, Owner& to, const Field& f, malformed& why) {
  auto member = from.find(f.name);
  if (member != from.end() && !member->is_null())
    return read_json(*member, to.*(f.member), why) || within(f.name, why);
  if (f.need == presence::optional)
    return true;
  why.reason = "is missing";
  return within(f.name, why);
}

template <class T>
bool read_json(const json& from, T& to, malformed& why) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!from.is_boolean())
      return why.reason = "must be true or false, is " + kind_of(from), false;
    to = from.get<bool>();
    return true;
  } else if constexpr (named_enum<T>) {
    std::string text;
    if (!read_json_text(from, text, why))
      return false;
    auto value = from_name<T>(text);
    if (!value)
      return why.reason = "must be one of " + wire_type<T>(), false;
    to = *value;
    return true;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return read_json_number(from, to, why);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return read_json_text(from, to, why);
  } else if constexpr (std::is_same_v<T, bytes>) {
    return read_json_bytes(from, to, why);
  } else if constexpr (is_maybe<T>) {
    if (from.is_null())
      return to.reset(), true;
    return read_json(from, to.emplace(), why);
  } else if constexpr (is_vector<T>) {
    if (!from.is_array())
      return why.reason = "must be a list, is " + kind_of(from), false;
    if (from.size() > limits::elements_max)
      return why.reason = "has too many elements", false;
    to.clear();
    to.resize(from.size());
    for (std::size_t i = 0; i < from.size(); ++i)
      if (!read_json(from[i], to[i], why))
        return within("[" + std::to_string(i) + "]", why);
    return true;
  } else if constexpr (is_text_map<T>) {
    if (!from.is_object())
      return why.reason = "must be a map, is " + kind_of(from), false;
    to.clear();
    for (const auto& [key, value] : from.items()) {
      if (!is_utf8(key))
        return why.reason = "must be UTF-8", within("(key)", why);
      if (!read_json(value, to[key], why))
        return within(key, why);
    }
    return true;
  } else {
    if (!from.is_object())
      return why.reason = "must be a map, is " + kind_of(from), false;
    return std::apply([&](const auto&... f) { return (... && read_json_member(from, to, f, why)); },
                      T::fields());
  }
}

} // namespace detail

/// A message as a JSON object of names to values.
template <described T>
json to_json(const T& message) {
  return detail::write_json(message);
}

/// Reads a message from a parsed JSON value. Unknown members are ignored.
template <described T>
decoded<T> from_json(const json& from) {
  T message;
  malformed why;
  if (!detail::read_json(from, message, why))
    return why;
  return message;
}

/// Reads a message from a JSON text, which must hold exactly one. Unknown members are ignored.
template <described T>
decoded<T> from_json_text(std::string_view text, const json_bounds& bounds = {}) {
  auto tree = parse_json(text, bounds);
  if (!tree)
    return tree.why();
  return from_json<T>(*tree);
}

} // namespace berth
