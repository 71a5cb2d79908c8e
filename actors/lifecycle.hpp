// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/server.hpp"

#include <optional>

namespace berth {

/// What happens to a slot.
enum class slot_event : std::uint8_t {
  /// A machine is asked for.
  fill,
  /// The guest said hello and what should be warm is warm.
  ready,
  /// A job or a session takes the machine.
  lease,
  /// A job starts in it.
  begin,
  /// The last job in it ended.
  done,
  /// The machine is to go.
  end,
  /// The machine died unasked.
  lost,
  /// Nothing of the machine exists any more.
  gone,
};
inline constexpr std::size_t slot_event_count = 8;

/// The life cycle of a slot: the state after an event, nothing when the event is not allowed then.
constexpr std::optional<slot_state> next(slot_state state, slot_event event) {
  switch (event) {
  case slot_event::fill:
    return state == slot_state::empty ? std::optional{slot_state::starting} : std::nullopt;
  case slot_event::ready:
    return state == slot_state::starting ? std::optional{slot_state::idle} : std::nullopt;
  case slot_event::lease:
    return state == slot_state::idle ? std::optional{slot_state::leased} : std::nullopt;
  case slot_event::begin:
    return state == slot_state::leased || state == slot_state::busy
               ? std::optional{slot_state::busy}
               : std::nullopt;
  case slot_event::done:
    return state == slot_state::busy ? std::optional{slot_state::leased} : std::nullopt;
  case slot_event::end:
  case slot_event::lost:
    return state == slot_state::empty ? std::nullopt : std::optional{slot_state::ending};
  case slot_event::gone:
    return state == slot_state::ending ? std::optional{slot_state::empty} : std::nullopt;
  }
  return std::nullopt;
}

} // namespace berth
