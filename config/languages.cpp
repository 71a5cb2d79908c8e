// SPDX-License-Identifier: Apache-2.0
#include "config/languages.hpp"

#include <utility>

namespace berth {

namespace {

using name_pair = std::pair<std::string_view, std::string_view>;

constexpr name_pair aliases[] = {
    {"python", "python"},
    {"py", "python"},
    {"python3", "python"},
    {"javascript", "javascript"},
    {"js", "javascript"},
    {"node", "javascript"},
    {"nodejs", "javascript"},
    {"bash", "bash"},
    {"sh", "bash"},
    {"shell", "bash"},
    {"rust", "rust"},
    {"rs", "rust"},
    {"go", "go"},
    {"golang", "go"},
};

constexpr name_pair endings[] = {{"py", "python"},      {"js", "javascript"}, {"mjs", "javascript"},
                                 {"cjs", "javascript"}, {"sh", "bash"},       {"bash", "bash"},
                                 {"rs", "rust"},        {"go", "go"}};

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string lower(std::string_view text) {
  std::string out{text};
  for (char& c : out)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return out;
}

template <std::size_t N>
std::optional<std::string> look_up(const name_pair (&table)[N], std::string_view text) {
  for (const auto& [from, to] : table)
    if (from == text)
      return std::string{to};
  return std::nullopt;
}

} // namespace

std::optional<std::string> canonical_language(std::string_view text) {
  while (!text.empty() && is_blank(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back()))
    text.remove_suffix(1);
  if (text.size() > 16) // longer than every alias
    return std::nullopt;
  return look_up(aliases, lower(text));
}

std::optional<std::string> language_of_file(std::string_view path) {
  std::size_t dot = path.find_last_of("./");
  if (dot == std::string_view::npos || path[dot] != '.' || path.size() - dot > 16)
    return std::nullopt;
  return look_up(endings, lower(path.substr(dot + 1)));
}

} // namespace berth
