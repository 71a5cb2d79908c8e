// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>

using namespace berth;
using namespace berth::test;

namespace {

/// Whether the test cannot run here; says why.
bool skipped(machine* box, const std::string& language) {
  static const std::string reason = no_machine_reason();
  if (!reason.empty()) {
    skip(reason);
    return true;
  }
  if (box == nullptr)
    return false;
  auto hello = box->expect<guest::hello>();
  bool there =
      std::find(hello.languages.begin(), hello.languages.end(), language) != hello.languages.end();
  if (!there)
    skip(language + " is not installed");
  return !there;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("bash: a script is main.sh, with its own lines, whether bash waited or not") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "bash"))
    return;
  for (int round = 0; round < 3; ++round) {
    auto start = box.job("bash", "#!/bin/bash\necho \"$0 $# $LINENO ${BASH_SOURCE[0]}\"\nnonesuch\n"
                                 "declare -F; set | grep -i berth; echo \"${OLDPWD-none}\"\nif )");
    start.args = {"x"};
    auto result = box.run(start);
    CHECK(result.out == "main.sh 1 2 main.sh\nnone\n");
    CHECK(contains(result.err, "main.sh: line 3: nonesuch: command not found\n"));
    CHECK(contains(result.err, "main.sh: line 5: syntax error near unexpected token `)'\n"));
    CHECK(result.exit_code() == 2);
  }
  CHECK(box.run(box.job("bash", "")).exit_code() == 0);
  auto odd = box.job("bash", "echo \"$IFS\"");
  odd.env["BASH_ENV"] = "/mnt/env.sh";
  CHECK(box.run(box.job("bash", "echo 'echo from env' > /mnt/env.sh")).exit_code() == 0);
  CHECK(box.run(odd).out == "from env\n \t\n\n");
}

TEST_CASE("bash: one waits when it was asked for, and the first job takes it") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "bash"))
    return;
  CHECK(box.processes() == 1);
  box.send(guest::prepare{"bash"});
  CHECK(box.expect<guest::warmed>().language == "bash");
  CHECK(box.processes() == 2);
  auto start = box.job("bash", "echo $((6 * 7))");
  start.exclusive = true;
  box.send(start);
  CHECK(box.expect<guest::job_started>().path == run_path::warm);
  CHECK(box.gather(start.job).out == "42\n");
}

TEST_CASE("python: a program runs, fails with its traceback, and exits as it says") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "python"))
    return;
  auto result = box.run(box.job("python", "import sys\nprint('out')\nsys.exit(3)"));
  CHECK(result.out == "out\n");
  CHECK(result.exit_code() == 3);
  result = box.run(box.job("python", "x = 1\nraise ValueError('no')"));
  CHECK(result.exit_code() == 1);
  CHECK(contains(result.err, "main.py\", line 2, in <module>"));
  CHECK(contains(result.err, "ValueError: no"));
}

TEST_CASE("javascript: a program runs and fails with its stack") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "javascript"))
    return;
  auto result = box.run(box.job("javascript", "console.log('out'); process.exitCode = 6;"));
  CHECK(result.out == "out\n");
  CHECK(result.exit_code() == 6);
  result =
      box.run(box.job("javascript", "import fs from 'fs';\nconst x = await Promise.resolve(2);\n"
                                    "console.log(typeof fs.readFileSync, x)"));
  CHECK(result.out == "function 2\n");
  CHECK(result.started->path == run_path::cold);
  result = box.run(box.job("javascript", "let a;\nthrow new TypeError('no');"));
  CHECK(result.exit_code() == 1);
  CHECK(contains(result.err, "TypeError: no"));
  CHECK(contains(result.err, "main.js:2"));
}

TEST_CASE("rust: a program is compiled, run, and sent back before it ran") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "rust"))
    return;
  auto start = box.job("rust", "fn main() { let a: Vec<String> = std::env::args().collect();\n"
                               "println!(\"{:?} {}\", &a[1..],\n"
                               "std::env::current_dir().unwrap().display());\n"
                               "std::process::exit(9) }");
  start.args = {"x y"};
  start.exclusive = true;
  start.want_binary = true;
  auto result = box.run(start);
  CHECK(result.err == "");
  CHECK(result.out == "[\"x y\"] /mnt\n");
  CHECK(result.exit_code() == 9);
  REQUIRE(result.compiled.substr(0, 4)
          == "\x7F"
             "ELF");

  machine second;
  second.expect<guest::hello>();
  auto again = second.job("rust", start.code);
  again.args = {"2"};
  again.binary.assign(result.compiled.begin(), result.compiled.end());
  auto cached = second.run(again);
  CHECK(cached.out == "[\"2\"] /mnt\n");
  CHECK(cached.started->path == run_path::cached);
}

TEST_CASE("rust: errors name main.rs, panics are a debug build's") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "rust"))
    return;
  auto result = box.run(box.job("rust", "fn main() {\n  let x: i32 = \"a\";\n}"));
  CHECK(contains(result.err, "error[E0308]: mismatched types"));
  CHECK(contains(result.err, "--> main.rs:2:16"));
  CHECK(!contains(result.err, "\x1b"));
  CHECK(result.out == "");
  CHECK(result.exit_code() == 1);
  result = box.run(box.job("rust", "fn main() { let v: Vec<u8> = std::env::args().map(|_| 255u8)\n"
                                   ".collect(); println!(\"{}\", v[0] + v[0]); }"));
  CHECK(contains(result.err, "attempt to add with overflow"));
  CHECK(contains(result.err, "main.rs:2"));
  CHECK(result.exit_code() == 101);
}

TEST_CASE("go: a program is compiled, run, and sent back before it ran") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "go"))
    return;
  auto start = box.job("go", "package main\nimport (\"fmt\"; \"os\"; \"net/http\")\nfunc main() {\n"
                             "wd, _ := os.Getwd()\nfmt.Println(os.Args[1:], wd, http.StatusOK)\n"
                             "os.Exit(8)\n}");
  start.args = {"x", "y"};
  start.exclusive = true;
  start.want_binary = true;
  auto result = box.run(start);
  CHECK(result.err == "");
  CHECK(result.out == "[x y] /mnt 200\n");
  CHECK(result.exit_code() == 8);
}

TEST_CASE("go: errors name main.go, with the go tool's exit code") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "go"))
    return;
  auto result = box.run(box.job("go", "package main\nfunc main() {\n  x := 1\n}"));
  CHECK(contains(result.err, "./main.go:3:3: x declared"));
  CHECK(result.out == "");
  CHECK(result.exit_code() == 2);
  result = box.run(box.job("go", "package main\nimport \"example.org/none\"\nfunc main() {}"));
  CHECK(contains(result.err, "main.go:2:8: no required module provides package example.org/none"));
  CHECK(result.exit_code() == 1);
  result = box.run(box.job("go", "package other\nfunc main() {}"));
  CHECK(contains(result.err, "is not a main package"));
  result = box.run(box.job("go", "package main\nimport \"os\"\nfunc main() {\nvar m map[int]int\n"
                                 "os.Stdout.WriteString(\"before\\n\")\nm[1] = 1 }"));
  CHECK(result.out == "before\n");
  CHECK(contains(result.err, "panic: assignment to entry in nil map"));
  CHECK(result.exit_code() == 2);
}

TEST_CASE("a compiler is ended like any program") {
  if (skipped(nullptr, ""))
    return;
  machine box;
  if (skipped(&box, "rust"))
    return;
  auto start = box.job("rust", "fn main() { println!(\"ran\"); }");
  box.send(start);
  box.expect<guest::job_started>();
  box.send(guest::end_job{start.job});
  auto result = box.gather(start.job);
  CHECK(result.signal() == 9);
  CHECK(result.out == "");
}

TEST_CASE("how long each language takes", "[.latency]") {
  machine box;
  if (skipped(&box, "bash"))
    return;
  std::printf("guest: %zu KiB resident\n", box.guest_memory_kib());
  const std::pair<const char*, const char*> programs[]{
      {"bash", "echo 1"},
      {"python", "print(1)"},
      {"javascript", "console.log(1)"},
      {"rust", "fn main() { println!(\"1\"); }"},
      {"go", "package main\nimport \"fmt\"\nfunc main() { fmt.Println(1) }"}};
  for (auto [language, code] : programs) {
    std::vector<double> times;
    for (int i = 0; i < 15; ++i) {
      auto before = std::chrono::steady_clock::now();
      auto result = box.run(box.job(language, code));
      REQUIRE(result.out == "1\n");
      std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - before;
      times.push_back(took.count());
    }
    std::sort(times.begin(), times.end());
    std::printf("%-10s min %.2f ms, p50 %.2f ms\n", language, times.front(), times[7]);
  }
}
