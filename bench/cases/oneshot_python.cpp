// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

namespace berth::bench {

namespace {

const std::vector<std::string> bwrap_command{"/usr/bin/bwrap",
                                             "--ro-bind",
                                             "/",
                                             "/",
                                             "--unshare-all",
                                             "--dev",
                                             "/dev",
                                             "--proc",
                                             "/proc",
                                             "--tmpfs",
                                             "/tmp",
                                             "--die-with-parent",
                                             "/usr/bin/python3",
                                             "-c",
                                             "print(1)"};

/// Why bwrap cannot be compared with here; empty when it can.
std::string bwrap_fault() {
  try {
    auto probe = run_command(bwrap_command);
    if (probe.status == 0 && probe.out == "1\n")
      return {};
    return probe.err.substr(0, probe.err.find('\n'));
  } catch (const failure& why) {
    return why.what();
  }
}

} // namespace

void measure_oneshot_python(bench_context& context) {
  server running = context.start_server();
  running.settle();
  client agent = running.connect();
  const json body = program("python", "print(1)");
  std::string fault = bwrap_fault();
  const int rounds = context.choose(500, 100);
  samples berth, bwrap;
  for (int i = 0; i < 10; ++i) // fills caches on both sides
    timed_run(agent, body, "1\n"), pause_for(thinking_time);
  for (int i = 0; i < rounds; ++i) {
    berth.add(timed_run(agent, body, "1\n"));
    pause_for(thinking_time);
    if (fault.empty() && i % 5 == 0)
      bwrap.add(run_command(bwrap_command).wall_ms);
  }
  report& out = context.results;
  out.figure("p50_ms", "Python one-shot, fresh machine, p50", berth.p50(), "ms", at_most(2),
             berth.text());
  out.figure("p99_ms", "Python one-shot, fresh machine, p99", berth.p99(), "ms", at_most(15));
  out.distribution("berth_ms", berth);
  if (fault.empty()) {
    out.figure("bwrap_p50_ms", "bwrap python3 -c, p50", bwrap.p50(), "ms", {}, bwrap.text());
    out.figure("share_of_bwrap", "Python one-shot / bwrap, p50", berth.p50() / bwrap.p50(), "",
               at_most(0.2));
    out.distribution("bwrap_ms", bwrap);
  } else {
    out.note("bwrap python3 -c", "does not run here: " + fault);
  }
  context.stop_server(running);
}

} // namespace berth::bench
