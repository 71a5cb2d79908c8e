// SPDX-License-Identifier: Apache-2.0
#include "config/languages.hpp"

#include <catch2/catch.hpp>

using namespace berth;

TEST_CASE("Languages are known by the names that people type") {
  for (auto name : {"py", "python", "python3", " Python\n", "PY"})
    CHECK(canonical_language(name) == "python");
  for (auto name : {"js", "node", "nodejs", "JavaScript"})
    CHECK(canonical_language(name) == "javascript");
  for (auto name : {"sh", "shell", "bash"})
    CHECK(canonical_language(name) == "bash");
  CHECK(canonical_language("rs") == "rust");
  CHECK(canonical_language("golang") == "go");
  for (auto name : {"", " ", "cobol", "pythonn", "py thon", "a-name-longer-than-any-language"})
    CHECK_FALSE(canonical_language(name));
}

TEST_CASE("A file's ending tells its language") {
  CHECK(language_of_file("a/b.x/prime.py") == "python");
  CHECK(language_of_file("x.MJS") == "javascript");
  CHECK(language_of_file("main.go") == "go");
  CHECK_FALSE(language_of_file("a.py/main"));
  CHECK_FALSE(language_of_file("main."));
  CHECK_FALSE(language_of_file(""));
}
