// SPDX-License-Identifier: Apache-2.0
#include "actors/lifecycle.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <set>

using namespace berth;

TEST_CASE("Every state of a slot meets every event as the life cycle says", "[lifecycle]") {
  using s = slot_state;
  using e = slot_event;
  // Whatever is not listed is not allowed.
  const std::map<std::pair<s, e>, s> allowed{
      {{s::empty, e::fill}, s::starting}, {{s::starting, e::ready}, s::idle},
      {{s::starting, e::end}, s::ending}, {{s::starting, e::lost}, s::ending},
      {{s::idle, e::lease}, s::leased},   {{s::idle, e::end}, s::ending},
      {{s::idle, e::lost}, s::ending},    {{s::leased, e::begin}, s::busy},
      {{s::leased, e::end}, s::ending},   {{s::leased, e::lost}, s::ending},
      {{s::busy, e::begin}, s::busy},     {{s::busy, e::done}, s::leased},
      {{s::busy, e::end}, s::ending},     {{s::busy, e::lost}, s::ending},
      {{s::ending, e::end}, s::ending},   {{s::ending, e::lost}, s::ending},
      {{s::ending, e::gone}, s::empty},
  };
  for (std::size_t state = 0; state < slot_state_names.size(); ++state)
    for (std::size_t event = 0; event < slot_event_count; ++event) {
      auto from = static_cast<s>(state);
      auto with = static_cast<e>(event);
      auto found = allowed.find({from, with});
      auto expected = found == allowed.end() ? std::nullopt : std::optional{found->second};
      INFO("state " << name_of(from) << ", event " << event);
      CHECK(next(from, with) == expected);
    }
}

TEST_CASE("From every state of a slot there is a way back to empty", "[lifecycle]") {
  for (std::size_t start = 0; start < slot_state_names.size(); ++start) {
    std::set<slot_state> seen{static_cast<slot_state>(start)};
    for (bool grown = true; grown;) {
      grown = false;
      for (slot_state state : std::set<slot_state>{seen})
        for (std::size_t event = 0; event < slot_event_count; ++event)
          if (auto to = next(state, static_cast<slot_event>(event)))
            grown = seen.insert(*to).second || grown;
    }
    CHECK(seen.contains(slot_state::empty));
  }
}
