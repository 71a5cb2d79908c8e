// SPDX-License-Identifier: Apache-2.0
#include "config/log.hpp"

#include "messages/codec.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace berth::log {

namespace {

spdlog::level::level_enum to_spdlog(level how) {
  switch (how) {
  case level::debug:
    return spdlog::level::debug;
  case level::info:
    return spdlog::level::info;
  case level::warn:
    return spdlog::level::warn;
  case level::error:
    return spdlog::level::err;
  }
  return spdlog::level::err;
}

/// The one logger: made at first use, never destroyed, so that threads may log while the process
/// ends.
spdlog::logger& out() {
  static auto* logger = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto* made = new spdlog::logger{"berth", sink};
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *logger;
}

void append_hex(std::string& to, unsigned char c) {
  constexpr char digits[] = "0123456789abcdef";
  to += "\\x";
  to += digits[c >> 4];
  to += digits[c & 15];
}

/// Whether a value can stand in a line without quotes.
bool is_plain(std::string_view text) {
  if (text.empty())
    return false;
  for (char c : text)
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7F)
      return false;
  return true;
}

} // namespace

bool set_level(std::string_view name) {
  constexpr std::pair<std::string_view, level> levels[] = {{"debug", level::debug},
                                                           {"info", level::info},
                                                           {"warn", level::warn},
                                                           {"error", level::error}};
  for (const auto& [text, how] : levels) {
    if (text != name)
      continue;
    out().set_level(to_spdlog(how));
    return true;
  }
  return false;
}

std::string escape(std::string_view text, std::size_t bytes_max) {
  bool cut = text.size() > bytes_max;
  if (cut) {
    text = text.substr(0, bytes_max);
    // Not in the middle of a character: drop what began and does not end here.
    std::size_t back = 0;
    while (back < 3 && back < text.size()
           && (static_cast<unsigned char>(text[text.size() - 1 - back]) & 0xC0) == 0x80)
      ++back;
    if (back < text.size() && static_cast<unsigned char>(text[text.size() - 1 - back]) >= 0xC0
        && !is_utf8(text.substr(text.size() - 1 - back)))
      text.remove_suffix(back + 1);
  }
  bool utf8 = is_utf8(text);
  std::string safe;
  safe.reserve(text.size() + 8);
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '\n')
      safe += "\\n";
    else if (c == '\t')
      safe += "\\t";
    else if (c == '\r')
      safe += "\\r";
    else if (c == '"' || c == '\\')
      safe += {'\\', c};
    else if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !utf8))
      append_hex(safe, byte);
    else
      safe += c;
  }
  if (cut)
    safe += "...";
  return safe;
}

void write(level how, std::string_view who, std::string_view what,
           std::initializer_list<fact> facts) {
  if (!out().should_log(to_spdlog(how)))
    return;
  std::string line{who};
  line += ": ";
  line += escape(what);
  for (const auto& [name, value] : facts) {
    line += ' ';
    line += name;
    line += '=';
    std::string safe = escape(value);
    if (is_plain(value) && safe == value)
      line += safe;
    else
      line += '"' + safe + '"';
  }
  out().log(to_spdlog(how), line);
}

} // namespace berth::log
