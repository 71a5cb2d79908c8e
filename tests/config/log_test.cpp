// SPDX-License-Identifier: Apache-2.0
#include "config/log.hpp"

#include <catch2/catch.hpp>

using namespace berth;

TEST_CASE("Text of a client cannot forge a line of the log") {
  CHECK(log::escape("a\nb\tc\r") == R"(a\nb\tc\r)");
  CHECK(log::escape(R"(say "hi" \ )") == R"(say \"hi\" \\ )");
  CHECK(log::escape(std::string_view{"\x1b[31m\0", 6}) == R"(\x1b[31m\x00)");
  CHECK(log::escape("gr\xc3\xbc\xc3\x9f") == "gr\xc3\xbc\xc3\x9f");
  CHECK(log::escape("\xff") == R"(\xff)");
}

TEST_CASE("Long text is cut between characters") {
  CHECK(log::escape(std::string(600, 'x')).size() == 515);
  CHECK(log::escape("aa\xc3\xbc", 3) == "aa...");
  CHECK(log::escape("aa\xc3\xbc", 4) == "aa\xc3\xbc");
}

TEST_CASE("A level is set by its name") {
  CHECK(log::set_level("warn"));
  CHECK_FALSE(log::set_level("loud"));
  CHECK(log::set_level("info"));
}
