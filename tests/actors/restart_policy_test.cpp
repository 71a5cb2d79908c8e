// SPDX-License-Identifier: Apache-2.0
#include "actors/restart_policy.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace std::chrono_literals;

namespace {

const restart_policy::time_point start{std::chrono::hours{1}};

} // namespace

TEST_CASE("Each failure in a row doubles the pause, up to its bound", "[restart]") {
  restart_policy policy{1000};
  auto now = start;
  auto pause = std::chrono::duration_cast<restart_policy::duration>(limits::restart_delay_min);
  for (int failure = 0; failure < 12; ++failure) {
    policy.on_failure(now);
    CHECK_FALSE(policy.may_start(now));
    CHECK(policy.wait(now) == std::min<restart_policy::duration>(pause, limits::restart_delay_max));
    now += policy.wait(now);
    CHECK(policy.may_start(now));
    pause *= 2;
  }
}

TEST_CASE("A machine that comes up ends the row of failures", "[restart]") {
  restart_policy policy{1000};
  for (int failure = 0; failure < 5; ++failure)
    policy.on_failure(start);
  policy.on_success();
  CHECK(policy.may_start(start));
  policy.on_failure(start);
  CHECK(policy.wait(start) == limits::restart_delay_min);
}

TEST_CASE("Too many failures within a minute open the breaker for a while", "[restart]") {
  restart_policy policy{3};
  auto now = start;
  for (int failure = 0; failure < 3; ++failure)
    policy.on_failure(now += 1s);
  CHECK_FALSE(policy.breaker_open(now));
  policy.on_failure(now += 1s);
  CHECK(policy.breaker_open(now));
  CHECK_FALSE(policy.may_start(now));
  now += limits::breaker_open_time;
  CHECK_FALSE(policy.breaker_open(now));
  CHECK(policy.may_start(now));
}

TEST_CASE("Failures that are a minute apart never open the breaker", "[restart]") {
  restart_policy policy{2};
  auto now = start;
  for (int failure = 0; failure < 50; ++failure) {
    policy.on_failure(now += 61s);
    CHECK_FALSE(policy.breaker_open(now));
  }
}
