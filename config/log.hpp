// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

/// The log: one structured line an event on standard error, for example
/// `2026-01-31T12:00:00.123Z warn supervisor: machine lost slot=3 machine="vm-1a2b" why="killed"`.
/// Any thread may log.
namespace berth::log {

enum class level { debug, info, warn, error };

/// One named fact of a line. Its text may come from a client: it is escaped and cut.
using fact = std::pair<std::string_view, std::string>;

/// Sets the least level that is written, by name; false when there is no such level.
bool set_level(std::string_view name);

/// Writes one line: who speaks, what happened, and the facts of it.
void write(level how, std::string_view who, std::string_view what,
           std::initializer_list<fact> facts = {});

inline void debug(std::string_view who, std::string_view what,
                  std::initializer_list<fact> facts = {}) {
  write(level::debug, who, what, facts);
}
inline void info(std::string_view who, std::string_view what,
                 std::initializer_list<fact> facts = {}) {
  write(level::info, who, what, facts);
}
inline void warn(std::string_view who, std::string_view what,
                 std::initializer_list<fact> facts = {}) {
  write(level::warn, who, what, facts);
}
inline void error(std::string_view who, std::string_view what,
                  std::initializer_list<fact> facts = {}) {
  write(level::error, who, what, facts);
}

/// Text as it may stand in a line: control characters, quotes, backslashes and bytes that are not
/// UTF-8 are escaped; beyond `bytes_max` it is cut and marked with "...".
std::string escape(std::string_view text, std::size_t bytes_max = 512);

} // namespace berth::log
