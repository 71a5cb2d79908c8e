// SPDX-License-Identifier: Apache-2.0
#include "messages/path_text.hpp"

#include "messages/codec.hpp"

#include <algorithm>

namespace berth {

namespace {

/// U+10FF80 to U+10FFFF begin with these two bytes; the other two hold the byte that is meant.
constexpr std::string_view escape_head = "\xF4\x8F";
constexpr std::size_t escape_size = 4;

unsigned char at(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

bool is_escape(std::string_view text) {
  return text.size() >= escape_size && text.starts_with(escape_head)
         && (at(text, 2) == 0xBE || at(text, 2) == 0xBF) && (at(text, 3) & 0xC0) == 0x80;
}

/// Bytes of the UTF-8 character that a text begins with; 0 when it begins with none, or with one
/// that stands for a byte.
std::size_t plain_character(std::string_view text) {
  unsigned char first = at(text, 0);
  std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0x80 ? 2 : 1;
  return size <= text.size() && is_utf8(text.substr(0, size)) && !is_escape(text) ? size : 0;
}

} // namespace

std::string path_to_text(std::string_view path) {
  std::string text;
  text.reserve(path.size());
  while (!path.empty()) {
    std::size_t size = plain_character(path);
    if (size > 0) {
      text += path.substr(0, size);
    } else {
      unsigned char byte = at(path, 0);
      text += escape_head;
      text += static_cast<char>(0xBE + ((byte >> 6) & 1));
      text += static_cast<char>(0x80 | (byte & 0x3F));
    }
    path.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return text;
}

std::string text_to_path(std::string_view text) {
  std::string path;
  path.reserve(text.size());
  while (!text.empty()) {
    bool escaped = is_escape(text);
    if (escaped)
      path += static_cast<char>(0x80 | ((at(text, 2) & 1) << 6) | (at(text, 3) & 0x3F));
    else
      path += text.front();
    text.remove_prefix(escaped ? escape_size : 1);
  }
  return path;
}

} // namespace berth
