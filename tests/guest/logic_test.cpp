// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/bash.hpp"
#include "guest/languages/go_imports.hpp"
#include "guest/languages/language.hpp"
#include "guest/languages/node_source.hpp"
#include "guest/process_tree.hpp"

#include <catch2/catch.hpp>

using namespace berth::guest;

TEST_CASE("the imports of a Go file are read over comments, names and groups") {
  auto header = read_go_header("// a\n/* b */ package main\nimport \"fmt\"; import m `math`\n"
                               "import (\n\t. \"os\" // c\n _ \"net/http\"\n)\nfunc main() {}");
  REQUIRE(header);
  CHECK(header->package == "main");
  CHECK(header->imports == std::vector<std::string>{"fmt", "math", "os", "net/http"});
}

TEST_CASE("a Go file that ends early has no header") {
  for (const char* source : {"", "func main() {}", "package main\nimport (", "package main\nimport",
                             "package main\nimport ( \"fmt\" x", "/* "}) {
    CAPTURE(source);
    CHECK(!read_go_header(source));
  }
  CHECK(read_go_header("package main")->imports.empty());
}

TEST_CASE("strangers are those that descend from nobody who is kept") {
  std::vector<kinship> tree{{2, 1}, {3, 2}, {4, 3}, {5, 1}, {6, 5}, {7, 0}, {8, 99}};
  std::vector<pid_t> kept{2};
  CHECK(strangers(tree, kept) == std::vector<pid_t>{5, 6, 8});
}

TEST_CASE("text in JSON keeps every character") {
  CHECK(json_text("a\"\\\n\t\x01\x7F\xC3\xA9") == "\"a\\\"\\\\\\u000a\\u0009\\u0001\x7F\xC3\xA9\"");
}

TEST_CASE("a waiting bash takes only what it takes like a new one") {
  berth::guest::start_job start;
  start.env["PLAIN"] = "x";
  CHECK(fits_waiting_bash(start));
  for (const char* name : {"IFS", "BASH_ENV", "SHELLOPTS", "a.b", "1x", "UID"}) {
    CAPTURE(name);
    berth::guest::start_job other;
    other.env[name] = "x";
    CHECK(!fits_waiting_bash(other));
  }
  start.args.assign(100, "x");
  CHECK(!fits_waiting_bash(start));
}

TEST_CASE("a JavaScript module is known by its text") {
  for (const char* code : {"import fs from 'fs'", "  import {a} from \"b\";", "import 'x'",
                           "import * as y from 'y'", "1;\nexport default 3", "export { a }",
                           "console.log(import.meta.url)", "await f()", "const a = await f()"}) {
    CAPTURE(code);
    CHECK(needs_of(code).module);
    CHECK(needs_of(code).cold);
  }
  for (const char* code :
       {"", "import('fs')", "important = 1", "exports.a = 1",
        "const f = require('f')\nconst a = await f()", "async function f() {\n  await g()\n}"}) {
    CAPTURE(code);
    CHECK(!needs_of(code).module);
  }
  CHECK(needs_of("require('worker_threads')").cold);
}
