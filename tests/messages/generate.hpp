// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/types.hpp"

namespace berth::test {

/// Gives values to members that differ from their defaults and, by `seed`, from each other.
class generator {
public:
  explicit generator(unsigned seed)
    : next_{seed} {}

  template <class T>
  void fill(T& to) {
    if constexpr (std::is_same_v<T, bool>)
      to = !to;
    else if constexpr (named_enum<T>)
      to = static_cast<T>((static_cast<std::size_t>(to) + 1) % enum_names(T{}).size());
    else if constexpr (std::is_arithmetic_v<T>)
      to = static_cast<T>(to + static_cast<T>(1 + next() % 100));
    else if constexpr (std::is_same_v<T, std::string>)
      to = "text \xc3\xa4 " + std::to_string(next());
    else if constexpr (std::is_same_v<T, bytes>)
      to = {'\0', '\xff', static_cast<char>(next())};
    else if constexpr (is_maybe<T>)
      fill(to.emplace());
    else if constexpr (is_vector<T>) {
      to.resize(2);
      for (auto& element : to)
        fill(element);
    } else if constexpr (is_text_map<T>) {
      fill(to["a"]);
      fill(to["\xc3\xa4 b"]);
    } else
      std::apply([&](auto... f) { (..., fill(to.*(f.member))); }, T::fields());
  }

private:
  unsigned next() { return next_ = next_ * 7 + 3; }

  unsigned next_;
};

/// A message none of whose members has its default.
template <described T>
T generate(unsigned seed = 1) {
  T made;
  generator{seed}.fill(made);
  return made;
}

/// Calls `look.template operator()<T>()` for each type of a list.
template <class... Ts, class F>
void each_type(type_list<Ts...>, F look) {
  (..., look.template operator()<Ts>());
}

} // namespace berth::test
