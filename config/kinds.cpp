// SPDX-License-Identifier: Apache-2.0
#include "config/kinds.hpp"

#include <algorithm>

namespace berth {

flavour flavour::of(std::string_view name, std::string_view own) {
  std::size_t slash = name.find('/');
  if (slash == std::string_view::npos)
    return {.kind = std::string{own}, .warm = std::string{name}};
  return {.kind = std::string{name.substr(0, slash)}, .warm = std::string{name.substr(slash + 1)}};
}

std::string flavour::name(std::string_view own) const {
  return kind == own ? warm : kind + "/" + warm;
}

std::vector<std::string> other_kinds(const settings& values) {
  std::vector<std::string> others;
  for (const auto& [name, type] : values.vm_types) {
    bool says_another = !type.kind.empty() && type.kind != "auto" && type.kind != values.kind;
    if (says_another && std::ranges::find(others, type.kind) == others.end())
      others.push_back(type.kind);
  }
  return others;
}

expected<std::string> choose_kind(const std::vector<std::string>& served, std::string_view kind,
                                  std::string_view isolation, const vm_type& machine) {
  for (const auto& each : served)
    if (!check_served(each, kind, isolation, machine))
      return each;
  // A kind that is served and was asked for by name says what it lacks itself.
  std::string_view named = kind.empty() ? std::string_view{machine.kind} : kind;
  bool is_served = std::ranges::find(served, named) != served.end();
  return check_served(is_served ? std::string{named} : list_kinds(served), kind, isolation,
                      machine);
}

std::string list_kinds(const std::vector<std::string>& kinds) {
  std::string text;
  for (const auto& each : kinds)
    text += (text.empty() ? "" : ", ") + each;
  return text;
}

} // namespace berth
