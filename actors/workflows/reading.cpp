// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/reading.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace berth::reading {

namespace {

/// JSON of a model beyond these is none.
constexpr json_bounds bounds{.text_bytes = 512 * limits::kib, .values = 16'384, .depth = 32};
/// Places in a text where an object is looked for.
constexpr int starts_max = 64;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::optional<json> parse_object(std::string_view text) {
  if (text.empty() || text.front() != '{')
    return std::nullopt;
  auto parsed = parse_json(text, bounds);
  return parsed && parsed->is_object() ? std::optional{std::move(*parsed)} : std::nullopt;
}

/// Where the object that begins a text ends, by its braces outside of strings; 0: it does not.
std::size_t length_of_object(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size() && i < bounds.text_bytes; ++i) {
    char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return 0;
}

/// The number that begins at a place, and where it ends.
std::optional<double> number_at(std::string_view text, std::size_t at, std::size_t& end) {
  double value = 0;
  auto [last, wrong] =
      std::from_chars(text.data() + at, text.data() + text.size(), value, std::chars_format::fixed);
  if (wrong != std::errc{} || !std::isfinite(value))
    return std::nullopt;
  end = static_cast<std::size_t>(last - text.data());
  return value;
}

/// The first number from 0 to 10 of a line, other than the 10 of "/10".
std::optional<double> score_in_line(std::string_view line) {
  for (std::size_t i = 0; i < line.size();) {
    bool begins = is_digit(line[i]) && (i == 0 || (line[i - 1] != '.' && line[i - 1] != '-'));
    std::size_t end = i + 1;
    if (begins) {
      bool is_scale = i > 0 && line[i - 1] == '/';
      auto value = number_at(line, i, end);
      if (value && !is_scale && *value <= 10)
        return value;
    }
    i = std::max(end, i + 1);
  }
  return std::nullopt;
}

std::optional<bool> truth_in(std::string_view word) {
  for (std::string_view yes : {"yes", "true", "pass", "passed", "ok"})
    if (word == yes)
      return true;
  for (std::string_view no : {"no", "false", "fail", "failed"})
    if (word == no)
      return false;
  return std::nullopt;
}

/// The first word of a text, in lower case, past the marks before it.
std::string first_word(std::string_view text) {
  auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  auto from = std::ranges::find_if(text, is_letter);
  auto to = std::find_if_not(from, text.end(), is_letter);
  return lower(std::string_view{from, to});
}

} // namespace

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back()))
    text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string made{text};
  for (char& c : made)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return made;
}

std::optional<json> object_in(std::string_view text) {
  text = trimmed(text);
  if (auto whole = parse_object(text))
    return whole;
  int tried = 0;
  for (std::size_t at = text.find('{'); at != std::string_view::npos && tried < starts_max;
       at = text.find('{', at + 1), ++tried) {
    std::string_view rest = text.substr(at);
    if (std::size_t size = length_of_object(rest))
      if (auto found = parse_object(rest.substr(0, size)))
        return found;
  }
  return std::nullopt;
}

std::optional<std::string> text_of(const json& from, const char* name) {
  auto found = from.find(name);
  if (found == from.end())
    return std::nullopt;
  if (found->is_string())
    return found->get<std::string>();
  if (found->is_number() || found->is_boolean())
    return found->dump();
  return std::nullopt;
}

std::optional<double> number_of(const json& from, const char* name) {
  auto found = from.find(name);
  if (found == from.end())
    return std::nullopt;
  if (found->is_number()) {
    auto value = found->get<double>();
    return std::isfinite(value) ? std::optional{value} : std::nullopt;
  }
  if (!found->is_string())
    return std::nullopt;
  std::string_view text = trimmed(found->get_ref<const std::string&>());
  std::size_t end = 0;
  return number_at(text, 0, end);
}

std::optional<bool> truth_of(const json& from, const char* name) {
  auto found = from.find(name);
  if (found == from.end())
    return std::nullopt;
  if (found->is_boolean())
    return found->get<bool>();
  if (!found->is_string())
    return std::nullopt;
  return answer_in(found->get_ref<const std::string&>());
}

std::optional<double> score_in(std::string_view text) {
  while (!text.empty()) {
    std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    bool speaks = lower(line).find("score") != std::string::npos
                  || line.find("/10") != std::string_view::npos
                  || line.find("/ 10") != std::string_view::npos;
    if (!speaks)
      continue;
    if (auto found = score_in_line(line))
      return found;
  }
  return std::nullopt;
}

std::optional<bool> answer_in(std::string_view text) {
  return truth_in(first_word(text));
}

std::string normalised_answer(std::string_view text) {
  constexpr std::string_view mark = "answer:";
  std::string all = lower(trimmed(text));
  if (auto at = all.rfind(mark); at != std::string::npos) {
    std::string_view line = std::string_view{all}.substr(at + mark.size());
    line = trimmed(line.substr(0, line.find('\n')));
    // "**Answer:** 42" ends with the marks of its beginning; an empty line says nothing.
    if (line.find_first_not_of("*_`\"'. \t") != std::string_view::npos)
      all = std::string{line};
  }
  std::string made;
  for (char c : all) {
    if (is_blank(c)) {
      if (!made.empty() && made.back() != ' ')
        made += ' ';
    } else if (std::string_view{"*_`\"'"}.find(c) == std::string_view::npos) {
      made += c;
    }
  }
  auto is_mark = [](char c) {
    return std::string_view{" .,;:!"}.find(c) != std::string_view::npos;
  };
  while (!made.empty() && is_mark(made.back()))
    made.pop_back();
  std::size_t begin = 0;
  while (begin < made.size() && is_mark(made[begin]))
    ++begin;
  return made.substr(begin);
}

std::string shortened(std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max)
    return std::string{text};
  auto inside = [&](std::size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::size_t head = bytes_max * 2 / 3;
  std::size_t tail = text.size() - (bytes_max - head);
  while (head > 0 && inside(head))
    --head;
  while (inside(tail))
    ++tail;
  return std::string{text.substr(0, head)} + "\n[… " + std::to_string(tail - head)
         + " bytes left out …]\n" + std::string{text.substr(tail)};
}

} // namespace berth::reading
