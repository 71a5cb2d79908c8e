// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// How the command line speaks: tables that fit, colours where they belong, numbers for humans.
namespace berth::terminal {

enum class tint { plain, bold, dim, red, green, yellow, cyan };

/// Text in a colour, when `fd` is a terminal and NO_COLOR is not set.
std::string paint(tint how, std::string_view text, int fd = 1);

/// Text of others as it may be shown: on one line, without control characters.
std::string clean(std::string_view text);

/// A line as far as the terminal is wide; colours in it take no room.
std::string cut(std::string_view text);

/// Columns of the terminal; without one, as wide as it takes.
std::size_t width();

/// 850 ms, 3.2 s, 5 min, 2 h, 3 d.
std::string duration(std::uint64_t microseconds);
/// 512 B, 1.5 MiB.
std::string size(std::uint64_t amount);
/// Clock time of today, else the date with it; local time.
std::string moment(std::int64_t unix_ms);
/// How long ago.
std::string age(std::int64_t unix_ms);

/// Rows under a head, aligned; the last column is cut where the terminal ends.
class table {
public:
  explicit table(std::vector<std::string> head)
    : head_(std::move(head)) {}
  void add(std::vector<std::string> cells, std::vector<tint> tints = {});
  /// Writes it to standard output, or `empty` when there are no rows.
  void print(std::string_view empty) const;

private:
  struct row {
    std::vector<std::string> cells;
    std::vector<tint> tints;
  };
  std::vector<std::string> head_;
  std::vector<row> rows_;
};

/// Says on standard error what went wrong. Returns Berth's own exit code, 125.
int report(const error& why);
int report(const std::string& why);

} // namespace berth::terminal
