// SPDX-License-Identifier: Apache-2.0
#include "actors/pool_plan.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using stocks = std::map<std::string, pool_plan::stock>;

TEST_CASE("A pool is filled to what the settings ask for", "[pool]") {
  pool_plan plan{{{"python", 2}, {"", 1}}, 16, 100};
  CHECK(plan.to_start({}, 100, true) == std::vector<std::string>{"", "python", "python"});
  CHECK(plan.to_start({{"python", {.idle = 2}}, {"", {.starting = 1}}}, 100, true).empty());
}

TEST_CASE("A pool never starts more than there is room, nor more at once than its bound",
          "[pool]") {
  pool_plan plan{{{"python", 8}}, 16, 3};
  CHECK(plan.to_start({}, 2, true).size() == 2);
  CHECK(plan.to_start({}, 100, true).size() == 3);
  CHECK(plan.to_start({{"python", {.starting = 3}}}, 100, true).empty());
  CHECK(plan.to_start({}, 0, true).empty());
}

TEST_CASE("Waiting jobs come before the stock", "[pool]") {
  pool_plan plan{{{"bash", 2}}, 16, 100};
  auto chosen = plan.to_start({{"go", {.waiting = 2}}}, 3, true);
  CHECK(chosen == std::vector<std::string>{"go", "go", "bash"});
}

TEST_CASE("While jobs run, only a flavour that is out of stock is refilled", "[pool]") {
  pool_plan plan{{{"python", 4}}, 16, 100};
  CHECK(plan.to_start({{"python", {.idle = 1}}}, 100, false).empty());
  CHECK(plan.to_start({{"python", {.idle = 0}}}, 100, false).size() == 4);
}

TEST_CASE("The stock follows demand up to its bound, and falls again", "[pool]") {
  pool_plan plan{{{"python", 2}}, 8, 100};
  plan.note_demand("python", 6);
  CHECK(plan.target("python") == 6);
  plan.note_demand("python", 60);
  CHECK(plan.target("python") == 8);
  for (int second = 0; second < 120; ++second)
    plan.fade();
  CHECK(plan.target("python") == 2);
  CHECK(plan.target("go") == 0);
}

TEST_CASE("What demand no longer asks for is ended, one at a time and never below the settings",
          "[pool]") {
  pool_plan plan{{{"python", 2}}, 8, 100};
  plan.note_demand("python", 6);
  stocks stood{{"python", {.idle = 6}}, {"go", {.idle = 2}}};
  CHECK(plan.to_end(stood) == std::vector<std::string>{"go"});
  for (int second = 0; second < 120; ++second)
    plan.fade();
  CHECK(plan.to_end(stood) == std::vector<std::string>{"go", "python"});
  CHECK(plan.to_end({{"python", {.idle = 2}}}).empty());
  CHECK(plan.to_end({{"python", {.idle = 3, .waiting = 1}}}).empty());
  CHECK(plan.to_end({{"python", {.idle = 2, .starting = 1}}})
        == std::vector<std::string>{"python"});
}
