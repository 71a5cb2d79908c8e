// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace berth::bench {

/// Times of one thing done many times, in milliseconds.
class samples {
public:
  void add(double ms) {
    values_.push_back(ms);
    sorted_ = false;
  }
  std::size_t count() const { return values_.size(); }
  /// The smallest value that at least `share` (0 to 1) of all values do not exceed; 0 without
  /// values.
  double quantile(double share) const;
  double min() const { return quantile(0); }
  double p50() const { return quantile(0.5); }
  double p99() const { return quantile(0.99); }
  double max() const { return quantile(1); }
  /// For a note: count, min, p50, p99, max.
  std::string text() const;

private:
  mutable std::vector<double> values_;
  mutable bool sorted_ = true;
};

} // namespace berth::bench
