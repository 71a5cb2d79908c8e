// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace berth::models {

/// Who may use an endpoint's places, and who waits for one. Askers take turns, however many calls
/// each of them has: the next place is for the asker that has the fewest, among equals for the one
/// that was served longest ago. Calls of one asker keep their order.
class fair_queue {
public:
  using ticket = std::uint64_t;
  enum class entry { go, wait, full };

  fair_queue(std::size_t places, std::size_t waiting_max)
    : places_(places)
    , waiting_max_(waiting_max) {}

  /// A call comes. `go`: it has a place at once.
  entry enter(const std::string& asker, ticket call);

  /// The asker's call left its place. The call that has it now, if one waited.
  std::optional<ticket> leave(const std::string& asker);

  /// Takes out a call that waits. False when it does not.
  bool forget(const std::string& asker, ticket call);

  std::size_t running() const { return running_; }
  std::size_t waiting() const { return waiting_; }

private:
  struct line {
    std::deque<ticket> calls;
    std::size_t running = 0;
    std::uint64_t served = 0;
  };

  void give_place(line& to);
  line& line_of(const std::string& asker);
  void drop_if_empty(const std::string& asker);

  std::size_t places_;
  std::size_t waiting_max_;
  std::size_t running_ = 0;
  std::size_t waiting_ = 0;
  std::uint64_t turns_ = 0;
  std::map<std::string, line> lines_;
};

} // namespace berth::models
