// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

#include <functional>

namespace berth::bench {

namespace {

/// A compiled language: how its programs are made and how they run without Berth.
struct compiled_language {
  std::string name;
  std::string shown;
  /// Hello world that no cache knows, for a number.
  std::function<std::string(int)> source;
  /// Compiles and runs a source in a directory; returns the time, ms.
  std::function<double(const std::string& directory, const std::string& source)> bare;
  double most_of_bare;
};

void expect_bare(const command_result& of, const char* what) {
  if (of.status != 0)
    throw failure{std::string{what} + " ended with " + std::to_string(of.status) + ": "
                  + of.err.substr(0, 300)};
}

double run_bare_rust(const std::string& directory, const std::string& source) {
  write_text(directory + "/h.rs", source);
  const std::vector<std::string> environment{"PATH=/usr/bin:/bin"};
  auto made = run_command({"/usr/bin/rustc", "h.rs", "-o", "h"}, environment, directory);
  expect_bare(made, "rustc");
  auto ran = run_command({directory + "/h"}, environment, directory);
  expect_bare(ran, "the Rust program");
  return made.wall_ms + ran.wall_ms;
}

double run_bare_go(const std::string& directory, const std::string& source) {
  write_text(directory + "/h.go", source);
  auto ran =
      run_command({"/usr/bin/go", "run", "h.go"},
                  {"PATH=/usr/bin:/bin", "HOME=" + directory, "GOCACHE=" + directory + "/cache",
                   "GOPATH=" + directory + "/go", "GOTOOLCHAIN=local"},
                  directory);
  expect_bare(ran, "go run");
  return ran.wall_ms;
}

void measure_compiled(bench_context& context, const compiled_language& language) {
  server running = context.start_server();
  running.settle();
  client agent = running.connect();
  temporary_directory place;
  int number = 1000;
  auto fresh = [&] {
    int mine = ++number;
    return timed_run(agent, program(language.name, language.source(mine)),
                     "hello " + std::to_string(mine) + "\n");
  };
  fresh(); // the caches of both sides, once
  language.bare(place.path(), language.source(++number));
  samples berth, bare, again;
  for (int i = 0, rounds = context.choose(12, 4); i < rounds; ++i) {
    berth.add(fresh());
    bare.add(language.bare(place.path(), language.source(++number)));
  }
  const json same = program(language.name, language.source(1));
  timed_run(agent, same, "hello 1\n");
  for (int i = 0, rounds = context.choose(100, 30); i < rounds; ++i) {
    pause_for(thinking_time);
    again.add(timed_run(agent, same, "hello 1\n"));
  }
  report& out = context.results;
  out.figure("p50_ms", language.shown + " hello, new source, p50", berth.p50(), "ms", {},
             berth.text());
  out.figure("bare_p50_ms", "bare " + language.shown + ", p50", bare.p50(), "ms", {}, bare.text());
  out.figure("share_of_bare", language.shown + " hello / bare, p50", berth.p50() / bare.p50(), "",
             at_most(language.most_of_bare));
  out.figure("again_p50_ms", language.shown + ", the same program again, p50", again.p50(), "ms",
             at_most(6), again.text());
  out.distribution("berth_ms", berth);
  out.distribution("bare_ms", bare);
  out.distribution("again_ms", again);
  context.stop_server(running);
}

} // namespace

void measure_rust(bench_context& context) {
  auto source = [](int number) {
    return "fn main() {\n    println!(\"hello {}\", " + std::to_string(number) + ");\n}\n";
  };
  measure_compiled(context, {.name = "rust",
                             .shown = "Rust",
                             .source = source,
                             .bare = run_bare_rust,
                             .most_of_bare = 0.5});
}

void measure_go(bench_context& context) {
  auto source = [](int number) {
    return "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(\"hello\", "
           + std::to_string(number) + ")\n}\n";
  };
  measure_compiled(
      context,
      {.name = "go", .shown = "Go", .source = source, .bare = run_bare_go, .most_of_bare = 0.8});
}

} // namespace berth::bench
