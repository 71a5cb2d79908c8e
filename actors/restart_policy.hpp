// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>

namespace berth {

/// When a lost machine may be replaced. Machines that die before a job could use them are failures:
/// each failure in a row doubles the pause before the next start, and too many within a minute open
/// a breaker that lets nothing start for a while. Plain logic; time is an argument.
class restart_policy {
public:
  using time_point = std::chrono::steady_clock::time_point;
  using duration = std::chrono::steady_clock::duration;

  static constexpr std::chrono::seconds window{60};

  explicit restart_policy(std::uint32_t failures_per_minute_max)
    : failures_max_(failures_per_minute_max) {}

  /// A machine died before it served.
  void on_failure(time_point now) {
    failures_.push_back(now);
    forget(now);
    auto pause = std::chrono::duration_cast<duration>(limits::restart_delay_min)
                 * (1u << std::min(in_a_row_, 10u));
    not_before_ = now + std::min<duration>(pause, limits::restart_delay_max);
    ++in_a_row_;
    if (failures_.size() > failures_max_)
      breaker_until_ = now + limits::breaker_open_time;
  }

  /// A machine came up.
  void on_success() {
    in_a_row_ = 0;
    not_before_ = {};
  }

  /// Whether a machine may be started now.
  bool may_start(time_point now) const { return now >= not_before_ && now >= breaker_until_; }

  /// Whether the breaker is open.
  bool breaker_open(time_point now) const { return now < breaker_until_; }

  /// How long until a start is allowed; zero when it is.
  duration wait(time_point now) const {
    return std::max({duration::zero(), not_before_ - now, breaker_until_ - now});
  }

private:
  void forget(time_point now) {
    while (!failures_.empty() && failures_.front() + window < now)
      failures_.pop_front();
    while (failures_.size() > failures_max_ + 1u)
      failures_.pop_front();
  }

  std::uint32_t failures_max_;
  std::uint32_t in_a_row_ = 0;
  std::deque<time_point> failures_;
  time_point not_before_{};
  time_point breaker_until_{};
};

} // namespace berth
