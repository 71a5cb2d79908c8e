// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

#include <algorithm>
#include <functional>

namespace berth::bench {

namespace {

constexpr std::size_t count = 100;
constexpr double mib = 1024 * 1024;

/// Sends one request for each session at once and waits for all answers. Returns the time, ms.
double for_all(client& with, std::string_view op, const std::function<json(std::size_t)>& body,
               const std::function<void(std::size_t, const answer&)>& take) {
  auto begin = clock::now();
  std::uint64_t first = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t id = with.send(op, body(i));
    if (i == 0)
      first = id;
  }
  double ms = 0;
  std::vector<answer> answers;
  for (std::size_t i = 0; i < count; ++i)
    answers.push_back(with.receive());
  ms = ms_since(begin);
  for (const answer& one : answers)
    take(one.id - first, one);
  return ms;
}

/// Memory of each machine, bytes, smallest first.
std::vector<double> machine_memory(pid_t server) {
  std::vector<double> all;
  for (const auto& [place, pids] : machine_processes(server)) {
    double sum = 0;
    for (pid_t pid : pids)
      sum += static_cast<double>(proportional_bytes(pid));
    all.push_back(sum);
  }
  std::ranges::sort(all);
  return all;
}

/// Mean over the largest `count` machines: the sessions' and not the smaller idle ones'.
void report_memory(report& out, const char* key, const char* what, pid_t server,
                   std::optional<target> wanted) {
  auto memory = machine_memory(server);
  if (memory.size() < count || memory.back() == 0)
    return out.note(what, "cannot be seen by this user");
  double sum = 0;
  for (auto one = memory.end() - count; one != memory.end(); ++one)
    sum += *one;
  char largest[48];
  std::snprintf(largest, sizeof largest, "largest %.2f MiB", memory.back() / mib);
  out.figure(key, what, sum / count / mib, "MiB", wanted, largest);
}

} // namespace

void measure_sessions(bench_context& context) {
  server running = context.start_server({{"pool", {{"slots_max", 192}}}});
  running.settle();
  report& out = context.results;
  client agents = running.connect(zmq::socket_type::dealer);
  std::vector<std::string> sessions(count);
  double opened = for_all(
      agents, "open_session",
      [](std::size_t i) {
        return json{{"agent_id", "agent-" + std::to_string(i)}};
      },
      [&](std::size_t i, const answer& got) {
        auto info = got.as<session_info>();
        if (info.state != session_state::ready)
          throw failure{"a session opened as " + std::string{name_of(info.state)}};
        sessions.at(i) = info.session;
      });
  out.figure("ready_ms", "100 sessions ready", opened, "ms", at_most(600));
  running.settle();
  report_memory(out, "pss_mib", "  memory (PSS) of an idle warm session, mean", running.pid(),
                at_most(4));
  std::size_t warm = 0;
  double ran = for_all(
      agents, "run",
      [](std::size_t i) {
        json body = program("python", "print(" + std::to_string(i) + ")");
        body["agent_id"] = "agent-" + std::to_string(i);
        return body;
      },
      [&](std::size_t i, const answer& got) {
        auto ended = got.as<outcome>();
        expect_output(ended, std::to_string(i) + "\n");
        if (ended.session != sessions.at(i))
          throw failure{"a job ran in session " + ended.session + " instead of " + sessions.at(i)};
        warm += ended.path == run_path::warm;
      });
  out.figure("jobs_ms", "  a Python job in each, all done", ran, "ms");
  out.figure("warm_jobs", "  of which warm", static_cast<double>(warm), "", at_least(count));
  running.settle();
  report_memory(out, "used_pss_mib", "  memory (PSS) after the job, mean", running.pid(), {});
  double closed = for_all(
      agents, "close_session",
      [&](std::size_t i) {
        return json{{"session", sessions[i]}};
      },
      [](std::size_t, const answer& got) { got.as<session_closed>(); });
  out.figure("closed_ms", "  100 sessions torn down", closed, "ms", at_most(200));
  context.stop_server(running);
}

} // namespace berth::bench
