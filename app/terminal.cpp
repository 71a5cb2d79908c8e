// SPDX-License-Identifier: Apache-2.0
#include "app/terminal.hpp"

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <unistd.h>

namespace berth::terminal {

namespace {

constexpr std::array<std::string_view, 7> codes{"",         "\x1b[1m",  "\x1b[2m", "\x1b[31m",
                                                "\x1b[32m", "\x1b[33m", "\x1b[36m"};

bool colourful(int fd) {
  const char* off = std::getenv("NO_COLOR");
  const char* kind = std::getenv("TERM");
  bool dumb = kind != nullptr && std::string_view{kind} == "dumb";
  return (off == nullptr || *off == '\0') && !dumb && ::isatty(fd) == 1;
}

/// Columns that a text takes: characters, not bytes.
std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

/// At most so many columns, the cut marked.
std::string fit(std::string_view text, std::size_t room) {
  if (columns(text) <= room)
    return std::string{text};
  std::string kept;
  std::size_t used = 0;
  for (char c : text) {
    bool begins = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (begins && used + 1 >= room)
      break;
    used += begins ? 1 : 0;
    kept += c;
  }
  return kept + "…";
}

std::string number(double value, const char* unit) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 10 ? "%.1f %s" : "%.0f %s", value, unit);
  return text.data();
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

} // namespace

std::string paint(tint how, std::string_view text, int fd) {
  if (how == tint::plain || !colourful(fd))
    return std::string{text};
  return std::string{codes[static_cast<std::size_t>(how)]} + std::string{text} + "\x1b[0m";
}

std::string clean(std::string_view text) {
  std::string shown;
  for (char c : text)
    shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  return shown;
}

std::string cut(std::string_view text) {
  std::size_t room = width();
  std::string kept;
  std::size_t used = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      std::size_t end = std::min(text.find('m', i), text.size() - 1);
      kept += text.substr(i, end + 1 - i);
      i = end;
      continue;
    }
    used += (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 ? 1 : 0;
    if (used <= room)
      kept += text[i];
  }
  return kept;
}

std::size_t width() {
  winsize size{};
  if (::isatty(1) == 1 && ::ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return std::numeric_limits<std::size_t>::max();
}

std::string duration(std::uint64_t microseconds) {
  auto value = static_cast<double>(microseconds);
  if (value < 1e6)
    return number(value / 1e3, "ms");
  if (value < 90e6)
    return number(value / 1e6, "s");
  if (value < 90 * 60e6)
    return number(value / 60e6, "min");
  if (value < 48 * 3600e6)
    return number(value / 3600e6, "h");
  return number(value / 86400e6, "d");
}

std::string size(std::uint64_t amount) {
  constexpr std::array<const char*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(amount);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit)
    value /= 1024;
  return unit == 0 ? std::to_string(amount) + " B" : number(value, units[unit]);
}

std::string moment(std::int64_t unix_ms) {
  if (unix_ms <= 0)
    return "-";
  std::time_t then = unix_ms / 1000;
  std::time_t now = now_ms() / 1000;
  std::tm when{};
  std::tm today{};
  ::localtime_r(&then, &when);
  ::localtime_r(&now, &today);
  bool same_day = when.tm_yday == today.tm_yday && when.tm_year == today.tm_year;
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M", &when);
  return text.data();
}

std::string age(std::int64_t unix_ms) {
  if (unix_ms <= 0)
    return "-";
  return duration(static_cast<std::uint64_t>(std::max<std::int64_t>(0, now_ms() - unix_ms)) * 1000);
}

void table::add(std::vector<std::string> cells, std::vector<tint> tints) {
  for (auto& cell : cells)
    cell = cell.empty() ? "-" : clean(cell);
  rows_.push_back({std::move(cells), std::move(tints)});
}

void table::print(std::string_view empty) const {
  if (rows_.empty()) {
    std::printf("%s\n", std::string{empty}.c_str());
    return;
  }
  std::vector<std::size_t> widths;
  for (const auto& name : head_)
    widths.push_back(columns(name));
  for (const auto& each : rows_)
    for (std::size_t i = 0; i < each.cells.size(); ++i)
      widths[i] = std::max(widths[i], columns(each.cells[i]));
  auto line = [&](const std::vector<std::string>& cells, const std::vector<tint>& tints) {
    std::string text;
    std::size_t room = width();
    for (std::size_t i = 0; i < cells.size() && room > 0; ++i) {
      bool last = i + 1 == cells.size();
      std::string cell = fit(cells[i], room);
      std::size_t used = columns(cell);
      std::size_t pad = last ? 0 : widths[i] - std::min(widths[i], used) + 2;
      text += paint(i < tints.size() ? tints[i] : tint::plain, cell) + std::string(pad, ' ');
      room -= std::min(room, used + pad);
    }
    std::printf("%s\n", text.c_str());
  };
  line(head_, std::vector<tint>(head_.size(), tint::bold));
  for (const auto& each : rows_)
    line(each.cells, each.tints);
}

int report(const std::string& why) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s %s\n", paint(tint::red, "berth:", 2).c_str(), why.c_str());
  return 125;
}

int report(const error& why) {
  refusal told = to_refusal(why);
  std::string text = told.detail.empty() ? told.name : told.detail;
  if (told.retry_after_ms.value_or(0) > 0)
    text += " (try again in " + duration(*told.retry_after_ms * std::uint64_t{1000}) + ")";
  return report(text);
}

} // namespace berth::terminal
