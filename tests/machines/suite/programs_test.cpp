// SPDX-License-Identifier: Apache-2.0
// What programs in a machine of any kind find, and may do.
#include "tests/machines/suite/steps.hpp"

#include <algorithm>
#include <ctime>
#include <map>
#include <set>
#include <sstream>
#include <thread>
#include <tuple>

using namespace berth;
using namespace berth::test;

TEST_CASE("a machine says hello, runs programs, and tells how they ended") {
  FOR_EACH_KIND(of, at);
  running one = at.start("one");
  REQUIRE(is_up(one));
  CHECK(bash(one, "echo $((6*7)); hostname") == "42\none\n");
  CHECK(test::run(*one.machine, *one.listener, "python", "import sys; sys.exit(7)").exit_code == 7);
  CHECK(test::run(*one.machine, *one.listener, "bash", "kill -9 $$").signal == 9U);
  destroy(one);
}

TEST_CASE("every language of a machine's runs") {
  FOR_EACH_KIND(of, at);
  const std::map<std::string, std::string> programs{
      {"python", "print(6 * 7)"},
      {"javascript", "console.log(6 * 7)"},
      {"bash", "echo $((6 * 7))"},
      {"rust", "fn main() { println!(\"{}\", 6 * 7); }"},
      {"go", "package main\nimport \"fmt\"\nfunc main() { fmt.Println(6 * 7) }\n"}};
  running one = at.start("languages");
  auto hello = one.listener->next<guest::hello>();
  REQUIRE(hello);
  auto languages = hello->languages;
  std::ranges::sort(languages);
  CHECK(languages == of.languages);
  for (const auto& language : of.languages) {
    CAPTURE(language);
    CHECK(say(one, language, programs.at(language)) == "42\n");
  }
  ran none = test::run(*one.machine, *one.listener, "cobol", "STOP RUN.");
  CHECK_FALSE(none.ended);
  CHECK_FALSE(none.err.empty());
  destroy(one);
}

TEST_CASE("output is streamed while a program runs, and a held reader loses nothing") {
  FOR_EACH_KIND(of, at);
  running one = at.start("streams");
  REQUIRE(is_up(one));
  one.machine->send(guest::start_job{.job = 90'001,
                                     .language = "bash",
                                     .code = "echo first; read line; echo $line",
                                     .stdin_open = true,
                                     .output_bytes = 4096});
  auto first = one.listener->next<guest::output>();
  REQUIRE(first);
  CHECK(std::string(first->data.begin(), first->data.end()) == "first\n");
  one.machine->send(guest::stdin_data{.job = 90'001, .data = {'a', '\n'}, .eof = true});
  auto second = one.listener->next<guest::output>();
  REQUIRE(second);
  CHECK(std::string(second->data.begin(), second->data.end()) == "a\n");
  REQUIRE(one.listener->next<guest::job_ended>());

  // Nobody takes what it says: the program waits, and so does what it wrote. The line before tells
  // that it is at it.
  constexpr std::size_t much = 8 << 20;
  one.machine->send(guest::start_job{.job = 90'002,
                                     .language = "python",
                                     .code = "print('up', flush=True)\nprint('x' * (8 << 20))",
                                     .output_bytes = 2 * much});
  auto begun = one.listener->next<guest::output>();
  REQUIRE(begun);
  one.machine->hold_output(true);
  const auto before = memory_of_this_process();
  std::this_thread::sleep_for(std::chrono::milliseconds{300});
  CHECK(memory_of_this_process() < before + 4 * much);
  one.machine->hold_output(false);
  std::size_t seen = begun->data.size();
  while (auto frame = one.listener->next_any()) {
    if (auto* output = std::get_if<guest::output>(&*frame))
      seen += output->data.size();
    else if (std::holds_alternative<guest::job_ended>(*frame))
      break;
  }
  CHECK(seen >= much);
  destroy(one);
}

TEST_CASE("a job is ended with all that it started, and the machine goes on") {
  FOR_EACH_KIND(of, at);
  running one = at.start("ends");
  REQUIRE(is_up(one));
  one.machine->send(guest::start_job{.job = 90'001,
                                     .language = "bash",
                                     .code = "sleep 1000 & (setsid sleep 1000 &) ; echo up; wait",
                                     .output_bytes = 4096});
  REQUIRE(one.listener->next<guest::output>());
  one.machine->send(guest::end_job{.job = 90'001});
  auto ended = one.listener->next<guest::job_ended>();
  REQUIRE(ended);
  CHECK(ended->job == 90'001);
  CHECK(ended->signal.value_or(0) == 9U);
  CHECK(bash(one, "grep -l sleep /proc/[0-9]*/comm 2>/dev/null | wc -l") == "0\n");
  destroy(one);
}

TEST_CASE("files go in and come out as they were") {
  FOR_EACH_KIND(of, at);
  running one = at.start("files");
  REQUIRE(is_up(one));
  bytes content;
  for (int i = 0; i < 100'000; ++i)
    content.push_back(static_cast<char>(i * 7));
  one.machine->send(
      guest::put_file{.request = 1, .path = "/work/there", .data = content, .last = true});
  auto put = one.listener->next<guest::file_put>();
  REQUIRE(put);
  CHECK(put->failure == ec::none);
  CHECK(bash(one, "stat -c '%s %a' /work/there") == "100000 644\n");
  one.machine->send(guest::get_file{.request = 2, .path = "/work/there", .bytes_max = 200'000});
  auto got = one.listener->next<guest::file_data>();
  REQUIRE(got);
  CHECK(got->failure == ec::none);
  CHECK(got->data == content);
  one.machine->send(guest::get_file{.request = 3, .path = "/work/nowhere", .bytes_max = 10});
  auto none = one.listener->next<guest::file_data>();
  REQUIRE(none);
  CHECK(none->failure == ec::not_found);
  destroy(one);
}

TEST_CASE("memory, processes and disk end at their limits, and the machine goes on") {
  FOR_EACH_KIND(of, at);
  constexpr std::uint64_t mib = 1 << 20;
  const machines::machine_limits tight{
      .memory_bytes = 96 * mib, .processes = 32, .disk_bytes = 16 * mib};
  running one = at.start("tight");
  // Before it is up, so that it still has the shape of all others.
  one.machine->set_limits(tight);
  REQUIRE(is_up(one));
  ran eats = test::run(*one.machine, *one.listener, "python",
                       "x = []\nwhile True:\n  x.append(b'x' * (8 << 20))\n");
  CHECK(eats.ended);
  CHECK(eats.signal == 9U);
  CHECK(one.machine->usage().oom_kills > 0);
  CHECK(bash(one, "head -c 30M /dev/zero > /tmp/a 2>/dev/null; echo $?; rm /tmp/a") == "1\n");
  // What keeps the machine, and interpreters that wait, are not counted among the 32.
  CHECK(python(one, "import os, time\n"
                    "n = 0\n"
                    "try:\n"
                    "  while n < 200:\n"
                    "    if os.fork() == 0:\n"
                    "      time.sleep(1000)\n"
                    "    n += 1\n"
                    "except OSError as e:\n"
                    "  print(e.errno, 8 <= n <= 48)\n")
        == "11 True\n");
  one.machine->send(guest::start_job{.job = 90'001,
                                     .language = "bash",
                                     .code = "exec 2>/dev/null; echo up; :(){ :|:& };:; wait",
                                     .output_bytes = 4096});
  REQUIRE(one.listener->next<guest::output>());
  one.machine->send(guest::end_job{.job = 90'001});
  REQUIRE(one.listener->next<guest::job_ended>());
  CHECK(bash(one, "echo fine") == "fine\n");

  machines::machine_limits roomy = tight;
  roomy.disk_bytes = 48 * mib;
  one.machine->set_limits(roomy);
  CHECK(bash(one, "head -c 30M /dev/zero > /tmp/a; echo $?") == "0\n");
  auto used = one.machine->usage();
  CHECK(used.disk_limit_bytes == 48 * mib);
  CHECK(used.disk_bytes >= 30 * mib);
  CHECK(used.memory_peak_bytes > 0);
  CHECK(used.cpu_us > 0);
  destroy(one);
}

TEST_CASE("a machine has no network, and programs in it no privilege") {
  FOR_EACH_KIND(of, at);
  running one = at.start("alone");
  REQUIRE(is_up(one));
  CHECK(python(one, "import socket\n"
                    "for to in ('10.0.2.2', '192.0.2.1', '169.254.169.254'):\n"
                    "  print(socket.socket().connect_ex((to, 80)))\n"
                    "try:\n"
                    "  socket.socket(40, 1)\n"
                    "except OSError as e:\n"
                    "  print(e.errno)\n")
        == "101\n101\n101\n97\n");
  CHECK(bash(one, "id -u; grep -cE '^Cap...:.*[1-9a-f]' /proc/self/status") == "1000\n0\n");
  CHECK(bash(one, "mount -t tmpfs x /tmp 2>/dev/null || echo no;"
                  "unshare -U true 2>/dev/null || echo no;"
                  "touch /usr/x /etc/x /dev/x 2>/dev/null || echo no;"
                  "cat /proc/1/environ 2>/dev/null | wc -c;"
                  "ls /proc/sys /proc/kcore /proc/cmdline 2>/dev/null | wc -l;"
                  "kill -9 1 2>/dev/null; echo alive")
        == "no\nno\nno\n0\n0\nalive\n");
  destroy(one);
}

TEST_CASE("machines do not see each other") {
  FOR_EACH_KIND(of, at);
  running first = at.start("left");
  running second = at.start("right");
  REQUIRE(is_up(first));
  REQUIRE(is_up(second));
  CHECK(bash(first, "echo secret > /tmp/x; echo a > /dev/shm/x; ipcmk -M 64 >/dev/null; echo ok")
        == "ok\n");
  CHECK(bash(second, "ls /dev/shm /tmp | grep -c x$; ipcs -m | grep -c 0x") == "0\n0\n");
  CHECK(bash(second, "ls /proc | grep -c '^[0-9]' | awk '{print ($1 < 10)}'") == "1\n");
  // Nor does one that comes later.
  running third = at.start("third");
  REQUIRE(is_up(third));
  CHECK(bash(third, "ls /dev/shm /tmp | grep -c x$") == "0\n");
  CHECK(bash(first, "cat /tmp/x") == "secret\n");
  for (const auto& one : {first, second, third})
    destroy(one);
}

TEST_CASE("machines differ in random numbers and names, and have the right time") {
  FOR_EACH_KIND(of, at);
  std::set<std::string> randoms;
  for (const std::string name : {"twin-a", "twin-b"}) {
    running one = at.start(name, {}, {"python"});
    REQUIRE(is_up(one));
    std::istringstream said{python(one, "import os, random, time, uuid\n"
                                        "print(os.urandom(16).hex())\n"
                                        "print(random.random())\n"
                                        "print(uuid.uuid4())\n"
                                        "print(time.time())\n"
                                        "print(os.uname().nodename)\n")};
    std::string line;
    for (int i = 0; i < 3 && std::getline(said, line); ++i)
      randoms.insert(line);
    std::string time;
    std::string host;
    std::getline(said, time);
    std::getline(said, host);
    CHECK(host == name);
    // What the job took is between.
    CHECK(std::abs(std::atof(time.c_str()) - static_cast<double>(std::time(nullptr))) < 30.0);
    destroy(one);
  }
  CHECK(randoms.size() == 6);
}

TEST_CASE("whose kernel a machine has") {
  FOR_EACH_KIND(of, at);
  running one = at.start("kernel");
  REQUIRE(is_up(one));
  auto since_boot = [] {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
  };
  const double before = since_boot();
  const std::string said =
      python(one, "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))");
  const double inside = std::atof(said.c_str());
  // A kernel of its own began to run later than the host's.
  const bool is_hosts = inside >= before && inside <= since_boot();
  CHECK(inside > 0);
  CHECK(is_hosts != of.own_kernel);
  destroy(one);
}

TEST_CASE("a live interpreter keeps its variables from cell to cell, and can be interrupted") {
  FOR_EACH_KIND(of, at);
  running one = at.start("remembers");
  REQUIRE(is_up(one));
  for (const auto& [language, store, load] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"python", "x = 41", "print(x + 1)"},
           {"bash", "x=41", "echo $((x + 1))"},
           {"javascript", "var x = 41; undefined", "console.log(x + 1)"}}) {
    if (std::ranges::find(of.languages, language) == of.languages.end())
      continue;
    CAPTURE(language);
    open_kernel(one, language, language);
    cell(one, language, store);
    CHECK(cell(one, language, load) == "42\n");
  }
  one.machine->send(guest::run_cell{.job = 90'001,
                                    .context = "python",
                                    .code = "print('up', flush=True)\nwhile True: pass",
                                    .output_bytes = 4096});
  REQUIRE(one.listener->next<guest::output>());
  one.machine->send(guest::interrupt_kernel{.context = "python"});
  REQUIRE(one.listener->next<guest::cell_ended>());
  CHECK(cell(one, "python", "print(x + 1)") == "42\n");
  one.machine->send(guest::close_kernel{.context = "python"});
  REQUIRE(one.listener->next<guest::kernel_ended>());
  CHECK(cell(one, "python", "print(x)") != "41\n");
  destroy(one);
}
