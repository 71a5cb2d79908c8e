// SPDX-License-Identifier: Apache-2.0
#include "bridge/json.hpp"

#include <array>
#include <cstring>

namespace berth {

namespace {

constexpr std::string_view base64_digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  if (c == '+' || c == '-')
    return 62;
  if (c == '/' || c == '_')
    return 63;
  return -1;
}

} // namespace

std::string to_base64(std::string_view data) {
  std::string text;
  text.reserve((data.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < data.size(); i += 3) {
    std::size_t count = std::min<std::size_t>(3, data.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (k < count ? static_cast<unsigned char>(data[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k)
      text += k <= count ? base64_digits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  while (!text.empty() && text.back() == '=')
    text.remove_suffix(1);
  if (text.size() % 4 == 1)
    return std::nullopt;
  std::string data;
  data.reserve(text.size() * 3 / 4);
  std::uint32_t group = 0;
  int bits = 0;
  for (char c : text) {
    int digit = base64_value(c);
    if (digit < 0)
      return std::nullopt;
    group = group << 6 | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      data += static_cast<char>(group >> bits & 0xFF);
    }
  }
  return data;
}

namespace detail {

std::string kind_of(const json& from) {
  switch (from.type()) {
  case json::value_t::null:
    return "null";
  case json::value_t::boolean:
    return "a boolean";
  case json::value_t::number_integer:
  case json::value_t::number_unsigned:
    return "a whole number";
  case json::value_t::number_float:
    return "a fraction";
  case json::value_t::string:
    return "text";
  case json::value_t::array:
    return "a list";
  case json::value_t::object:
    return "a map";
  default:
    return "bytes";
  }
}

json bytes_to_json(const bytes& value) {
  std::string_view data{value.data(), value.size()};
  if (is_utf8(data))
    return std::string{data};
  return json{{"base64", to_base64(data)}};
}

bool read_json_bytes(const json& from, bytes& to, malformed& why) {
  if (from.is_string()) {
    const auto& text = from.get_ref<const std::string&>();
    to.assign(text.begin(), text.end());
    return true;
  }
  auto encoded = from.is_object() ? from.find("base64") : from.end();
  if (!from.is_object() || encoded == from.end() || !encoded->is_string())
    return why.reason = "must be text or {\"base64\": text}, is " + kind_of(from), false;
  auto data = from_base64(encoded->get_ref<const std::string&>());
  if (!data) {
    why.reason = "is not base64";
    return within("base64", why);
  }
  to.assign(data->begin(), data->end());
  return true;
}

} // namespace detail

} // namespace berth
