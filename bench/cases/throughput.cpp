// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

#include <mutex>
#include <thread>

namespace berth::bench {

namespace {

constexpr int clients = 8;

/// What one client or all of them saw.
struct load_result {
  samples times;
  std::size_t failures = 0;
  std::string first_failure;
  double seconds = 0;
};

/// One client: job after job until the end of time. A failure costs it a new connection.
void run_jobs(server& running, clock::time_point until, load_result& all, std::mutex& guard) {
  const json body = program("python", "print(1)");
  std::vector<double> times;
  std::vector<std::string> failures;
  while (clock::now() < until && !stop_wanted) {
    try {
      client agent = running.connect();
      while (clock::now() < until && !stop_wanted) {
        auto begin = clock::now();
        expect_output(agent.call<outcome>("run", body), "1\n");
        times.push_back(ms_since(begin));
      }
    } catch (const std::exception& why) {
      failures.push_back(why.what());
    }
  }
  std::lock_guard lock{guard};
  for (double time : times)
    all.times.add(time);
  if (!failures.empty() && all.failures == 0)
    all.first_failure = failures.front();
  all.failures += failures.size();
}

load_result put_under_load(server& running, milliseconds duration) {
  load_result all;
  std::mutex guard;
  auto begin = clock::now();
  std::vector<std::jthread> threads;
  for (int i = 0; i < clients; ++i)
    threads.emplace_back([&] { run_jobs(running, begin + duration, all, guard); });
  threads.clear(); // joins
  check_stop();
  all.seconds = ms_since(begin) / 1000;
  return all;
}

bool grew(const footprint& before, const footprint& after) {
  return after.descriptors > before.descriptors || after.mounts > before.mounts
         || after.cgroups > before.cgroups || after.processes > before.processes;
}

/// The footprint once everything that was running has been put away, and as many machines stand
/// ready as at rest: a pool follows demand, and falls again within half a minute.
footprint quiet_footprint(server& running, std::uint32_t idle_at_rest,
                          const footprint* before = nullptr) {
  running.settle();
  for (int i = 0; i < 60 && running.idle_machines() > idle_at_rest; ++i)
    pause_for(milliseconds{1'000});
  running.settle();
  footprint now = take_footprint(running.pid());
  // What ends last may take a moment more; what never ends is growth.
  for (int i = 0; before != nullptr && i < 20 && grew(*before, now); ++i) {
    pause_for(milliseconds{250});
    now = take_footprint(running.pid());
  }
  return now;
}

void report_growth(report& out, const footprint& before, const footprint& after) {
  auto growth = [&](const char* key, const char* what, auto member, double most) {
    double from = static_cast<double>(before.*member), to = static_cast<double>(after.*member);
    out.figure(key, what, to - from, "", at_most(most),
               "from " + std::to_string(before.*member) + " to " + std::to_string(after.*member));
  };
  constexpr double mib = 1024 * 1024;
  // Deadlines of 30 s that nobody waits for any more, and the allocator's arenas; a leak of 1 KiB a
  // job would not fit.
  out.figure(
      "resident_growth_mib", "  growth of resident memory",
      (static_cast<double>(after.resident_bytes) - static_cast<double>(before.resident_bytes))
          / mib,
      "MiB", at_most(5));
  growth("descriptor_growth", "  growth of descriptors", &footprint::descriptors, 0);
  growth("mount_growth", "  growth of mounts", &footprint::mounts, 0);
  growth("cgroup_growth", "  growth of cgroups", &footprint::cgroups, 0);
  growth("process_growth", "  growth of processes", &footprint::processes, 0);
}

} // namespace

void measure_throughput(bench_context& context) {
  server running = context.start_server();
  running.settle();
  std::uint32_t idle_at_rest = running.idle_machines();
  // Long enough to fill what is bounded by a number of jobs: results kept for reading, the
  // journal's pages in memory.
  put_under_load(running, context.choose(milliseconds{25'000}, milliseconds{2'000}));
  footprint before = quiet_footprint(running, idle_at_rest);
  auto result = put_under_load(running, context.choose(milliseconds{30'000}, milliseconds{5'000}));
  footprint after = quiet_footprint(running, idle_at_rest, &before);
  report& out = context.results;
  out.figure("jobs_per_second", "8 clients, fresh Python jobs",
             static_cast<double>(result.times.count()) / result.seconds, "/s", at_least(200),
             result.times.text());
  out.figure("failures", "  failures", static_cast<double>(result.failures), "", at_most(0),
             result.first_failure);
  out.distribution("job_ms", result.times);
  report_growth(out, before, after);
  context.stop_server(running);
}

} // namespace berth::bench
