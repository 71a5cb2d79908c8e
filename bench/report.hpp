// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/samples.hpp"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace berth::bench {

/// What a figure must be.
struct target {
  enum class relation { at_most, at_least };
  relation is = relation::at_most;
  double value = 0;

  bool met_by(double measured) const {
    return is == relation::at_most ? measured <= value : measured >= value;
  }
};

inline target at_most(double value) {
  return {target::relation::at_most, value};
}
inline target at_least(double value) {
  return {target::relation::at_least, value};
}

/// Everything measured in one run, and how it is shown: one table for people, one line of JSON for
/// programs.
class report {
public:
  /// Names the case that the next figures belong to.
  void begin(std::string name);
  /// One figure. `key` names it in the JSON, `what` in the table.
  void figure(std::string key, std::string what, double value, std::string unit,
              std::optional<target> wanted = {}, std::string note = {});
  /// All of a distribution for the JSON, without a line in the table.
  void distribution(const std::string& key, const samples& of);
  /// A line in the table instead of a figure.
  void note(std::string what, std::string text);
  /// The running case could not go on.
  void failed(const std::string& reason);
  /// A fact about the run as a whole.
  void fact(const std::string& key, nlohmann::json value) { facts_[key] = std::move(value); }
  bool has_fact(const std::string& key) const { return facts_.contains(key); }

  std::string table() const;
  std::string json_line() const;
  /// Whether no case failed and no figure missed its target.
  bool all_well() const;

private:
  struct line {
    std::string what;
    std::string measured;
    std::string wanted;
    std::string verdict;
  };

  std::string case_;
  std::vector<line> lines_;
  nlohmann::json facts_ = nlohmann::json::object();
  nlohmann::json figures_ = nlohmann::json::object();
  nlohmann::json missed_ = nlohmann::json::array();
  nlohmann::json failures_ = nlohmann::json::object();
};

} // namespace berth::bench
