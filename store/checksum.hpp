// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>

namespace berth {

/// A 64-bit checksum of parts, their lengths included. Finds damage, not malice: any change inside
/// one aligned word of eight bytes is found for certain, others but for one in 2^64.
inline std::uint64_t checksum(std::initializer_list<std::span<const char>> parts) {
  constexpr std::uint64_t odd = 0x9E3779B97F4A7C15;
  std::uint64_t sum = 0x62657274682F3176; // "berth/1v"
  auto add = [&](std::uint64_t word) {
    sum = (sum ^ word) * odd;
    sum ^= sum >> 29;
  };
  for (std::span<const char> part : parts) {
    add(part.size());
    std::size_t i = 0;
    for (; i + 8 <= part.size(); i += 8) {
      std::uint64_t word;
      std::memcpy(&word, part.data() + i, 8);
      add(word);
    }
    if (i < part.size()) {
      std::uint64_t word = 0;
      std::memcpy(&word, part.data() + i, part.size() - i);
      add(word);
    }
  }
  return sum;
}

} // namespace berth
