// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace berth {

/// Tells a rush of requests from a trickle. In a rush it is worth more that threads take what waits
/// in batches than that each is woken at once. Plain logic.
class rush_meter {
public:
  using time = std::chrono::steady_clock::time_point;

  /// So many requests in so short a time are a rush: 10,000 a second.
  static constexpr std::uint32_t window_requests = 512;
  static constexpr std::chrono::milliseconds window{51};
  /// How often to look whether a rush is over.
  static constexpr std::chrono::milliseconds look_again{200};

  /// Notes a request. True: a rush begins with it.
  bool note(time now) {
    if (now - window_began_ > window) {
      window_began_ = now;
      in_window_ = 0;
    }
    if (++in_window_ < window_requests)
      return false;
    window_began_ = now;
    in_window_ = 0;
    last_full_ = now;
    bool begins = !is_rush_;
    is_rush_ = true;
    return begins;
  }

  /// Looks whether a rush is over. True: it is, since now.
  bool ends(time now) {
    if (!is_rush_ || now - last_full_ < look_again)
      return false;
    is_rush_ = false;
    return true;
  }

  bool is_rush() const { return is_rush_; }

private:
  time window_began_{};
  time last_full_{};
  std::uint32_t in_window_ = 0;
  bool is_rush_ = false;
};

} // namespace berth
