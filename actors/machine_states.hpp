// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace berth {

/// The saved states that a living machine still has, by the numbers it knows them by, and how they
/// descend from each other: going back and on again makes branches. Plain logic.
class machine_states {
public:
  struct point {
    std::string state;
    /// The state that this one was made from; 0: the machine as it began.
    std::uint64_t parent = 0;
    /// Whether interpreters were asked to park copies, and those that did.
    bool memory = false;
    std::vector<std::string> contexts;
  };

  /// A number that was never used in this machine.
  std::uint64_t next_number() { return ++last_number_; }

  /// The machine stands at a new state, made from where it stood.
  void add(std::uint64_t number, point made) {
    made.parent = present_;
    last_number_ = std::max(last_number_, number);
    points_[number] = std::move(made);
    present_ = number;
  }

  /// The machine went back to a state.
  void go_to(std::uint64_t number) {
    if (points_.contains(number))
      present_ = number;
  }

  /// A state is no longer in the machine. The one where it stands cannot go.
  void drop(std::uint64_t number) {
    auto found = points_.find(number);
    if (found == points_.end() || number == present_)
      return;
    for (auto& [other, each] : points_)
      if (each.parent == number)
        each.parent = found->second.parent;
    points_.erase(found);
  }

  /// Interpreters parked under a number are gone.
  void drop_memory(std::uint64_t number) {
    if (auto found = points_.find(number); found != points_.end()) {
      found->second.memory = false;
      found->second.contexts.clear();
    }
  }

  /// The number of a state; nothing when the machine has it no more.
  std::optional<std::uint64_t> number_of(const std::string& state) const {
    for (const auto& [number, each] : points_)
      if (each.state == state)
        return number;
    return std::nullopt;
  }

  const point* find(std::uint64_t number) const {
    auto found = points_.find(number);
    return found == points_.end() ? nullptr : &found->second;
  }

  /// The state where the machine stands, or stood last before what ran since; 0: its beginning.
  std::uint64_t present() const { return present_; }
  const std::map<std::uint64_t, point>& all() const { return points_; }

  /// What a state descends from, nearest first.
  std::vector<std::uint64_t> ancestors(std::uint64_t number) const {
    std::vector<std::uint64_t> line;
    const point* at = find(number);
    while (at != nullptr && at->parent != 0 && line.size() < points_.size()) {
      line.push_back(at->parent);
      at = find(at->parent);
    }
    return line;
  }

  /// What may go.
  struct surplus {
    std::vector<std::uint64_t> states;
    std::vector<std::uint64_t> memories;
  };

  /// What is more than a machine should hold: states that nobody keeps; beyond `states_max` the
  /// oldest of those that `may_go`; beyond `copies_max` parked interpreters, the oldest first.
  template <class Keeps, class MayGo>
  surplus too_many(Keeps keeps, MayGo may_go, std::size_t states_max,
                   std::size_t copies_max) const {
    surplus over;
    std::set<std::uint64_t> left;
    for (const auto& [number, each] : points_)
      if (number == present_ || keeps(number, each))
        left.insert(number);
      else
        over.states.push_back(number);
    for (const auto& [number, each] : points_)
      if (left.size() > states_max && left.contains(number) && number != present_
          && may_go(number, each)) {
        over.states.push_back(number);
        left.erase(number);
      }
    std::size_t copies = 0;
    for (std::uint64_t number : left)
      copies += points_.at(number).contexts.size();
    for (std::uint64_t number : left) {
      std::size_t held = points_.at(number).contexts.size();
      if (copies <= copies_max)
        break;
      if (held == 0)
        continue;
      over.memories.push_back(number);
      copies -= held;
    }
    return over;
  }

private:
  std::map<std::uint64_t, point> points_;
  std::uint64_t present_ = 0;
  std::uint64_t last_number_ = 0;
};

} // namespace berth
