// SPDX-License-Identifier: Apache-2.0
#include "config/json.hpp"

namespace berth {

namespace {

/// Length of the well-formed UTF-8 sequence at the start of `data`; 0 when there is none.
std::size_t sequence_length(std::string_view data) {
  auto first = static_cast<unsigned char>(data.front());
  std::size_t length = first < 0x80   ? 1
                       : first < 0xC2 ? 0
                       : first < 0xE0 ? 2
                       : first < 0xF0 ? 3
                                      : 4;
  if (length == 0 || length > data.size() || !is_utf8(data.substr(0, length)))
    return 0;
  return length;
}

/// Counts nesting and values before anything is built, so that a bomb costs one pass over its
/// bytes.
std::optional<malformed> beyond(std::string_view text, const json_bounds& bounds) {
  if (text.size() > bounds.text_bytes)
    return malformed{"", "is larger than " + std::to_string(bounds.text_bytes) + " bytes"};
  std::size_t depth = 0;
  std::size_t values = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
    case '"':
      for (++i; i < text.size() && text[i] != '"'; ++i)
        if (text[i] == '\\')
          ++i;
      break;
    case '[':
    case '{':
      ++values;
      if (++depth > bounds.depth)
        return malformed{"", "is nested deeper than " + std::to_string(bounds.depth)};
      break;
    case ']':
    case '}':
      if (depth > 0)
        --depth;
      break;
    case ',':
      if (++values > bounds.values)
        return malformed{"", "has more than " + std::to_string(bounds.values) + " values"};
      break;
    default:
      break;
    }
  }
  return std::nullopt;
}

/// The useful part of a parser's complaint, without the library's own prefix.
std::string reason_of(const json::exception& failure) {
  std::string_view text = failure.what();
  if (auto end = text.find("] "); end != std::string_view::npos)
    text.remove_prefix(end + 2);
  return "is not JSON: " + to_utf8(text.substr(0, 300));
}

} // namespace

decoded<json> parse_json(std::string_view text, const json_bounds& bounds) {
  if (auto why = beyond(text, bounds))
    return *why;
  try {
    return json::parse(text);
  } catch (const json::exception& failure) {
    return malformed{"", reason_of(failure)};
  }
}

std::string json_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string to_utf8(std::string_view data) {
  if (is_utf8(data))
    return std::string{data};
  std::string text;
  text.reserve(data.size() + 16);
  while (!data.empty()) {
    std::size_t length = sequence_length(data);
    if (length == 0)
      text += "\xEF\xBF\xBD";
    else
      text += data.substr(0, length);
    data.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return text;
}

} // namespace berth
