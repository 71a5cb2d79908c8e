// SPDX-License-Identifier: Apache-2.0
#include "actors/rush_meter.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace std::chrono_literals;

namespace {

/// Requests at an even pace; how many of them began a rush.
int begun(rush_meter& meter, rush_meter::time& now, std::chrono::microseconds apart, int count) {
  int rushes = 0;
  for (int i = 0; i < count; ++i, now += apart)
    rushes += meter.note(now);
  return rushes;
}

} // namespace

TEST_CASE("ten thousand requests a second are a rush, five thousand are none") {
  rush_meter::time now{1h};
  rush_meter slow;
  CHECK(begun(slow, now, 200us, 20'000) == 0);
  rush_meter fast;
  CHECK(begun(fast, now, 95us, 20'000) == 1);
  CHECK(fast.is_rush());
}

TEST_CASE("a rush is over when requests come slowly, or not at all") {
  rush_meter::time now{1h};
  rush_meter meter;
  begun(meter, now, 20us, 2'000);
  CHECK_FALSE(meter.ends(now));
  begun(meter, now, 10ms, 15);
  CHECK_FALSE(meter.ends(now));
  begun(meter, now, 10ms, 10);
  CHECK(meter.ends(now));
  CHECK_FALSE(meter.is_rush());
  CHECK_FALSE(meter.ends(now));
  CHECK(begun(meter, now, 20us, 2'000) == 1);
}
