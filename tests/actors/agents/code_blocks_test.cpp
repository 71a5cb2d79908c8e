// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/code_blocks.hpp"

#include <catch2/catch.hpp>

using namespace berth;

TEST_CASE("Fences are found with attributes, aliases and odd languages, in text order",
          "[code_blocks]") {
  auto found =
      find_code("```c++ {.numberLines}\nint x;\n```\nExecute this: ```js title=a\nlet a = 1\n```\n"
                "~~~sh\nls -l\n~~~\n```\nno language\n```\n````md\n```py\nx = 1\n```\n````\n");
  REQUIRE(found.size() == 5);
  CHECK(found[0].language == "c++");
  CHECK(found[0].attributes == "{.numberLines}");
  CHECK(found[1].language == "javascript");
  CHECK(found[1].code == "let a = 1");
  CHECK(found[2].language == "bash");
  CHECK(found[3].language == "text");
  CHECK(found[4].code == "```py\nx = 1\n```");
}

TEST_CASE("A line inside a fence is not a program of its own", "[code_blocks]") {
  auto found = find_code("```python\nprincipal = 1000\nprint(principal)\n```\n");
  REQUIRE(found.size() == 1);
  CHECK(!found[0].in_line);
  auto inline_found = find_code("python3 -c 'print(1)'\n");
  REQUIRE(inline_found.size() == 1);
  CHECK(inline_found[0].in_line);
}

TEST_CASE("A fence without an end reaches to the end of the text", "[code_blocks]") {
  auto found = find_code("```python\nprint(1)");
  REQUIRE(found.size() == 1);
  CHECK(found[0].code == "print(1)");
  CHECK(find_code("```python\n```\n").empty());
}

TEST_CASE("Confidence follows the contract's sum", "[code_blocks]") {
  auto of = [](const char* text) { return find_code(text).at(0).confidence; };
  CHECK(of("```python\nprint(1)\n```") == Approx(0.4));
  CHECK(of("```python\nimport os\nprint(1)\n```") == Approx(0.7));
  CHECK(of("Please run this:\n```python\nprint(1)\n```") == Approx(0.7));
  CHECK(of("my country\n```python\nprint(1)\n```") == Approx(0.4));
  CHECK(of("```text\nabc\n```") == Approx(0.1));
}

TEST_CASE("Windows are cut between characters", "[code_blocks]") {
  for (int shift = 0; shift < 5; ++shift) {
    std::string text(static_cast<std::size_t>(shift), 'x');
    for (int i = 0; i < 100; ++i)
      text += "\xF0\x9F\x98\x80";
    std::string around = text;
    text += "\n```python\nprint(1)\n```\n";
    CHECK(find_code(text + around).size() == 1);
  }
}

TEST_CASE("Intent is graded as the contract does", "[code_blocks]") {
  CHECK(find_intent("Please run this and execute it, can you run it", true).suggested_action
        == "High confidence - auto-execute");
  CHECK(find_intent("what does it do", false).suggested_action == "No execution intent detected");
  CHECK(find_intent("run it", false).suggested_action == "Low confidence - show code only");
}
