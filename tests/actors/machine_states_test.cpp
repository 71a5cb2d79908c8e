// SPDX-License-Identifier: Apache-2.0
#include "actors/machine_states.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace berth;

namespace {

machine_states::point named(const std::string& state, std::size_t copies = 0) {
  return {.state = state,
          .parent = 0,
          .memory = copies > 0,
          .contexts = std::vector<std::string>(copies, "python")};
}

bool nobody(std::uint64_t, const machine_states::point&) {
  return false;
}
bool everybody(std::uint64_t, const machine_states::point&) {
  return true;
}

} // namespace

TEST_CASE("States descend from where the machine stood, and going back makes branches") {
  machine_states all;
  CHECK(all.present() == 0);
  CHECK(all.ancestors(0).empty());
  all.add(all.next_number(), named("a"));
  all.add(all.next_number(), named("b"));
  all.go_to(1);
  all.add(all.next_number(), named("c"));
  CHECK(all.ancestors(3) == std::vector<std::uint64_t>{1});
  CHECK(all.ancestors(2) == std::vector<std::uint64_t>{1});
  CHECK(all.number_of("b") == 2);
  CHECK_FALSE(all.number_of("d"));
  all.go_to(99); // not there: the machine stays
  CHECK(all.present() == 3);
}

TEST_CASE(
    "A state that is dropped leaves its descendants to its parent, and its number to nobody") {
  machine_states all;
  for (const char* name : {"a", "b", "c"})
    all.add(all.next_number(), named(name));
  all.drop(2);
  CHECK(all.ancestors(3) == std::vector<std::uint64_t>{1});
  all.drop(3); // the machine stands there
  CHECK(all.find(3) != nullptr);
  all.go_to(1);
  all.drop(3);
  CHECK(all.all().size() == 1);
  CHECK(all.next_number() == 4);
}

TEST_CASE("What nobody keeps goes; beyond the bounds the oldest go, memory before files") {
  machine_states all;
  for (int i = 0; i < 6; ++i)
    all.add(all.next_number(), named("s" + std::to_string(i), 2));
  auto none = all.too_many(nobody, everybody, 10, 100);
  CHECK(none.states == std::vector<std::uint64_t>{1, 2, 3, 4, 5}); // all but where it stands
  auto few = all.too_many(everybody, everybody, 4, 100);
  CHECK(few.states == std::vector<std::uint64_t>{1, 2});
  CHECK(few.memories.empty());
  auto copies = all.too_many(everybody, everybody, 10, 7);
  CHECK(copies.states.empty());
  CHECK(copies.memories == std::vector<std::uint64_t>{1, 2, 3});
  auto held = all.too_many(everybody, nobody, 4, 100);
  CHECK(held.states.empty()); // they are nowhere else
  all.drop_memory(1);
  CHECK(all.find(1)->contexts.empty());
  CHECK_FALSE(all.find(1)->memory);
}

TEST_CASE("Random adds, returns and drops keep every line of descent right") {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    std::mt19937 random{seed};
    machine_states all;
    std::map<std::uint64_t, std::vector<std::uint64_t>> lines{{0, {}}}; // nearest first
    std::uint64_t present = 0;
    for (int step = 0; step < 100; ++step) {
      auto any = [&] {
        auto place = lines.begin();
        std::advance(place, static_cast<std::ptrdiff_t>(random() % lines.size()));
        return place->first;
      };
      switch (random() % 3) {
      case 0: {
        auto number = all.next_number();
        auto line = lines.at(present);
        if (present != 0)
          line.insert(line.begin(), present);
        lines[number] = line;
        all.add(number, named(std::to_string(number)));
        present = number;
        break;
      }
      case 1:
        if (auto to = any(); to != 0) {
          all.go_to(to);
          present = to;
        }
        break;
      default:
        if (auto gone = any(); gone != 0 && gone != present) {
          all.drop(gone);
          lines.erase(gone);
          for (auto& [number, line] : lines)
            std::erase(line, gone);
        }
      }
      CHECK(all.present() == present);
      for (const auto& [number, line] : lines)
        CHECK(all.ancestors(number) == line);
    }
  }
}
