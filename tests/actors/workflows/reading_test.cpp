// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/reading.hpp"

#include <catch2/catch.hpp>

using namespace berth;

TEST_CASE("A model's JSON is found alone, in a fence and in the middle of its talk") {
  std::string text = GENERATE(
      R"({"score": 7})", "  \n{\"score\": 7}\n", "```json\n{\"score\": 7}\n```",
      "Sure! Here it is: {\"score\": 7} I hope that helps.", "{not json} and then {\"score\": 7}",
      "I use {braces} often. {\"score\": 7, \"a\": {\"b\": 1}}");
  auto found = reading::object_in(text);
  REQUIRE(found);
  CHECK(reading::number_of(*found, "score") == 7.0);
}

TEST_CASE("What is no JSON object is none, however large or deep") {
  std::string deep;
  for (int i = 0; i < 100'000; ++i)
    deep += "{\"a\":";
  for (const std::string& text :
       {std::string{}, std::string{"no"}, std::string{"[1, 2]"}, std::string{"{\"a\": 1"},
        std::string{"{\"a\": \"}"}, std::string{"{{{{"}, deep, std::string(1'000'000, '{'),
        "{\"a\": \"" + std::string(2'000'000, 'x') + "\"}"})
    CHECK_FALSE(reading::object_in(text));
}

TEST_CASE("Numbers are read as digits and as text") {
  auto from = nlohmann::json::parse(R"({"a": 8, "b": "8.5", "c": "8/10", "d": "high", "e": null})");
  CHECK(reading::number_of(from, "a") == 8.0);
  CHECK(reading::number_of(from, "b") == 8.5);
  CHECK(reading::number_of(from, "c") == 8.0);
  CHECK_FALSE(reading::number_of(from, "d"));
  CHECK_FALSE(reading::number_of(from, "e"));
  CHECK_FALSE(reading::number_of(from, "f"));
}

TEST_CASE("A score is the first number from 0 to 10 on a line that speaks of one") {
  CHECK(reading::score_in("Score: 8") == 8.0);
  CHECK(reading::score_in("There are 3 faults.\nOverall score: 6.5/10.") == 6.5);
  CHECK(reading::score_in("I give it 7/10") == 7.0);
  CHECK(reading::score_in("**Quality Score**: 9 / 10") == 9.0);
  CHECK(reading::score_in("Score (of 100): 85\nScore: 8") == 8.0);
  CHECK(reading::score_in("score: 0") == 0.0);
  CHECK_FALSE(reading::score_in("3 of 4 tests pass"));
  CHECK_FALSE(reading::score_in("the score is high"));
  CHECK_FALSE(reading::score_in("score: -3"));
  CHECK_FALSE(reading::score_in(""));
}

TEST_CASE("Answers that differ in marks and case only are the same") {
  for (const char* text : {"42", " 42. ", "**42**", "I thought.\nANSWER: 42", "Answer: `42`",
                           "**Answer:** 42", "ANSWER: 41\nNo: ANSWER: 42"})
    CHECK(reading::normalised_answer(text) == "42");
  CHECK(reading::normalised_answer("New  York\n") == reading::normalised_answer("\"new york\""));
  CHECK(reading::normalised_answer("3.14") == "3.14");
}

TEST_CASE("Yes and no are read from the first word") {
  CHECK(reading::answer_in("Yes, it does.") == true);
  CHECK(reading::answer_in("**NO**: it lacks tests") == false);
  CHECK_FALSE(reading::answer_in("Perhaps"));
  CHECK_FALSE(reading::answer_in("nothing is missing"));
}

TEST_CASE("Long text loses its middle, between characters, and says so") {
  std::string text;
  for (int i = 0; i < 1000; ++i)
    text += "ä€";
  for (std::size_t most = 10; most < 60; ++most) {
    std::string kept = reading::shortened(text, most);
    CHECK(kept.find("bytes left out") != std::string::npos);
    for (std::size_t i = 0; i + 1 < kept.size(); ++i)
      if ((static_cast<unsigned char>(kept[i]) & 0xC0) == 0xC0)
        CHECK((static_cast<unsigned char>(kept[i + 1]) & 0xC0) == 0x80);
  }
  CHECK(reading::shortened("short", 10) == "short");
}
