// SPDX-License-Identifier: Apache-2.0
#include "guest/kernel_words.hpp"

#include <cstring>

namespace berth::guest::kernel_words {

namespace {

/// Reads little-endian values; after one that is not there, everything is empty.
class reader {
public:
  explicit reader(std::span<const char> body)
    : left_(body) {}

  template <class T>
  T number() {
    T value{};
    if (left_.size() < sizeof value)
      return fail(), T{};
    std::memcpy(&value, left_.data(), sizeof value);
    left_ = left_.subspan(sizeof value);
    return value;
  }
  std::string_view text() {
    auto size = number<std::uint32_t>();
    if (size > left_.size())
      return fail(), std::string_view{};
    std::string_view found{left_.data(), size};
    left_ = left_.subspan(size);
    return found;
  }
  std::string_view rest() {
    std::string_view found{left_.data(), left_.size()};
    left_ = {};
    return found;
  }
  /// Whether everything was there and nothing is left.
  bool whole() const { return !failed_ && left_.empty(); }

private:
  void fail() {
    failed_ = true;
    left_ = {};
  }

  std::span<const char> left_;
  bool failed_ = false;
};

/// Text as the server takes it. What is not UTF-8, whole or by being cut, keeps its ASCII.
std::string clean(std::string_view text, std::size_t most = limits::frame_bytes_max) {
  std::string result{text.substr(0, most)};
  if (text.size() > most)
    while (!result.empty() && (result.back() & 0x80) != 0)
      result.pop_back();
  if (!is_utf8(result))
    for (char& c : result)
      if ((c & 0x80) != 0)
        c = '?';
  return result;
}

std::optional<word> read_shows(reader& from, std::size_t size) {
  shows word;
  word.size = size;
  word.result.is_main_result = from.number<std::uint8_t>() != 0;
  auto forms = from.number<std::uint16_t>();
  if (forms > forms_max)
    return std::nullopt;
  for (std::uint16_t i = 0; i < forms; ++i) {
    std::string mime = clean(from.text(), limits::name_bytes_max);
    word.result.data[std::move(mime)] = clean(from.text());
  }
  if (!from.whole())
    return std::nullopt;
  return word;
}

std::optional<word> read_ended(reader& from) {
  ended word;
  word.number = from.number<std::uint32_t>();
  word.status = from.number<std::int32_t>();
  word.count = from.number<std::uint32_t>();
  word.memory_peak_bytes = from.number<std::uint64_t>();
  if (from.number<std::uint8_t>() != 0) {
    cell_error error;
    error.name = clean(from.text(), limits::name_bytes_max);
    error.value = clean(from.text(), error_bytes_max);
    error.traceback = clean(from.text(), error_bytes_max);
    word.error = std::move(error);
  }
  if (!from.whole())
    return std::nullopt;
  return word;
}

template <class T>
void put(bytes& to, T value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  to.insert(to.end(), raw, raw + sizeof value);
}

/// A frame with this letter, whose body has `size` bytes more.
bytes frame(char letter, std::size_t size) {
  bytes to;
  to.reserve(5 + size);
  put(to, static_cast<std::uint32_t>(1 + size));
  to.push_back(letter);
  return to;
}

} // namespace

std::optional<word> read(std::span<const char> body) {
  reader from{body.subspan(1)};
  switch (body.front()) {
  case 'R': {
    ready said{static_cast<pid_t>(from.number<std::uint32_t>())};
    return from.whole() ? std::optional<word>{said} : std::nullopt;
  }
  case 'X':
    return failed{clean(from.rest(), error_bytes_max)};
  case 'P': {
    parked said{static_cast<pid_t>(from.number<std::uint32_t>())};
    return from.whole() ? std::optional<word>{said} : std::nullopt;
  }
  case 'f':
    return rests{clean(from.rest(), limits::name_bytes_max)};
  case 't':
    return goes_on{};
  case 'D':
    return read_shows(from, body.size());
  case 'L':
    from.number<std::uint8_t>();
    from.number<std::uint16_t>();
    return shows_too_much{from.number<std::uint64_t>()};
  case 'E':
    return read_ended(from);
  default:
    return std::nullopt;
  }
}

bytes run_cell(std::uint32_t number, bool stdin_open, std::string_view code, bool code_in_file) {
  std::string_view here = code_in_file ? std::string_view{} : code;
  bytes to = frame('C', sizeof number + 1 + here.size());
  put(to, number);
  to.push_back(static_cast<char>((stdin_open ? 1 : 0) | (code_in_file ? 2 : 0)));
  to.insert(to.end(), here.begin(), here.end());
  return to;
}

bytes interrupt(std::uint32_t number) {
  bytes to = frame('I', sizeof number);
  put(to, number);
  return to;
}

bytes freeze(std::uint64_t checkpoint) {
  bytes to = frame('F', sizeof checkpoint);
  put(to, checkpoint);
  return to;
}

bytes thaw() {
  return frame('T', 0);
}

} // namespace berth::guest::kernel_words
