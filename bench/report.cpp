// SPDX-License-Identifier: Apache-2.0
#include "bench/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace berth::bench {

namespace {

/// Three significant digits, whole numbers whole.
std::string number(double value) {
  char buffer[64];
  if (std::abs(value) >= 100 || value == std::floor(value))
    std::snprintf(buffer, sizeof buffer, "%.0f", value);
  else
    std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

double rounded(double value) {
  return std::round(value * 1e4) / 1e4;
}

std::string with_unit(double value, const std::string& unit) {
  return unit.empty() ? number(value) : number(value) + " " + unit;
}

std::string padded(std::string text, std::size_t width) {
  // Texts are ASCII, so bytes are columns.
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

} // namespace

void report::begin(std::string name) {
  case_ = std::move(name);
}

void report::figure(std::string key, std::string what, double value, std::string unit,
                    std::optional<target> wanted, std::string note) {
  line shown{
      .what = std::move(what), .measured = with_unit(value, unit), .wanted = "-", .verdict = "-"};
  std::string full = case_ + "." + key;
  figures_[full] = rounded(value);
  if (wanted) {
    bool met = wanted->met_by(value);
    shown.wanted =
        (wanted->is == target::relation::at_most ? "<= " : ">= ") + with_unit(wanted->value, unit);
    shown.verdict = met ? "ok" : "MISS";
    if (!met)
      missed_.push_back(full);
  }
  if (!note.empty())
    shown.verdict += "  " + note;
  lines_.push_back(std::move(shown));
}

void report::distribution(const std::string& key, const samples& of) {
  figures_[case_ + "." + key] = {{"n", of.count()},
                                 {"min", rounded(of.min())},
                                 {"p50", rounded(of.p50())},
                                 {"p99", rounded(of.p99())},
                                 {"max", rounded(of.max())}};
}

void report::note(std::string what, std::string text) {
  lines_.push_back({std::move(what), std::move(text), "-", "-"});
}

void report::failed(const std::string& reason) {
  failures_[case_] = reason;
  lines_.push_back({case_, "failed: " + reason, "", "MISS"});
}

std::string report::table() const {
  std::size_t what = 4, measured = 8, wanted = 6;
  for (const line& one : lines_) {
    what = std::max(what, one.what.size());
    wanted = std::max(wanted, one.wanted.size());
    if (one.measured.size() <= 24) // a reason may stand out
      measured = std::max(measured, one.measured.size());
  }
  auto row = [&](const line& one) {
    return padded(one.what, what) + "  " + padded(one.measured, measured) + "  "
           + padded(one.wanted, wanted) + "  " + one.verdict + "\n";
  };
  std::string all = row({"what", "measured", "target", ""});
  all += std::string(what + measured + wanted + 8, '-') + "\n";
  for (const line& one : lines_)
    all += row(one);
  return all;
}

std::string report::json_line() const {
  nlohmann::json all = facts_;
  all["figures"] = figures_;
  all["missed"] = missed_;
  all["failures"] = failures_;
  return all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool report::all_well() const {
  return missed_.empty() && failures_.empty();
}

} // namespace berth::bench
