// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

namespace berth::bench {

void measure_bash(bench_context& context) {
  server running = context.start_server();
  running.settle();
  client agent = running.connect();
  const json body = program("bash", "echo 1");
  samples times;
  for (int i = 0; i < 10; ++i)
    timed_run(agent, body, "1\n"), pause_for(thinking_time);
  for (int i = 0, rounds = context.choose(300, 100); i < rounds; ++i) {
    times.add(timed_run(agent, body, "1\n"));
    pause_for(thinking_time);
  }
  context.results.figure("p50_ms", "Bash one-shot, fresh machine, p50", times.p50(), "ms",
                         at_most(2), times.text());
  context.results.distribution("berth_ms", times);
  context.stop_server(running);
}

void measure_javascript(bench_context& context) {
  constexpr milliseconds period{50}; // 20 a second
  const std::vector<std::string> bare{"/usr/bin/node", "-e", "console.log(1)"};
  server running = context.start_server();
  running.settle();
  client agent = running.connect();
  const json body = program("javascript", "console.log(1)");
  samples times, node;
  std::size_t late = 0;
  for (int turn = 0, turns = context.choose(15, 4); turn < turns; ++turn) {
    for (int i = 0; i < 3; ++i)
      node.add(run_command(bare).wall_ms);
    auto due = clock::now() + period;
    for (int i = 0; i < 20; ++i, due += period) {
      if (clock::now() > due)
        ++late;
      else
        pause_for(std::chrono::duration_cast<std::chrono::microseconds>(due - clock::now()));
      times.add(timed_run(agent, body, "1\n"));
    }
  }
  report& out = context.results;
  out.figure("p50_ms", "JavaScript at 20 jobs/s, fresh machine, p50", times.p50(), "ms", at_most(5),
             times.text());
  out.figure("late", "  jobs that began late", static_cast<double>(late), "");
  out.distribution("berth_ms", times);
  out.figure("node_p50_ms", "node -e, p50", node.p50(), "ms", {}, node.text());
  out.distribution("node_ms", node);
  context.stop_server(running);
}

} // namespace berth::bench
