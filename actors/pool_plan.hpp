// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace berth {

/// How many machines stand ready for each language, and which to start next. Follows demand: a
/// language that was asked for keeps as many ready as were in use at once lately. Plain logic.
class pool_plan {
public:
  /// What the pool has of one flavour (a language kept warm, or "" for a plain machine).
  struct stock {
    std::uint32_t idle = 0;
    std::uint32_t starting = 0;
    /// One-shot jobs of this language that wait for a machine.
    std::uint32_t waiting = 0;
  };

  pool_plan(std::map<std::string, std::uint32_t> base, std::uint32_t warm_max,
            std::uint32_t starting_max)
    : base_(std::move(base))
    , warm_max_(warm_max)
    , starting_max_(starting_max) {}

  /// Notes how many jobs of a language are alive at once.
  void note_demand(const std::string& language, std::uint32_t alive) {
    double& level = demand_[language];
    level = std::max(level, static_cast<double>(alive));
  }

  /// Lets demand fade; call once a second.
  void fade() {
    for (auto& [language, level] : demand_)
      level *= fade_per_second;
  }

  /// Machines that should stand ready, or be on their way, for a flavour.
  std::uint32_t target(const std::string& flavour) const {
    auto base = base_.find(flavour);
    auto seen = demand_.find(flavour);
    std::uint32_t wanted = base == base_.end() ? 0 : base->second;
    if (seen != demand_.end())
      wanted = std::max(wanted, static_cast<std::uint32_t>(std::lround(seen->second)));
    return std::min(wanted, warm_max_);
  }

  /// Flavours to start now, most urgent first, at most `room` of them. `hurry` tops up to the
  /// target; without it only what is missing for waiting jobs or wholly out of stock is started, so
  /// that a running job does not share its CPU with a refill. Flavours that `may_start` refuses are
  /// left out, and take nobody's place.
  std::vector<std::string> to_start(
      const std::map<std::string, stock>& stocks, std::uint32_t room, bool hurry,
      const std::function<bool(const std::string&)>& may_start = [](const auto&) {
        return true;
      }) const {
    std::vector<std::string> chosen;
    std::uint32_t starting = 0;
    for (const auto& [flavour, s] : stocks)
      starting += s.starting;
    auto allowed = [&] { return chosen.size() < room && starting + chosen.size() < starting_max_; };
    for (const auto& [flavour, s] : stocks)
      for (std::uint32_t n = s.starting; n < s.waiting && allowed() && may_start(flavour); ++n)
        chosen.push_back(flavour);
    auto flavours = base_;
    for (const auto& [flavour, level] : demand_)
      flavours.try_emplace(flavour, 0);
    for (const auto& [flavour, unused] : flavours) {
      auto found = stocks.find(flavour);
      stock s = found == stocks.end() ? stock{} : found->second;
      std::uint32_t spare = s.idle + std::max(s.starting, s.waiting) - s.waiting;
      if ((!hurry && spare > 0) || !may_start(flavour))
        continue;
      for (; spare < target(flavour) && allowed(); ++spare)
        chosen.push_back(flavour);
    }
    return chosen;
  }

  /// Flavours of which a machine stands ready that demand no longer asks for; one each, so that a
  /// pool shrinks as slowly as demand fades.
  std::vector<std::string> to_end(const std::map<std::string, stock>& stocks) const {
    std::vector<std::string> chosen;
    for (const auto& [flavour, s] : stocks)
      if (s.waiting == 0 && s.idle + s.starting > target(flavour) && s.idle > 0)
        chosen.push_back(flavour);
    return chosen;
  }

private:
  static constexpr double fade_per_second = 0.93;

  std::map<std::string, std::uint32_t> base_;
  std::map<std::string, double> demand_;
  std::uint32_t warm_max_;
  std::uint32_t starting_max_;
};

} // namespace berth
