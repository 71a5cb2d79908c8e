// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/client.hpp"
#include "bench/samples.hpp"

#include <string_view>

namespace berth::bench {

/// Between jobs, as between two thoughts of an agent: the pool may use it.
inline constexpr milliseconds thinking_time{10};

/// Runs a program in a fresh machine, checks its output, returns the time that the client saw, ms.
inline double timed_run(client& with, const json& body, std::string_view output) {
  auto begin = clock::now();
  auto ended = with.call<outcome>("run", body);
  double ms = ms_since(begin);
  expect_output(ended, output);
  return ms;
}

} // namespace berth::bench
