// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/progress.hpp"

#include <string>
#include <utility>

namespace berth {

/// Picks the events of one chat out of its conversation's stream, where turns of others may be
/// before it and after it. Plain logic.
class own_turn {
public:
  own_turn() = default;
  explicit own_turn(std::string id)
    : id_(std::move(id)) {}

  /// Whether an event is of the turn. Without a name every event is.
  bool has(const progress_event& event) {
    if (id_.empty())
      return true;
    if (event.kind == progress_kind::started)
      is_at_it_ = event.turn == id_;
    bool is_own = is_at_it_;
    if (event.kind == progress_kind::ended) {
      ended_ = ended_ || event.turn == id_;
      is_at_it_ = false;
    }
    return is_own;
  }

  /// Events were lost; its start may be among them.
  void on_gap() { is_at_it_ = !ended_; }

  /// Whether its end was seen.
  bool ended() const { return ended_; }

private:
  std::string id_;
  bool is_at_it_ = false;
  bool ended_ = false;
};

} // namespace berth
