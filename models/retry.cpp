// SPDX-License-Identifier: Apache-2.0
#include "models/retry.hpp"

#include <algorithm>
#include <cmath>

namespace berth::models {

std::optional<std::chrono::milliseconds> retry_delay(const failed_attempt& failed,
                                                     std::uint32_t attempts_max, double chance) {
  using std::chrono::milliseconds;
  bool server = failed.end == attempt_end::refused
                && (failed.status == 429 || (failed.status >= 500 && failed.status <= 599));
  if (failed.passed_on || failed.attempts >= attempts_max
      || (failed.end != attempt_end::network && !server))
    return std::nullopt;
  auto longest = static_cast<double>(limits::model_retry_delay_max.count());
  double whole = static_cast<double>(limits::model_retry_delay_min.count())
                 * std::exp2(static_cast<double>(std::min(failed.attempts, 32U)) - 1);
  double spread = std::min(whole, longest) * (0.5 + std::clamp(chance, 0.0, 1.0) / 2);
  milliseconds pause{static_cast<std::int64_t>(spread)};
  if (failed.retry_after && *failed.retry_after > limits::model_retry_delay_max)
    return std::nullopt;
  pause = std::max(pause, failed.retry_after.value_or(milliseconds{0}));
  if (pause >= failed.time_left)
    return std::nullopt;
  return pause;
}

} // namespace berth::models
