// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_shape.hpp"

#include <string_view>

namespace berth::machines {

namespace {

/// FNV-1a: names must differ, nobody attacks them.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  for (unsigned char each : text)
    seed = (seed ^ each) * 0x100000001b3ULL;
  // A part's end counts, or "ab","c" were "a","bc".
  return (seed ^ 0xff) * 0x100000001b3ULL;
}

} // namespace

const char* name_of(accelerator which) {
  return which == accelerator::kvm ? "kvm" : "tcg";
}

std::string key_of(const std::vector<std::string>& texts) {
  std::uint64_t sum = 0xcbf29ce484222325ULL;
  for (const auto& one : texts)
    sum = hash(one, sum);
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4)
    text += "0123456789abcdef"[sum >> shift & 15];
  return text;
}

} // namespace berth::machines
