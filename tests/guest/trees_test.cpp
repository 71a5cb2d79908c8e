// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <csignal>

using namespace berth;
using namespace berth::test;

namespace {

bool skipped() {
  static const std::string reason = no_machine_reason();
  if (!reason.empty())
    skip(reason);
  return !reason.empty();
}

/// Reads until the job has said so.
void await_output(machine& box, const std::string& wanted) {
  std::string seen;
  while (seen.find(wanted) == std::string::npos) {
    auto frame = box.next();
    REQUIRE(frame);
    if (auto* out = std::get_if<guest::output>(&*frame))
      seen.append(out->data.begin(), out->data.end());
  }
}

/// Ends a job once it said "ready", beside another job that must not notice, and says what became
/// of it.
job_result end_when_ready(machine& box, const std::string& language, const std::string& code,
                          bool exclusive) {
  auto start = box.job(language, code);
  start.exclusive = exclusive;
  box.send(start);
  await_output(box, "ready");
  box.send(guest::end_job{start.job});
  return box.gather(start.job);
}

constexpr const char* fork_bomb = R"(
import os, signal, resource
signal.signal(signal.SIGTERM, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_NPROC, (150, 150))
os.write(1, b'ready')
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass
)";

} // namespace

TEST_CASE("a job that stopped its own group ends when it is asked to") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = end_when_ready(box, "bash", "echo ready; kill -STOP 0", false);
  CHECK(result.signal() == SIGKILL);
}

TEST_CASE("a job that ignores all it can ends when it is asked to") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = end_when_ready(
      box, "bash", "trap '' TERM INT HUP; (while :; do sleep 100; done) & echo ready; wait", false);
  CHECK(result.signal() == SIGKILL);
}

TEST_CASE("a fork bomb ends whole when its machine is its own") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = end_when_ready(box, "python", fork_bomb, true);
  CHECK(result.signal() == SIGKILL);
  CHECK(box.processes() == 1);
}

TEST_CASE("a fork bomb ends whole, and the job beside it does not notice") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto other = box.job("bash", "read -r line; (exit 7) & wait $!; echo \"$line $?\"");
  other.stdin_open = true;
  box.send(other);
  CHECK(box.expect<guest::job_started>().job == other.job);
  auto result = end_when_ready(box, "python", fork_bomb, false);
  CHECK(result.signal() == SIGKILL);
  box.send(guest::stdin_data{other.job, {'h', 'i', '\n'}, true});
  CHECK(box.gather(other.job).out == "hi 7\n");
}

TEST_CASE("a daemon that forked twice dies with its job") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("bash", R"(
    ( setsid bash -c 'sleep 1000 & echo $! > /mnt/daemon; exec >&- 2>&-; wait' & ) &
    while [ ! -s /mnt/daemon ]; do :; done
    echo started)"));
  CHECK(result.out == "started\n");
  CHECK(result.exit_code() == 0);
  CHECK(box.run(box.job("bash", "kill -0 $(cat /mnt/daemon) 2>/dev/null || echo dead")).out
        == "dead\n");
}

TEST_CASE("an orphan that holds the output does not delay the end") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("bash", "sleep 1000 & sleep 2000 & disown -a; echo bye; exit 5"));
  CHECK(result.out == "bye\n");
  CHECK(result.exit_code() == 5);
}

TEST_CASE("what a dead program wrote last is not lost") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  for (int i = 0; i < 20; ++i) {
    auto result = box.run(box.job("bash", "head -c 60000 /dev/zero; kill -9 $$"));
    REQUIRE(result.signal() == SIGKILL);
    REQUIRE(result.out.size() == 60000);
  }
}

TEST_CASE("processor time of children that nobody waited for is the job's") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("bash", R"(
    for i in 1 2; do ( for ((n = 0; n < 200000; ++n)); do :; done; echo done ) & done
    wait)"));
  CHECK(result.ended->cpu_us > 50000);
}

TEST_CASE("the guest cannot be killed, stopped or looked into by a job") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("bash", R"(
    for s in KILL STOP TERM SEGV BUS INT HUP PIPE CHLD; do kill -$s 1; done
    cat /proc/1/environ /proc/1/maps /proc/1/mem >/dev/null 2>&1 || echo hidden
    ls /proc/1/fd >/dev/null 2>&1 || echo closed)"));
  CHECK(result.out == "hidden\nclosed\n");
  box.send(guest::ping{9});
  CHECK(box.expect<guest::pong>().request == 9);
}
