// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/conversation.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

using namespace berth;

namespace {

chat_message user(std::string text) {
  return {.role = speaker::user, .content = std::move(text)};
}

chat_message assistant(std::string text, std::vector<tool_call> calls = {}) {
  return {.role = speaker::assistant, .content = std::move(text), .tool_calls = std::move(calls)};
}

tool_call call(std::string id) {
  return {.id = std::move(id), .name = "execute_code", .arguments = "{}"};
}

chat_message result(std::string id, std::string text) {
  return {.role = speaker::tool,
          .content = std::move(text),
          .tool_call_id = std::move(id),
          .tool_name = "execute_code"};
}

/// A turn with a call whose result is long.
void add_turn(conversation& to, const std::string& name, std::size_t result_bytes) {
  to.add({user("question " + name)}, true);
  to.add({assistant("", {call(name)})}, false);
  to.add({result(name, std::string(result_bytes, 'r'))}, false);
  to.add({assistant("answer " + name)}, false);
}

/// What a strict endpoint refuses: a result without its call before it, a call without its result.
bool is_well_formed(const std::vector<chat_message>& messages) {
  std::vector<std::string> open;
  for (const chat_message& each : messages) {
    if (each.role == speaker::tool) {
      auto found = std::ranges::find(open, each.tool_call_id);
      if (found == open.end())
        return false;
      open.erase(found);
      continue;
    }
    if (!open.empty())
      return false;
    for (const tool_call& one : each.tool_calls)
      open.push_back(one.id);
  }
  return open.empty();
}

bool holds(const std::vector<chat_message>& messages, std::string_view text) {
  return std::ranges::any_of(messages, [&](const chat_message& each) {
    return each.content.find(text) != std::string::npos;
  });
}

} // namespace

TEST_CASE("Tokens are estimated by characters", "[agents]") {
  CHECK(estimate_tokens("") == 0);
  CHECK(estimate_tokens("1234567") == 2);
  CHECK(estimate_tokens("\xE6\x97\xA5\xE6\x9C\xAC") == 2);
  CHECK(estimate_tokens(user("1234567")) == 6);
}

TEST_CASE("An endpoint's counts correct the estimate, a cached prompt's do not", "[agents]") {
  token_meter meter;
  CHECK(meter.tokens(100) == 100);
  meter.correct(100, 150);
  CHECK(meter.tokens(100) == 150);
  meter.correct(100, 10); // the rest was cached
  CHECK(meter.tokens(100) == 150);
  meter.correct(100, 100);
  CHECK(meter.tokens(100) == 140);
  meter.correct(0, 100);
  meter.correct(1, 1'000'000);
  CHECK(meter.factor() <= 4);
}

TEST_CASE("A conversation that fits is sent whole", "[agents]") {
  conversation all;
  add_turn(all, "one", 100);
  auto sent = all.fit("be kind", 10'000, {}, false);
  REQUIRE(sent.messages.size() == 5);
  CHECK(sent.messages[0].role == speaker::system);
  CHECK(sent.messages[0].content == "be kind");
  CHECK(sent.turns_left_out == 0);
  CHECK(is_well_formed(sent.messages));
}

TEST_CASE("Old results go before old turns, and what is left out is said", "[agents]") {
  conversation all;
  add_turn(all, "one", 7000);
  add_turn(all, "two", 7000);
  all.add({user("newest")}, true);
  auto shortened = all.fit("prompt", 3000, {}, false);
  CHECK(shortened.results_shortened == 1);
  CHECK(shortened.turns_left_out == 0);
  CHECK(holds(shortened.messages, "bytes are left out here"));
  CHECK(holds(shortened.messages, "question one"));
  auto emptied = all.fit("prompt", 150, {}, false);
  CHECK(emptied.results_shortened == 2);
  CHECK(holds(emptied.messages, "[this old result is left out]"));
  auto least = all.fit("prompt", 10, {}, false);
  CHECK(least.turns_left_out == 2);
  CHECK(holds(least.messages, "2 older turns"));
  CHECK(holds(least.messages, "prompt"));
  CHECK(holds(least.messages, "newest"));
  CHECK(!holds(least.messages, "question two"));
}

TEST_CASE("Within a long turn the oldest calls go with their results", "[agents]") {
  conversation all;
  all.add({user("do it")}, true);
  for (int i = 0; i < 20; ++i) {
    std::string id = "c" + std::to_string(i);
    all.add({assistant("", {call(id)})}, false);
    all.add({result(id, std::string(2000, 'x'))}, false);
  }
  auto sent = all.fit("prompt", 700, {}, false);
  CHECK(is_well_formed(sent.messages));
  CHECK(holds(sent.messages, "do it"));
  CHECK(holds(sent.messages, "older steps"));
  CHECK(sent.messages.back().tool_call_id == "c19");
  CHECK(sent.messages.back().content == std::string(2000, 'x')); // the newest is whole
  CHECK(sent.estimated <= 700);
}

TEST_CASE("Whatever is left out, the rest is well formed and the newest message is whole",
          "[agents]") {
  std::mt19937 random{20261125};
  for (int round = 0; round < 300; ++round) {
    conversation all;
    int turns = 1 + static_cast<int>(random() % 5);
    for (int turn = 0; turn < turns; ++turn) {
      all.add({user("question " + std::string(random() % 600, 'q'))}, true);
      for (auto rounds = random() % 5; rounds > 0; --rounds) {
        std::vector<tool_call> calls;
        std::vector<chat_message> results;
        for (auto count = 1 + random() % 3; count > 0; --count) {
          calls.push_back(call(std::to_string(random())));
          results.push_back(result(calls.back().id, std::string(random() % 3000, 'r')));
        }
        all.add({assistant(std::string(random() % 300, 'a'), calls)}, false);
        all.add(results, false);
      }
      if (random() % 2 == 0)
        all.add({assistant("answer")}, false);
    }
    all.add({user("the newest message")}, true);
    std::size_t most = random() % 3000;
    auto sent = all.fit("the prompt", most, {}, false);
    CHECK(is_well_formed(sent.messages));
    CHECK(sent.messages.front().content.starts_with("the prompt"));
    CHECK(sent.messages.back().content == "the newest message");
    auto plain = all.fit("the prompt", most, {}, true);
    for (const chat_message& each : plain.messages) {
      CHECK(each.role != speaker::tool);
      CHECK(each.tool_calls.empty());
    }
  }
}

TEST_CASE("For a model without tools calls and results are plain text", "[agents]") {
  conversation all;
  add_turn(all, "one", 10);
  auto sent = all.fit("", 10'000, {}, true);
  REQUIRE(sent.messages.size() == 4);
  CHECK(sent.messages[1].content == "[execute_code {}]");
  CHECK(sent.messages[2].role == speaker::user);
  CHECK(sent.messages[2].tool_call_id.empty());
  conversation by_text;
  by_text.add({user("run"), result("", "data")}, true);
  CHECK(by_text.fit("", 100, {}, false).messages[1].role == speaker::user);
}

TEST_CASE("What a client says again is not said twice", "[agents]") {
  conversation all;
  CHECK(all.already_said({user("hello")}) == 0);
  all.add({user("hello")}, true);
  all.add({assistant("", {call("1")})}, false);
  all.add({result("1", "data")}, false);
  all.add({assistant("hi")}, false);
  CHECK(all.already_said({user("hello"), assistant("hi"), user("more")}) == 2);
  CHECK(all.already_said(
            {user("hello"), assistant("hi\n\n--- VM Execution Results ---\nfive"), user("more")})
        == 2);
  CHECK(all.already_said({user("hello")}) == 0); // said anew after an answer: it is new
  CHECK(all.already_said({user("other"), assistant("hi"), user("more")}) == 0);
  all.add({user("again")}, true);
  CHECK(all.already_said({user("again")}) == 1); // a turn that failed is tried again
}

TEST_CASE("Calls without results are found", "[agents]") {
  conversation all;
  all.add({user("go")}, true);
  all.add({assistant("", {call("1"), call("2")})}, false);
  CHECK(all.open_calls().size() == 2);
  all.add({result("1", "x")}, false);
  REQUIRE(all.open_calls().size() == 1);
  CHECK(all.open_calls()[0].id == "2");
  all.add({result("2", "x")}, false);
  CHECK(all.open_calls().empty());
}

TEST_CASE("The oldest turns leave memory, never the last", "[agents]") {
  conversation all{{.said_max = 8, .bytes_max = 1 << 20}};
  for (int i = 0; i < 5; ++i)
    add_turn(all, std::to_string(i), 10);
  CHECK(all.take_forgotten() == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  CHECK(all.messages().front().content == "question 3");
  CHECK(all.take_forgotten().empty());
  conversation heavy{{.said_max = 100, .bytes_max = 4096}};
  heavy.add({user(std::string(10'000, 'x'))}, true);
  CHECK(heavy.take_forgotten().empty());
  heavy.add({user("new")}, true);
  CHECK(heavy.take_forgotten() == std::vector<std::uint64_t>{1});
}

TEST_CASE("A conversation is restored from its records in any order", "[agents]") {
  conversation all;
  std::vector<said> kept;
  for (int i = 0; i < 3; ++i)
    kept.push_back(all.add({user("say " + std::to_string(i))}, true));
  std::ranges::reverse(kept);
  kept.push_back({.number = 9}); // a place that was given back
  conversation again;
  again.restore(kept);
  CHECK(again.messages() == all.messages());
  CHECK(again.add({user("next")}, true).number == 4);
}
