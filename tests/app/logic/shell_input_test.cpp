// SPDX-License-Identifier: Apache-2.0
#include "app/shell_input.hpp"

#include <catch2/catch.hpp>

using berth::wants_more;

TEST_CASE("A cell that is whole is run at once") {
  for (const char* text : {"x = 1", "f(1, [2])", "print('a(')", "# (", "x = {1: 2}", "'''a\nb'''",
                           "def f():\n    return 1\n", "if x:\n  y\n", "\"it's\"", "x = '\\''"}) {
    CAPTURE(text);
    CHECK_FALSE(wants_more("python", text));
  }
  for (const char* text : {"let x = 1", "f(() => { g() })", "// {", "`a\nb`", "'it\\'s'"}) {
    CAPTURE(text);
    CHECK_FALSE(wants_more("javascript", text));
  }
  for (const char* text : {"ls -l", "echo 'a\nb'", "for i in 1 2; do echo $i; done", "# if",
                           "if true; then echo; fi", "echo done; echo if", "f() { echo; }",
                           "case x in x) echo;; esac", "echo \"it's\"", "echo '\\'"}) {
    CAPTURE(text);
    CHECK_FALSE(wants_more("bash", text));
  }
}

TEST_CASE("A cell that was begun wants its end") {
  for (const char* text : {"f(", "x = [1,", "'''a", "def f():", "def f():\n    return 1", "@wraps",
                           "x = 1 + \\", "for i in y:  "}) {
    CAPTURE(text);
    CHECK(wants_more("python", text));
  }
  for (const char* text : {"function f() {", "`a", "f([", "x = \\"}) {
    CAPTURE(text);
    CHECK(wants_more("javascript", text));
  }
  for (const char* text : {"echo 'a", "echo \"a", "for i in 1 2; do", "while true", "if true; then",
                           "f() {", "echo \\", "case x in", "for i in 1; do if x; then y; fi"}) {
    CAPTURE(text);
    CHECK(wants_more("bash", text));
  }
}
