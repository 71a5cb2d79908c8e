// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "bench/cases/oneshot.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

namespace berth::bench {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t machines_alive = 20;
/// Between jobs of a pooled machine: its successor is up and warm by then.
constexpr milliseconds pool_refills_in{700};
/// After so long an idle machine does nothing but tick.
constexpr milliseconds machines_rest_in{3'000};

/// The server's data with the images in it that BERTH_VM_DATA names, or the host's.
class vm_home {
public:
  vm_home() {
    const char* given = std::getenv("BERTH_VM_DATA");
    if (given != nullptr)
      fs::create_directory_symlink(fs::path{given} / "images", place_.path() + "/images");
  }
  json config(json pool) const {
    return {{"kind", "qemu"},
            {"data_dir", place_.path()},
            {"qemu", {{"image", "minimal"}}},
            {"pool", std::move(pool)}};
  }

private:
  temporary_directory place_;
};

std::string fact_with(const server& at, std::string_view begin) {
  for (const auto& line : at.health().isolation)
    if (line.starts_with(begin))
      return line;
  return {};
}

/// The number before " ms" that follows a word in a fact.
double ms_after(const std::string& fact, const std::string& word) {
  auto at = fact.find(word);
  return at == std::string::npos ? 0 : std::atof(fact.c_str() + at + word.size());
}

void measure_cold(bench_context& context, const server& at) {
  context.results.note("  accelerator", fact_with(at, "accelerator"));
  context.results.note("  probe", fact_with(at, "KVM"));
  std::string fact = fact_with(at, "template");
  context.results.note("  template", fact);
  context.results.figure("cold_python_ms", "boot to the first Python output",
                         ms_after(fact, "first Python output after "), "ms", at_most(1500));
}

void measure_on_demand(bench_context& context, const vm_home& home) {
  auto at = context.start_server(
      home.config({{"warm", json::object()}, {"warm_max", 0}, {"slots_max", 16}}));
  measure_cold(context, at);
  client one = at.connect();
  (void)timed_run(one, program("python", "print(1)"), "1\n");
  samples taken;
  for (std::size_t i = 0; i < context.choose<std::size_t>(40, 8); ++i) {
    std::this_thread::sleep_for(milliseconds{150});
    taken.add(timed_run(one, program("python", "print(1)"), "1\n"));
  }
  context.results.figure("on_demand_p50_ms", "Python in a clone made on demand, p50", taken.p50(),
                         "ms", at_most(180), taken.text());
  // Several clients, each job in a machine of its own, made and ended for it.
  std::atomic<std::size_t> jobs = 0;
  auto begin = clock::now();
  auto until = begin + std::chrono::seconds{context.choose(15, 4)};
  std::vector<std::thread> clients;
  std::mutex mutex;
  std::string problem;
  for (int i = 0; i < 4; ++i)
    clients.emplace_back([&] {
      try {
        client mine = at.connect();
        while (clock::now() < until) {
          (void)timed_run(mine, program("python", "print(1)"), "1\n");
          ++jobs;
        }
      } catch (const std::exception& why) {
        std::lock_guard guard{mutex};
        problem = why.what();
      }
    });
  for (auto& each : clients)
    each.join();
  if (!problem.empty())
    throw failure{problem};
  context.results.figure("one_job_machines_per_s", "machines made, used once and ended, a second",
                         static_cast<double>(jobs.load()) * 1000.0 / ms_since(begin), "/s",
                         at_least(12));
  context.stop_server(at);
}

void measure_pooled(bench_context& context, const vm_home& home) {
  auto at = context.start_server(
      home.config({{"warm", {{"python", 3}}}, {"warm_max", 3}, {"slots_max", 16}}));
  client one = at.connect();
  at.settle();
  samples jobs;
  for (std::size_t i = 0; i < context.choose<std::size_t>(40, 8); ++i) {
    std::this_thread::sleep_for(pool_refills_in);
    jobs.add(timed_run(one, program("python", "print(1)"), "1\n"));
  }
  context.results.figure("pooled_p50_ms", "Python in a pooled machine, p50", jobs.p50(), "ms",
                         at_most(25), jobs.text());
  samples takes;
  for (std::size_t i = 0; i < context.choose<std::size_t>(10, 3); ++i) {
    std::this_thread::sleep_for(pool_refills_in);
    auto begin = clock::now();
    auto session = one.call<session_info>("open_session").session;
    takes.add(ms_since(begin));
    (void)one.call<session_closed>("close_session", {{"session", session}});
  }
  context.results.figure("take_p50_ms", "a machine from the pool, p50", takes.p50(), "ms",
                         at_most(5), takes.text());
  context.stop_server(at);
}

void measure_states(bench_context& context, client& one, const std::string& session) {
  json body = program("python", "print(open('/tmp/x').read())");
  body["session"] = session;
  json change = program("bash", "echo -n $RANDOM > /tmp/x");
  change["session"] = session;
  json keep = program("bash", "echo -n kept > /tmp/x");
  keep["session"] = session;
  samples snapshots;
  samples rollbacks;
  samples answers;
  for (std::size_t i = 0; i < context.choose<std::size_t>(15, 3); ++i) {
    (void)one.call<outcome>("run", keep);
    auto begin = clock::now();
    auto point =
        one.call<snapshot_info>("snapshot", {{"session", session}, {"wait_durable", false}});
    snapshots.add(ms_since(begin));
    (void)one.call<outcome>("run", change);
    begin = clock::now();
    (void)one.call<rolled_back>("rollback", {{"session", session}, {"snapshot", point.snapshot}});
    rollbacks.add(ms_since(begin));
    expect_output(one.call<outcome>("run", body), "kept\n");
    answers.add(ms_since(begin));
  }
  context.results.figure("snapshot_p50_ms", "snapshot of a whole machine, p50", snapshots.p50(),
                         "ms", at_most(120), snapshots.text());
  context.results.figure("rollback_p50_ms", "rollback in place to its reply, p50", rollbacks.p50(),
                         "ms", at_most(100), rollbacks.text());
  context.results.figure("rollback_answer_p50_ms",
                         "rollback in place to the output of the next Python job, p50",
                         answers.p50(), "ms", at_most(100), answers.text());
}

void measure_alive(bench_context& context, const vm_home& home) {
  auto at = context.start_server(home.config({{"warm", json::object()}, {"slots_max", 40}}));
  client one = at.connect();
  std::vector<std::string> sessions;
  for (std::size_t i = 0; i < machines_alive; ++i)
    sessions.push_back(one.call<session_info>("open_session").session);
  std::this_thread::sleep_for(machines_rest_in);
  std::vector<double> bytes;
  for (const auto& [space, processes] : machine_processes(at.pid())) {
    bytes.push_back(0);
    for (pid_t pid : processes)
      bytes.back() += static_cast<double>(proportional_bytes(pid));
  }
  // A QEMU that waits for its machine is none yet, and smaller than all that are.
  std::ranges::sort(bytes, std::greater{});
  const auto qemus = bytes.size();
  if (qemus < machines_alive)
    throw failure{"only " + std::to_string(qemus) + " machines are alive"};
  bytes.resize(machines_alive);
  double mib =
      std::accumulate(bytes.begin(), bytes.end(), 0.0) / machines_alive / (1024.0 * 1024.0);
  context.results.figure("idle_pss_mib", "an idle machine of 20, its share of memory", mib, "MiB",
                         at_most(24), std::to_string(qemus) + " QEMU processes");
  for (const auto& session : sessions) {
    json body = program("python", "print(1)");
    body["session"] = session;
    expect_output(one.call<outcome>("run", body), "1\n");
  }
  measure_states(context, one, sessions.front());
  context.stop_server(at);
}

} // namespace

void measure_virtual_machines(bench_context& context) {
  vm_home home;
  measure_on_demand(context, home);
  measure_pooled(context, home);
  measure_alive(context, home);
}

} // namespace berth::bench
