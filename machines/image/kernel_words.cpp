// SPDX-License-Identifier: Apache-2.0
#include "machines/image/image.hpp"

#include <cstdint>
#include <ctime>
#include <x86intrin.h>

namespace berth::machines {

namespace {

/// A moment by the processor's counter and by the kernel's clock.
struct moment {
  std::uint64_t ticks = 0;
  std::int64_t ns = 0;
};

/// How often a moment is taken; the one during which the least else happened counts.
constexpr int tries = 50;
constexpr timespec between{.tv_sec = 0, .tv_nsec = 20'000'000};
/// Measured twice it is the same number of these.
constexpr std::uint64_t step_khz = 100;

moment take_moment() {
  moment best;
  std::uint64_t shortest = UINT64_MAX;
  for (int i = 0; i < tries; ++i) {
    timespec now{};
    std::uint64_t before = __rdtsc();
    ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    std::uint64_t after = __rdtsc();
    if (after - before >= shortest)
      continue;
    shortest = after - before;
    best = {before + shortest / 2, std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec};
  }
  return best;
}

std::uint64_t measure_tsc_khz() {
  moment first = take_moment();
  ::nanosleep(&between, nullptr);
  moment second = take_moment();
  auto ns = static_cast<double>(second.ns - first.ns);
  auto khz = static_cast<std::uint64_t>(static_cast<double>(second.ticks - first.ticks) * 1e6 / ns);
  return (khz + step_khz / 2) / step_khz * step_khz;
}

} // namespace

std::string kernel_words(const image_manifest& manifest, bool emulated) {
  if (manifest.kernel_origin != "debian" || !emulated)
    return manifest.command_line;
  static const std::uint64_t khz = measure_tsc_khz();
  return manifest.command_line + (manifest.command_line.empty() ? "" : " ") + "tsc=reliable"
         + " tsc_early_khz=" + std::to_string(khz);
}

} // namespace berth::machines
