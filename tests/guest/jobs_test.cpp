// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <numeric>

using namespace berth;
using namespace berth::test;

namespace {

bytes as_bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

bool skipped() {
  static const std::string reason = no_machine_reason();
  if (!reason.empty())
    skip(reason);
  return !reason.empty();
}

} // namespace

TEST_CASE("a job's exit code is the kernel's, for every code there is") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  for (int code = 0; code < 256; ++code) {
    auto result = box.run(box.job("bash", "exit " + std::to_string(code)));
    REQUIRE(result.exit_code() == code);
    REQUIRE(result.signal() == -1);
  }
}

TEST_CASE("a job that a signal ends is told with that signal") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  for (int number = 1; number < 65; ++number) {
    bool ends = number != SIGCHLD && number != SIGURG && number != SIGWINCH && number != SIGCONT
                && number != SIGSTOP && number != SIGTSTP && number != SIGTTIN && number != SIGTTOU
                && number != 32 && number != 33;
    if (!ends)
      continue;
    std::string name = std::to_string(number);
    auto result =
        box.run(box.job("python", "import os, resource, signal\n"
                                  "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
                                  "if "
                                      + name + " not in (9, 19):\n  signal.signal(" + name
                                      + ", signal.SIG_DFL)\nos.kill(os.getpid(), " + name + ")"));
    CAPTURE(number, result.out, result.err);
    REQUIRE(result.signal() == number);
  }
}

TEST_CASE("output arrives byte for byte, NUL and broken UTF-8 included") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("bash", R"(printf 'a\0b\xff\xfe\xc3'; printf 'e\0\x80' >&2)"));
  CHECK(result.out == std::string("a\0b\xff\xfe\xc3", 6));
  CHECK(result.err == std::string("e\0\x80", 3));
  CHECK(result.started);
  CHECK(result.ended->wall_us > 0);
  CHECK(result.ended->memory_peak_bytes > 0);
}

TEST_CASE("a slow reader holds back a hundred megabytes without losing one") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto start = box.job("bash", "head -c 104857600 /dev/zero | tr '\\0' x");
  start.output_bytes = 200 << 20;
  box.send(start);
  // The reader is slow: another job is asked for and ends only when this one's output moves.
  std::size_t bytes_read = 0;
  std::size_t guest_kib_max = 0;
  std::optional<guest::job_ended> ended;
  std::size_t frames = 0;
  while (!ended) {
    auto frame = box.next();
    REQUIRE(frame);
    if (auto* out = std::get_if<guest::output>(&*frame)) {
      REQUIRE(out->data.size() <= limits::chunk_bytes_max);
      bytes_read += out->data.size();
      if (++frames % 64 == 0)
        guest_kib_max = std::max(guest_kib_max, box.guest_memory_kib());
    } else if (auto* end = std::get_if<guest::job_ended>(&*frame)) {
      ended = *end;
    }
  }
  CHECK(bytes_read == 104857600);
  CHECK(ended->stdout_lost == 0);
  CHECK(guest_kib_max < 16 * 1024);
}

TEST_CASE("output past the limit is counted, and the job goes on") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto start = box.job("bash", "head -c 300000 /dev/zero; head -c 50 /dev/zero >&2; exit 4");
  start.output_bytes = 1000;
  auto result = box.run(start);
  CHECK(result.out.size() == 1000);
  CHECK(result.ended->stdout_lost == 299000);
  CHECK(result.err.size() == 50);
  CHECK(result.ended->stderr_lost == 0);
  CHECK(result.exit_code() == 4);
}

TEST_CASE("input reaches the program and is credited as it is taken") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto start = box.job("bash", "read -r first; echo \"<$first>\"; cat | wc -c");
  start.stdin_open = true;
  box.send(start);
  box.send(guest::stdin_data{start.job, as_bytes("one\n"), false});
  std::string megabyte(1 << 20, 'y');
  for (int i = 0; i < 3; ++i)
    box.send(guest::stdin_data{start.job, as_bytes(megabyte), false});
  box.send(guest::stdin_data{start.job, {}, true});
  auto result = box.gather(start.job);
  CHECK(result.out == "<one>\n3145728\n");
  CHECK(result.input_taken == 3145728 + 4);
}

TEST_CASE("input that nobody reads does not keep a job from ending") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto start = box.job("bash", "exec 0<&-; exit 3");
  start.stdin_open = true;
  box.send(start);
  box.send(guest::stdin_data{start.job, bytes(1 << 20, 'x'), false});
  auto result = box.gather(start.job);
  CHECK(result.exit_code() == 3);
}

TEST_CASE("without input a program reads its end at once") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  CHECK(box.run(box.job("bash", "cat; echo done")).out == "done\n");
  CHECK(box.run(box.job("python", "import sys; print(repr(sys.stdin.read()))")).out == "''\n");
}

TEST_CASE("sixteen jobs run at once and the seventeenth is refused") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  std::vector<std::uint32_t> numbers;
  for (int i = 0; i < 16; ++i) {
    auto start = box.job("bash", "read -r line; exit $line");
    start.stdin_open = true;
    box.send(start);
    numbers.push_back(start.job);
  }
  auto refused = box.run(box.job("bash", "echo no"));
  REQUIRE(refused.refused);
  CHECK(refused.refused->reason == "too many jobs are alive in this machine");
  for (std::uint32_t number : numbers) {
    box.send(guest::stdin_data{number, as_bytes(std::to_string(number) + "\n"), true});
    CHECK(box.gather(number).exit_code() == static_cast<int>(number));
  }
  CHECK(box.run(box.job("bash", "echo again")).out == "again\n");
}

TEST_CASE("what cannot be started is refused with its reason") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto reason = [&](const guest::start_job& start) {
    auto result = box.run(start);
    REQUIRE(result.refused);
    CHECK(!result.started);
    return result.refused->reason;
  };
  CHECK(reason(box.job("cobol", "")) == "cobol is not a language of this machine");
  auto start = box.job("bash", "");
  start.args = {std::string("a\0b", 3)};
  CHECK(reason(start) == "an argument contains a NUL byte");
  start = box.job("bash", "");
  start.env["A=B"] = "1";
  CHECK(reason(start).find("'='") != std::string::npos);
  start = box.job("bash", "");
  start.cwd = "/proc/none";
  CHECK(reason(start).find("/proc/none") == 0);
  start = box.job("bash", "");
  start.args = {std::string(200 * 1024, 'a')};
  CHECK(reason(start).find("Argument list too long") != std::string::npos);
  start = box.job("rust", "");
  start.binary = as_bytes("not a program");
  CHECK(reason(start).find("Exec format error") != std::string::npos);
  CHECK(box.run(box.job("bash", "echo fine")).out == "fine\n");
}

TEST_CASE("arguments, environment and directory are the job's") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  for (const char* language : {"bash", "python", "javascript"}) {
    for (int round = 0; round < 2; ++round) {
      std::string code =
          language == std::string{"bash"} ? "printf '%s|' \"$@\" \"$SPECIAL\" \"$HOME\"; pwd"
          : language == std::string{"python"}
              ? "import sys,os; print(*sys.argv[1:], os.environ['SPECIAL'], os.environ['HOME'], "
                "os.getcwd(), sep='|')"
              : "console.log([...process.argv.slice(2), process.env.SPECIAL, process.env.HOME, "
                "process.cwd()].join('|'))";
      auto start = box.job(language, code);
      start.args = {"plain", "two words", "$(id)", "", "line\nbreak", "'\"\\"};
      start.env["SPECIAL"] = "\"quoted\" 'x'\n\\ \xC3\xA9";
      start.cwd = "/tmp/deep/er";
      auto result = box.run(start);
      CAPTURE(language, round, result.err);
      CHECK(result.out
            == "plain|two words|$(id)||line\nbreak|'\"\\|\"quoted\" 'x'\n\\ \xC3\xA9|/home/agent|"
               "/tmp/deep/er\n");
    }
  }
}

TEST_CASE("a job sees three descriptors, no signal blocked or ignored, and its own session") {
  if (skipped())
    return;
  machine box;
  box.expect<guest::hello>();
  auto result = box.run(box.job("python", R"(
import os
print(sorted(int(f) for f in os.listdir('/proc/self/fd'))[:3], os.getsid(0) == os.getpid())
for line in open('/proc/self/status'):
    if line.startswith(('SigBlk', 'SigIgn')): print(line.split()[1])
print(open('/proc/self/oom_score_adj').read().strip())
)"));
  CAPTURE(result.err);
  // Python itself ignores SIGPIPE and SIGXFSZ.
  CHECK(result.out == "[0, 1, 2] True\n0000000000000000\n0000000001001000\n500\n");
  result = box.run(box.job("bash", "ls /proc/self/fd | tr '\\n' ' '; grep -c . /proc/1/environ"));
  CHECK(result.out.substr(0, 5) == "0 1 2");
}
