// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

namespace berth::bench {

void measure_durability(bench_context& context) {
  json in_memory;
  in_memory["vm_execution"]["history"]["persist_history"] = false;
  server durable = context.start_server();
  server forgetful = context.start_server(in_memory);
  durable.settle();
  forgetful.settle();
  client with = durable.connect(), without = forgetful.connect();
  const json body = program("python", "print(1)");
  samples on_disk, memory_only;
  for (int i = 0, rounds = context.choose(310, 110); i < rounds; ++i) {
    double first = timed_run(with, body, "1\n");
    pause_for(thinking_time);
    double second = timed_run(without, body, "1\n");
    pause_for(thinking_time);
    if (i < 10)
      continue;
    on_disk.add(first);
    memory_only.add(second);
  }
  report& out = context.results;
  out.figure("disk_p50_ms", "Python one-shot, journal on disk, p50", on_disk.p50(), "ms", {},
             on_disk.text());
  out.figure("memory_p50_ms", "Python one-shot, journal in memory, p50", memory_only.p50(), "ms",
             {}, memory_only.text());
  out.figure("ratio", "  price of durability", on_disk.p50() / memory_only.p50(), "",
             at_most(1.15));
  out.distribution("disk_ms", on_disk);
  out.distribution("memory_ms", memory_only);
  context.stop_server(durable);
  context.stop_server(forgetful);
}

} // namespace berth::bench
