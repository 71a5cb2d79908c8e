// SPDX-License-Identifier: Apache-2.0
#include "bench/samples.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace berth::bench {

double samples::quantile(double share) const {
  if (values_.empty())
    return 0;
  if (!sorted_) {
    std::ranges::sort(values_);
    sorted_ = true;
  }
  auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values_.size())));
  return values_[std::min(std::max<std::size_t>(rank, 1), values_.size()) - 1];
}

std::string samples::text() const {
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, "n=%zu min=%.3g p50=%.3g p99=%.3g max=%.3g", count(), min(),
                p50(), p99(), max());
  return buffer;
}

} // namespace berth::bench
