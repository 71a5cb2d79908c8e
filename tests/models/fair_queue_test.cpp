// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "models/fair_queue.hpp"
#include <random>
#include <set>
#include <vector>

using namespace berth::models;
using entry = fair_queue::entry;

TEST_CASE("Calls go at once while there are places, wait then, and are refused beyond the bound") {
  fair_queue queue{2, 1};
  CHECK(queue.enter("a", 1) == entry::go);
  CHECK(queue.enter("a", 2) == entry::go);
  CHECK(queue.enter("a", 3) == entry::wait);
  CHECK(queue.enter("b", 4) == entry::full);
  CHECK(queue.running() == 2);
  CHECK(queue.waiting() == 1);
  CHECK(queue.leave("a") == 3);
  CHECK(queue.leave("a") == std::nullopt);
  CHECK(queue.leave("a") == std::nullopt);
  CHECK(queue.running() == 0);
  CHECK(queue.leave("nobody") == std::nullopt);
}

TEST_CASE("A workflow with fifty calls does not make a chat wait for them") {
  fair_queue queue{4, 256};
  for (fair_queue::ticket i = 1; i <= 50; ++i)
    queue.enter("workflow", i);
  CHECK(queue.enter("chat", 100) == entry::wait);
  CHECK(queue.leave("workflow") == 100);
  CHECK(queue.leave("chat") == 5);
}

TEST_CASE("Askers take turns, and each one's calls keep their order") {
  fair_queue queue{1, 256};
  queue.enter("first", 0);
  for (fair_queue::ticket i = 0; i < 3; ++i)
    for (fair_queue::ticket who = 1; who <= 3; ++who)
      queue.enter("asker " + std::to_string(who), who * 10 + i);
  std::vector<fair_queue::ticket> order;
  std::string at = "first";
  while (auto next = queue.leave(at)) {
    order.push_back(*next);
    at = "asker " + std::to_string(*next / 10);
  }
  CHECK(order == std::vector<fair_queue::ticket>{10, 20, 30, 11, 21, 31, 12, 22, 32});
}

TEST_CASE("Newcomers without end starve nobody") {
  fair_queue queue{1, 256};
  queue.enter("workflow", 1);
  queue.enter("workflow", 2);
  std::string at = "workflow";
  int turns = 0;
  for (fair_queue::ticket i = 100; i < 120; ++i, ++turns) {
    queue.enter("chat " + std::to_string(i), i);
    auto next = queue.leave(at);
    REQUIRE(next);
    if (*next == 2)
      break;
    at = "chat " + std::to_string(*next);
  }
  CHECK(turns <= 2);
}

TEST_CASE("A call that waits can be forgotten, and only that") {
  fair_queue queue{1, 4};
  queue.enter("a", 1);
  queue.enter("a", 2);
  queue.enter("b", 3);
  CHECK_FALSE(queue.forget("a", 1));
  CHECK_FALSE(queue.forget("a", 3));
  CHECK_FALSE(queue.forget("c", 2));
  CHECK(queue.forget("a", 2));
  CHECK(queue.waiting() == 1);
  CHECK(queue.leave("a") == 3);
  CHECK(queue.waiting() == 0);
}

TEST_CASE("Whatever comes and goes, places and waiting calls add up") {
  std::mt19937 random{7};
  fair_queue queue{3, 20};
  std::map<fair_queue::ticket, std::string> running;
  std::map<fair_queue::ticket, std::string> waiting;
  for (fair_queue::ticket i = 1; i < 20'000; ++i) {
    std::string asker = std::string{"asker "} + std::to_string(random() % 5);
    switch (random() % 3) {
    case 0:
    case 1: {
      auto how = queue.enter(asker, i);
      REQUIRE((how == entry::go) == (running.size() < 3));
      REQUIRE((how == entry::full) == (running.size() == 3 && waiting.size() == 20));
      if (how != entry::full)
        (how == entry::go ? running : waiting)[i] = asker;
      break;
    }
    default:
      if (random() % 4 == 0 && !waiting.empty()) {
        auto gone = waiting.begin();
        REQUIRE(queue.forget(gone->second, gone->first));
        waiting.erase(gone);
      } else if (!running.empty()) {
        auto next = queue.leave(running.begin()->second);
        running.erase(running.begin());
        REQUIRE(next.has_value() == !waiting.empty());
        if (next) {
          REQUIRE(waiting.contains(*next));
          running.insert(waiting.extract(*next));
        }
      }
    }
    REQUIRE(queue.running() == running.size());
    REQUIRE(queue.waiting() == waiting.size());
  }
}
