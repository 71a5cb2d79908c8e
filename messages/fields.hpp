// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

namespace berth {

/// Raw bytes: program output, file contents. Never assumed to be text.
using bytes = std::vector<char>;

/// A value that may be absent; on the wire null or a missing member.
template <class T>
class maybe : public std::optional<T> {
public:
  using std::optional<T>::optional;

  friend bool operator==(const maybe& x, const maybe& y) {
    return x.has_value() == y.has_value() && (!x.has_value() || *x == *y);
  }
};

/// Whether a member must be present in what a peer sends.
enum class presence : std::uint8_t { required, optional };

/// One member of a described message: its name on the wire, where it lives, what it means.
template <class Owner, class Member>
struct field_t {
  const char* name;
  Member Owner::*member;
  presence need;
  const char* meaning;
};

/// A member that a peer must send.
template <class Owner, class Member>
constexpr field_t<Owner, Member> field(const char* name, Member Owner::*member,
                                       const char* meaning = "") {
  return {name, member, presence::required, meaning};
}

/// A member that keeps its default when a peer leaves it out.
template <class Owner, class Member>
constexpr field_t<Owner, Member> opt(const char* name, Member Owner::*member,
                                     const char* meaning = "") {
  return {name, member, presence::optional, meaning};
}

/// A message described once. CAF inspection, msgpack, JSON and the reference come from fields().
template <class T>
concept described = requires {
  { T::type_name } -> std::convertible_to<std::string_view>;
  T::fields();
};

/// An enumeration that travels as text. `enum_names(E{})` lists the texts in the order of the
/// values, which start at 0 and have no gaps.
template <class T>
concept named_enum = std::is_enum_v<T> && requires(T x) {
  { enum_names(x) } -> std::convertible_to<std::span<const std::string_view>>;
};

/// The text of an enumerator; "?" for a value outside the enumeration.
template <named_enum E>
constexpr std::string_view name_of(E value) {
  std::span<const std::string_view> names = enum_names(value);
  auto index = static_cast<std::size_t>(value);
  return index < names.size() ? names[index] : "?";
}

/// The enumerator of a text.
template <named_enum E>
constexpr std::optional<E> from_name(std::string_view text) {
  std::span<const std::string_view> names = enum_names(E{});
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == text)
      return static_cast<E>(i);
  return std::nullopt;
}

template <class T>
inline constexpr bool is_maybe = false;
template <class T>
inline constexpr bool is_maybe<maybe<T>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_text_map = false;
template <class T>
inline constexpr bool is_text_map<std::map<std::string, T>> = true;

/// The wire type of a member as the reference names it, for example `text[]` or `verdict?`.
template <class T>
std::string wire_type() {
  if constexpr (std::is_same_v<T, bytes>)
    return "bytes";
  else if constexpr (std::is_same_v<T, std::string>)
    return "text";
  else if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_floating_point_v<T>)
    return "float";
  else if constexpr (named_enum<T>) {
    std::string all;
    for (auto name : enum_names(T{})) {
      if (!all.empty())
        all += '|';
      all += name;
    }
    return all;
  } else if constexpr (std::is_unsigned_v<T>)
    return "uint" + std::to_string(sizeof(T) * 8);
  else if constexpr (std::is_signed_v<T>)
    return "int" + std::to_string(sizeof(T) * 8);
  else if constexpr (is_maybe<T>)
    return wire_type<typename T::value_type>() + "?";
  else if constexpr (is_vector<T>)
    return wire_type<typename T::value_type>() + "[]";
  else if constexpr (is_text_map<T>)
    return "map<text," + wire_type<typename T::mapped_type>() + ">";
  else
    return T::type_name;
}

} // namespace berth
