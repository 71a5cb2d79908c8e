// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

#include <algorithm>
#include <thread>

namespace berth::bench {

namespace {

constexpr std::size_t chain_length = 100;
constexpr std::uint32_t forks = 100;

json in_session(const std::string& session, std::string_view language, std::string_view code) {
  json body = program(language, code);
  body["session"] = session;
  return body;
}

outcome run_well(client& with, const json& body) {
  auto ended = with.call<outcome>("run", body);
  if (ended.state != job_state::exited || ended.exit_code.value_or(-1) != 0)
    throw failure{"a job ended as " + std::string{name_of(ended.state)} + ": " + ended.detail};
  return ended;
}

json cell(const std::string& session, std::string_view code) {
  json body = in_session(session, "python", code);
  body["kernel"] = true;
  return body;
}

/// A session with a heap of 10 MB in a live interpreter, and so many MiB of files that stay.
std::string open_with(client& with, std::size_t still_mib) {
  json body{{"memory_mib", 4096}, {"disk_mib", 4096}, {"processes", 512}};
  std::string session = with.call<session_info>("open_session", body).session;
  run_well(with, cell(session, "heap = bytearray(b'x' * 10_000_000); rounds = 0"));
  if (still_mib > 0)
    run_well(with, in_session(session, "bash",
                              "mkdir still; for i in $(seq " + std::to_string(still_mib / 8)
                                  + "); do head -c 8388608 /dev/urandom > still/$i; done"));
  run_well(with, in_session(session, "bash", "mkdir -p changed"));
  return session;
}

constexpr std::string_view change_files =
    "rounds += 1\n"
    "for i in range(1000):\n"
    "    with open(f'changed/{i}', 'w') as f: f.write(f'{rounds} {i}' * 20)\n";

struct times {
  samples snapshots;
  samples durable;
  samples rollbacks;
};

/// Changes 1,000 files and the heap, saves, changes again, goes back, checks what came back.
times measure_one(bench_context& context, client& with, const std::string& session) {
  times taken;
  auto rounds = context.choose<std::size_t>(25, 5);
  for (std::size_t i = 1; i <= rounds; ++i) {
    std::string before = "rounds = " + std::to_string(i) + "\n";
    run_well(with, cell(session, before + std::string{change_files}));
    auto begin = clock::now();
    auto point =
        with.call<snapshot_info>("snapshot", {{"session", session}, {"wait_durable", false}});
    taken.snapshots.add(ms_since(begin));
    if (point.content != snapshot_content::files_and_memory)
      throw failure{"a snapshot holds no memory"};
    for (;;) {
      auto all = with.call<snapshot_list>("snapshots", {{"session", session}});
      if (std::ranges::all_of(all.snapshots, &snapshot_info::durable))
        break;
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    taken.durable.add(ms_since(begin));
    run_well(with, cell(session, change_files));
    begin = clock::now();
    auto back =
        with.call<rolled_back>("rollback", {{"session", session}, {"snapshot", point.snapshot}});
    taken.rollbacks.add(ms_since(begin));
    if (back.content != snapshot_content::files_and_memory)
      throw failure{"a rollback gave back no memory: " + back.detail};
    auto told = run_well(with, cell(session, "print(rounds, open('changed/7').read()[:4])"));
    std::string wanted = std::to_string(i + 1) + " " + std::to_string(i + 1) + " 7";
    if (std::string{told.stdout_data.begin(), told.stdout_data.end()}.substr(0, wanted.size())
        != wanted)
      throw failure{"a rollback gave back the wrong state"};
  }
  return taken;
}

void measure_chain(report& out, client& with) {
  std::string session = open_with(with, 0);
  auto job = in_session(session, "bash", "read n < changed/n; echo $((n + 1)) > changed/n");
  run_well(with, in_session(session, "bash", "echo 0 > changed/n"));
  auto p50_of_jobs = [&] {
    samples each;
    for (int i = 0; i < 40; ++i) {
      auto begin = clock::now();
      run_well(with, job);
      each.add(ms_since(begin));
    }
    return each.p50();
  };
  double before = p50_of_jobs();
  std::string first;
  for (std::size_t i = 0; i < chain_length; ++i) {
    run_well(with, in_session(session, "bash", "echo " + std::to_string(i) + " > changed/n"));
    auto point =
        with.call<snapshot_info>("snapshot", {{"session", session}, {"wait_durable", false}});
    if (first.empty())
      first = point.snapshot;
  }
  double after = p50_of_jobs();
  out.figure("chain_job_ratio", "a job after 100 snapshots, against before", after / before, "",
             at_most(1.25));
  auto begin = clock::now();
  auto back = with.call<rolled_back>("rollback", {{"session", session}, {"snapshot", first}});
  out.figure("chain_rollback_ms", "  rollback to the first of them", ms_since(begin), "ms", {},
             std::string{name_of(back.content)});
  auto told = run_well(with, in_session(session, "bash", "cat changed/n"));
  if (told.stdout_data != bytes{'0', '\n'})
    throw failure{"the first snapshot came back wrong"};
}

void measure_forks(report& out, client& with) {
  std::string session = open_with(with, 0);
  run_well(with, cell(session, change_files));
  auto begin = clock::now();
  auto made = with.call<forked>("fork", {{"session", session}, {"count", forks}});
  double ms = ms_since(begin);
  out.figure("forks_ms", "100 forks of a session", ms, "ms", at_most(500),
             std::string{name_of(made.content)});
  auto told =
      run_well(with, in_session(made.sessions.at(42).session, "bash", "ls changed | wc -l"));
  if (told.stdout_data != bytes{'1', '0', '0', '0', '\n'})
    throw failure{"a fork has not its parent's files"};
}

} // namespace

void measure_state(bench_context& context) {
  server running = context.start_server({{"pool", {{"slots_max", 192}}}});
  running.settle();
  report& out = context.results;
  client with = running.connect();
  times small = measure_one(context, with, open_with(with, 0));
  out.figure("snapshot_ms", "snapshot, 10 MB heap and 1,000 changed files", small.snapshots.p50(),
             "ms", at_most(5), small.snapshots.text());
  out.figure("durable_ms", "  until it is on disk", small.durable.p50(), "ms", {},
             small.durable.text());
  out.figure("rollback_ms", "rollback of that", small.rollbacks.p50(), "ms", at_most(8),
             small.rollbacks.text());
  times large = measure_one(context, with, open_with(with, 1024));
  out.figure("snapshot_1gib_ratio", "  snapshot beside 1 GiB of unchanged files, against without",
             large.snapshots.p50() / small.snapshots.p50(), "", at_most(2), large.snapshots.text());
  out.figure("rollback_1gib_ratio", "  rollback beside them, against without",
             large.rollbacks.p50() / small.rollbacks.p50(), "", at_most(2), large.rollbacks.text());
  measure_chain(out, with);
  measure_forks(out, with);
  context.stop_server(running);
}

} // namespace berth::bench
