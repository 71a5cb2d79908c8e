// SPDX-License-Identifier: Apache-2.0
#include "actors/ids.hpp"

#include <sys/random.h>

#include <array>
#include <chrono>
#include <cstdlib>

namespace berth {

namespace {

/// Bytes of the kernel's generator, fetched in blocks: one system call for many ids.
class random_source {
public:
  std::uint8_t byte() {
    if (used_ == block_.size()) {
      if (getrandom(block_.data(), block_.size(), 0) != static_cast<ssize_t>(block_.size()))
        std::abort(); // cannot happen once the kernel's generator is seeded
      used_ = 0;
    }
    return block_[used_++];
  }

private:
  std::array<std::uint8_t, 256> block_{};
  std::size_t used_ = block_.size();
};

thread_local random_source source;

void append_hex(std::string& text, std::uint8_t byte) {
  static constexpr char digits[] = "0123456789abcdef";
  text += digits[byte >> 4];
  text += digits[byte & 15];
}

} // namespace

std::string new_job_id() {
  std::array<std::uint8_t, 16> id{};
  auto now = static_cast<std::uint64_t>(unix_ms());
  for (std::size_t i = 0; i < 6; ++i)
    id[i] = static_cast<std::uint8_t>(now >> (40 - 8 * i));
  for (std::size_t i = 6; i < id.size(); ++i)
    id[i] = source.byte();
  id[6] = static_cast<std::uint8_t>(0x70 | (id[6] & 0x0F));
  id[8] = static_cast<std::uint8_t>(0x80 | (id[8] & 0x3F));
  std::string text;
  for (std::size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      text += '-';
    append_hex(text, id[i]);
  }
  return text;
}

std::string new_hex_id() {
  std::string text;
  for (int i = 0; i < 6; ++i)
    append_hex(text, source.byte());
  return text;
}

std::string machine_of_session(std::string_view session) {
  return "vm-" + std::string{session.substr(session.find('-') + 1)};
}

std::string session_of_machine(std::string_view machine) {
  return "s-" + std::string{machine.substr(machine.find('-') + 1)};
}

std::int64_t unix_ms() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

} // namespace berth
