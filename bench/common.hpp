// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>

/// What every part of the bench uses. The bench reports a failing case and goes on with the others,
/// so here a failure is an exception.
namespace berth::bench {

using clock = std::chrono::steady_clock;
using milliseconds = std::chrono::milliseconds;

/// A case cannot go on; the text says why.
class failure : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/// The user wants an end.
class interrupted : public std::exception {
public:
  const char* what() const noexcept override { return "interrupted"; }
};

/// Set by SIGINT and SIGTERM.
inline std::atomic<bool> stop_wanted = false;

/// Throws when the user wants an end; every loop and every wait calls it.
inline void check_stop() {
  if (stop_wanted.load(std::memory_order_relaxed))
    throw interrupted{};
}

/// Sleeps, but not beyond an interrupt.
void pause_for(std::chrono::microseconds time);

inline double ms_between(clock::time_point from, clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}
inline double ms_since(clock::time_point from) {
  return ms_between(from, clock::now());
}

} // namespace berth::bench
