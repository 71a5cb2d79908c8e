// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "models/retry.hpp"

using namespace berth;
using namespace berth::models;
using namespace std::chrono_literals;

namespace {

constexpr attempt_end all_ends[] = {
    attempt_end::answered, attempt_end::network,   attempt_end::refused,
    attempt_end::broken,   attempt_end::too_large, attempt_end::silence,
    attempt_end::deadline, attempt_end::hopeless,  attempt_end::cancelled};

failed_attempt failed(attempt_end end, int status = 0) {
  return {.end = end, .status = status, .attempts = 1, .time_left = 1h};
}

} // namespace

TEST_CASE("Only the network, a server's own fault and too many requests are tried again") {
  for (attempt_end end : all_ends)
    for (int status = 0; status < 700; ++status) {
      bool again = retry_delay(failed(end, status), 3, 0.5).has_value();
      bool server = status == 429 || (status >= 500 && status <= 599);
      bool wanted = end == attempt_end::network || (end == attempt_end::refused && server);
      CAPTURE(static_cast<int>(end), status);
      REQUIRE(again == wanted);
    }
}

TEST_CASE("Nothing is tried again when a piece of its answer was passed on") {
  for (attempt_end end : all_ends)
    for (int status : {0, 200, 429, 500, 503}) {
      failed_attempt one = failed(end, status);
      one.passed_on = true;
      REQUIRE_FALSE(retry_delay(one, 10, 0));
    }
}

TEST_CASE("A call is tried at most as often as the settings say") {
  for (std::uint32_t most = 1; most <= 10; ++most)
    for (std::uint32_t made = 1; made <= 12; ++made) {
      failed_attempt one = failed(attempt_end::network);
      one.attempts = made;
      CHECK(retry_delay(one, most, 0).has_value() == (made < most));
    }
}

TEST_CASE("Pauses double up to a bound, spread over their second half") {
  auto whole = limits::model_retry_delay_min;
  for (std::uint32_t made = 1; made < 70; ++made) {
    failed_attempt one = failed(attempt_end::network);
    one.attempts = made;
    CAPTURE(made);
    CHECK(retry_delay(one, 100, 0) == whole / 2);
    CHECK(retry_delay(one, 100, 1) == whole);
    CHECK(retry_delay(one, 100, 7) == whole);
    CHECK(retry_delay(one, 100, -7) == whole / 2);
    whole = std::min(whole * 2, limits::model_retry_delay_max);
  }
}

TEST_CASE("Retry-After is a lower bound, and one beyond the longest pause ends the call") {
  failed_attempt one = failed(attempt_end::refused, 429);
  one.retry_after = 2s;
  CHECK(retry_delay(one, 3, 0) == 2s);
  one.retry_after = 0ms;
  CHECK(retry_delay(one, 3, 1) == limits::model_retry_delay_min);
  one.retry_after = limits::model_retry_delay_max;
  CHECK(retry_delay(one, 3, 0) == limits::model_retry_delay_max);
  one.retry_after = limits::model_retry_delay_max + 1ms;
  CHECK_FALSE(retry_delay(one, 3, 0));
}

TEST_CASE("A pause that would outlast the call is not begun") {
  failed_attempt one = failed(attempt_end::network);
  one.time_left = limits::model_retry_delay_min;
  CHECK_FALSE(retry_delay(one, 3, 1));
  CHECK(retry_delay(one, 3, 0));
  one.time_left = 0ms;
  CHECK_FALSE(retry_delay(one, 3, 0));
  one.time_left = -1s;
  CHECK_FALSE(retry_delay(one, 3, 0));
}
