// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/progress_log.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

progress_event event_of(const std::string& id, progress_kind kind, const std::string& text = "") {
  progress_event made;
  made.id = id;
  made.kind = kind;
  made.text = text;
  return made;
}

read_progress from(const std::string& id, std::uint64_t after = 0) {
  return {.id = id, .after = after, .wait_ms = 0, .events_max = 0};
}

} // namespace

TEST_CASE("Events count up by one in each stream") {
  progress_log log{10, 1 << 20};
  CHECK(log.add(event_of("a", progress_kind::started)).seq == 1);
  CHECK(log.add(event_of("b", progress_kind::started)).seq == 1);
  CHECK(log.add(event_of("a", progress_kind::token, "x")).seq == 2);
  auto page = log.page(from("a"), 10);
  REQUIRE(page.events.size() == 2);
  CHECK(page.events[1].text == "x");
  CHECK(page.lost == 0);
  CHECK(page.last_seq == 2);
  CHECK_FALSE(page.ended);
}

TEST_CASE("A reader reads on after what it has, in pages, to the end") {
  progress_log log{10, 1 << 20};
  for (int i = 0; i < 5; ++i)
    log.add(event_of("a", progress_kind::token, std::to_string(i)));
  log.add(event_of("a", progress_kind::ended));
  auto first = log.page(from("a"), 4);
  CHECK(first.events.size() == 4);
  CHECK_FALSE(first.ended);
  auto second = log.page(from("a", 4), 4);
  CHECK(second.events.size() == 2);
  CHECK(second.ended);
  CHECK(log.page(from("a", 6), 4).ended);
  CHECK(log.has_news(from("a", 6)));
}

TEST_CASE("A stream that begins again is not ended, and its numbers go on") {
  progress_log log{10, 1 << 20};
  log.add(event_of("a", progress_kind::ended));
  CHECK(log.add(event_of("a", progress_kind::started)).seq == 2);
  CHECK_FALSE(log.page(from("a"), 10).ended);
  CHECK_FALSE(log.has_news(from("a", 2)));
}

TEST_CASE("Beyond the bound of a stream the oldest events go, and a reader is told how many") {
  progress_log log{3, 1 << 20};
  for (int i = 1; i <= 5; ++i)
    log.add(event_of("a", progress_kind::token, std::to_string(i)));
  auto page = log.page(from("a"), 10);
  REQUIRE(page.events.size() == 3);
  CHECK(page.events[0].seq == 3);
  CHECK(page.lost == 2);
  CHECK(log.page(from("a", 3), 10).lost == 0);
}

TEST_CASE("Beyond the bound on memory streams that ended longest ago go first") {
  progress_log log{100, 4000};
  std::string big(1000, 'x');
  log.add(event_of("alive", progress_kind::token, big));
  log.add(event_of("old", progress_kind::ended, big));
  log.add(event_of("new", progress_kind::ended, big));
  log.add(event_of("more", progress_kind::token, big));
  CHECK_FALSE(log.knows("old"));
  CHECK(log.knows("alive"));
  CHECK(log.knows("more"));
  CHECK(log.bytes() <= 4000);
  for (int i = 0; i < 20; ++i)
    log.add(event_of("more", progress_kind::token, big));
  CHECK(log.bytes() <= 4000);
}

TEST_CASE("A stream that ended while it held the bound alone goes when another one grows") {
  progress_log log{100, 3000};
  std::string big(1000, 'x');
  for (int i = 0; i < 3; ++i)
    log.add(event_of("a", progress_kind::ended, big));
  CHECK(log.knows("a"));
  for (int i = 0; i < 3; ++i)
    log.add(event_of("b", progress_kind::token, big));
  CHECK_FALSE(log.knows("a"));
  CHECK(log.bytes() <= 3000);
}
