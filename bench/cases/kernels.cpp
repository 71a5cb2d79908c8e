// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

namespace berth::bench {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;

json cell(const std::string& agent, std::string_view code) {
  json body = program("python", code);
  body["agent_id"] = agent;
  body["kernel"] = true;
  return body;
}

void expect_value(const outcome& of, const std::string& text) {
  bool right = of.state == job_state::exited && of.cell && of.cell->results.size() == 1
               && of.cell->results[0].data.contains("text/plain")
               && of.cell->results[0].data.at("text/plain") == text;
  if (!right)
    throw failure{"a cell ended as " + std::string{name_of(of.state)} + ": " + of.detail};
}

void measure_cells(bench_context& context, server& running) {
  report& out = context.results;
  client agent = running.connect();
  agent.call<outcome>("run", cell("one", "x = 0"));
  const json add = cell("one", "x += 1");
  samples each;
  auto rounds = context.choose<std::size_t>(2'000, 300);
  for (std::size_t i = 0; i < rounds; ++i) {
    auto begin = clock::now();
    auto ended = agent.call<outcome>("run", add);
    each.add(ms_since(begin));
    if (ended.state != job_state::exited || *ended.exit_code != 0)
      throw failure{"a cell failed: " + ended.detail};
  }
  out.figure("cell_p50_ms", "cell `x += 1`, p50", each.p50(), "ms", at_most(0.5), each.text());
  expect_value(agent.call<outcome>("run", cell("one", "x")), std::to_string(rounds));
  // One session, many in flight: how many cells a second it takes.
  client many = running.connect(zmq::socket_type::dealer);
  auto total = context.choose<std::size_t>(6'000, 1'000);
  constexpr std::size_t in_flight = 16;
  auto begin = clock::now();
  for (std::size_t sent = 0, done = 0; done < total;) {
    for (; sent < total && sent - done < in_flight; ++sent)
      many.send("run", add);
    many.receive().as<outcome>();
    ++done;
  }
  double rate = static_cast<double>(total) / ms_since(begin) * 1000;
  out.figure("cells_per_second", "  cells a second on one session", rate, "/s", at_least(2'000));
  expect_value(agent.call<outcome>("run", cell("one", "x")), std::to_string(rounds + total));
}

/// Proportional memory of everything below the server, itself included.
double all_memory(pid_t server) {
  double sum = static_cast<double>(proportional_bytes(server));
  for (const auto& [place, pids] : machine_processes(server))
    for (pid_t pid : pids)
      sum += static_cast<double>(proportional_bytes(pid));
  return sum;
}

void measure_many(bench_context& context, server& running, std::size_t count) {
  report& out = context.results;
  client agents = running.connect(zmq::socket_type::dealer);
  auto begin = clock::now();
  constexpr std::size_t in_flight = 32;
  std::size_t warm = 0;
  for (std::size_t sent = 0, done = 0; done < count;) {
    for (; sent < count && sent - done < in_flight; ++sent)
      agents.send("run", cell("kernel-" + std::to_string(sent), "x = [1]; len(x)"));
    auto ended = agents.receive().as<outcome>();
    expect_value(ended, "1");
    warm += ended.path == run_path::warm;
    ++done;
  }
  std::string text = std::to_string(count);
  out.figure("kernels_ms", text + " sessions with a live Python each, a cell run in each",
             ms_since(begin), "ms");
  out.figure("warm_kernels", "  of which forked from the template", static_cast<double>(warm), "");
  running.settle();
  double memory = all_memory(running.pid());
  // The promise is for 500; fewer may have as much as their share.
  double allowed = 3.0 * static_cast<double>(count) / 500;
  out.figure("kernels_gib", "  memory (PSS) of the server and all of them", memory / gib, "GiB",
             at_most(allowed));
}

} // namespace

void measure_kernels(bench_context& context) {
  auto count = context.choose<std::size_t>(500, 100);
  server running = context.start_server({{"pool", {{"slots_max", count + 64}}}});
  running.settle();
  measure_cells(context, running);
  measure_many(context, running, count);
  context.stop_server(running);
}

} // namespace berth::bench
