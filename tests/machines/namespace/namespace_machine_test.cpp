// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/sweep.hpp"
#include "tests/machines/fixture.hpp"
#include "tests/support/skip.hpp"

#include <sys/wait.h>

#include <fstream>
#include <poll.h>
#include <sstream>

using namespace berth;
using namespace berth::test;

namespace {

const std::string real_lib = std::string{BERTH_BUILD_DIR} + "/lib/berth";
const std::string probe_lib = std::string{BERTH_BUILD_DIR} + "/lib/probe";

std::size_t lines_with(const std::string& file, const std::string& text) {
  std::ifstream in{file};
  std::size_t count = 0;
  for (std::string line; std::getline(in, line);)
    count += line.find(text) != std::string::npos;
  return count;
}

/// Directories below the cgroup file systems whose name has the text.
std::size_t groups_of(const std::string& instance) {
  std::size_t count = 0;
  std::error_code error;
  using walk = std::filesystem::recursive_directory_iterator;
  auto options = std::filesystem::directory_options::skip_permission_denied;
  for (auto at = walk{"/sys/fs/cgroup", options, error}; at != walk{}; at.increment(error))
    if (at->is_directory(error)
        && at->path().string().find("berth-" + instance) != std::string::npos)
      ++count;
  return count;
}

bool no_plant(const plant& made) {
  if (made.source)
    return false;
  skip("no machine can be made here: " + made.problem);
  return true;
}

std::string bash(machines::machine& in, heard& listener, const std::string& code) {
  ran result = test::run(in, listener, "bash", code);
  CHECK(result.ended);
  return result.out + result.err;
}

} // namespace

TEST_CASE("a machine says hello, runs a program and leaves nothing behind") {
  std::size_t mounts = lines_with("/proc/self/mountinfo", "");
  std::string instance;
  pid_t spawner = -1;
  {
    plant made{test_settings(real_lib)};
    if (no_plant(made))
      return;
    instance = made.instance;
    spawner = made.spawner_pid;
    auto [machine, listener] = made.start("one");
    REQUIRE(listener->next<guest::hello>());
    CHECK(bash(*machine, *listener, "echo $((6*7))") == "42\n");
    machine->destroy();
    REQUIRE(listener->wait_gone());
    CHECK(listener->lost_count() == 0);
    CHECK(listener->gone_count() == 1);
    CHECK(machine->usage().memory_bytes == 0);
  }
  CHECK(::kill(spawner, 0) != 0);
  CHECK(groups_of(instance) == 0);
  CHECK(lines_with("/proc/self/mountinfo", "") == mounts);
}

TEST_CASE("nothing of the host is visible in a machine") {
  plant made{test_settings(real_lib)};
  if (no_plant(made))
    return;
  auto [machine, listener] = made.start("inside");
  REQUIRE(listener->next<guest::hello>());
  auto say = [&, m = machine, l = listener](const std::string& code) { return bash(*m, *l, code); };
  CHECK(say("ls -A /home /usr/local; ls /var; ls /sys 2>/dev/null")
        == "/home:\nagent\n\n/usr/local:\ntmp\n");
  CHECK(say("ls /root 2>&1 | grep -c denied") == "1\n");
  CHECK(say("cat /proc/1/environ 2>/dev/null | wc -c") == "0\n");
  CHECK(say("hostname") == "inside\n");
  CHECK(say("grep -cE '^Cap...:.*[1-9a-f]' /proc/self/status") == "0\n");
  CHECK(say("ls /proc/sys /proc/kcore /proc/cmdline 2>/dev/null | wc -l") == "0\n");
  CHECK(say("mount -t tmpfs x /tmp 2>/dev/null || echo no") == "no\n");
  CHECK(say("unshare -U true 2>/dev/null || echo no") == "no\n");
  CHECK(say("touch /usr/x /etc/x /dev/x 2>/dev/null || echo no") == "no\n");
  CHECK(say("ls /sys/class/net 2>/dev/null; cat /proc/net/dev 2>/dev/null | grep -c eth") == "0\n");
  CHECK(say("(echo > /dev/tcp/1.1.1.1/80) 2>&1 | grep -qi unreachable && echo no") == "no\n");
  ran vsock = test::run(*machine, *listener, "python",
                        "import socket\ntry:\n  socket.socket(40, 1)\nexcept OSError as e:\n  "
                        "print(e.errno)\n");
  CHECK(vsock.out == "97\n");
  machine->destroy();
  CHECK(listener->wait_gone());
}

TEST_CASE("disk, inodes, processes and memory are capped") {
  plant made{test_settings(real_lib)};
  if (no_plant(made))
    return;
  auto [machine, listener] =
      made.start("caps", {.memory_bytes = 64 << 20, .processes = 24, .disk_bytes = 16 << 20});
  REQUIRE(listener->next<guest::hello>());
  CHECK(
      bash(*machine, *listener,
           "head -c 30M /dev/zero > /tmp/a 2>/dev/null; echo $?; rm /tmp/a; head -c 30M /dev/zero "
           "> /dev/shm/a 2>/dev/null; echo $?; rm /dev/shm/a")
      == "1\n1\n");
  CHECK(bash(*machine, *listener,
             "mkdir /tmp/d; for i in $(seq 6000); do : > /tmp/d/$i || break; done 2>&1 | grep -c "
             "'No space'; rm -r /tmp/d")
        == "1\n");
  CHECK(bash(*machine, *listener,
             "(for i in $(seq 60); do sleep 30 & done) 2>&1 | grep -m1 -o 'Resource temporarily'; "
             "pkill sleep; true")
        == "Resource temporarily\n");
  ran big = test::run(*machine, *listener, "python",
                      "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))\n");
  CHECK(big.signal == 9U);
  CHECK(machine->usage().oom_kills > 0);
  CHECK(machine->usage().memory_peak_bytes < (64 + 16 + 97) << 20);
  CHECK(bash(*machine, *listener, "echo alive") == "alive\n");

  machine->set_limits({.memory_bytes = 64 << 20, .processes = 24, .disk_bytes = 64 << 20});
  CHECK(bash(*machine, *listener, "head -c 30M /dev/zero > /tmp/a; echo $?") == "0\n");
  CHECK(machine->usage().disk_limit_bytes == 64 << 20);
  machine->destroy();
  CHECK(listener->wait_gone());
}

TEST_CASE("two machines do not see each other") {
  plant made{test_settings(real_lib)};
  if (no_plant(made))
    return;
  auto [one, hears_one] = made.start("left");
  auto [two, hears_two] = made.start("right");
  REQUIRE(hears_one->next<guest::hello>());
  REQUIRE(hears_two->next<guest::hello>());
  CHECK(bash(*one, *hears_one,
             "echo a > /dev/shm/x; echo a > /tmp/x; ipcmk -M 64 >/dev/null; echo ok")
        == "ok\n");
  CHECK(bash(*two, *hears_two, "ls /dev/shm /tmp | grep -c x$; ipcs -m | grep -c 0x") == "0\n0\n");
  CHECK(bash(*two, *hears_two, "ls /proc | grep -c '^[0-9]' | awk '{print ($1 < 10)}'") == "1\n");
  one->destroy();
  two->destroy();
  CHECK(hears_one->wait_gone());
  CHECK(hears_two->wait_gone());
}

TEST_CASE("a hostile guest loses its machine and nothing else") {
  auto settings = test_settings(probe_lib);
  settings.hello_within = std::chrono::milliseconds{500};
  plant made{settings};
  if (no_plant(made))
    return;
  for (std::string kind :
       {"silent", "dies", "closes", "giant", "no-hello", "old", "twice", "random"}) {
    CAPTURE(kind);
    auto [machine, listener] = made.start(kind + "-x");
    CHECK(listener->wait_gone());
    CHECK(listener->lost_count() == 1);
    CHECK(listener->gone_count() == 1);
    CHECK(!listener->why().empty());
    machine->destroy();
  }
  for (std::string kind : {"forger", "flood", "patient"}) {
    CAPTURE(kind);
    auto [machine, listener] = made.start(kind + "-x");
    REQUIRE(listener->next<guest::hello>());
    if (kind == "flood")
      machine->hold_output(true);
    machine->destroy();
    machine->destroy();
    CHECK(listener->wait_gone());
    CHECK(listener->lost_count() == 0);
    CHECK(listener->gone_count() == 1);
  }
}

TEST_CASE("what exceeds the send queue is a lost machine") {
  auto settings = test_settings(probe_lib);
  settings.send_queue_bytes = 1 << 20;
  plant made{settings};
  if (no_plant(made))
    return;
  auto [machine, listener] = made.start("closes-not-reading");
  guest::stdin_data data{.job = 1, .data = bytes(256 * 1024, 'x')};
  for (int i = 0; i < 16; ++i)
    machine->send(data);
  CHECK(listener->wait_gone());
  CHECK(listener->lost_count() == 1);
}

TEST_CASE("a killed spawner takes its machines along, and the next start sweeps") {
  auto settings = test_settings(real_lib);
  std::string instance;
  {
    plant made{settings};
    if (no_plant(made))
      return;
    instance = made.instance;
    auto [machine, listener] = made.start("orphan");
    REQUIRE(listener->next<guest::hello>());
    REQUIRE(bash(*machine, *listener, "sleep 1000 & echo ok") == "ok\n");
    ::kill(made.spawner_pid, SIGKILL);
    CHECK(listener->wait_gone());
    CHECK(listener->lost_count() == 1);
    auto [late, hears_late] = made.start("late");
    CHECK(hears_late->wait_gone());
    CHECK(hears_late->lost_count() == 1);
    made.source.reset();
    made.loop.reset();
    machines::swept found = machines::sweep(settings.runtime_dir);
    CHECK(found.instances == 1);
    CHECK(found.left == 0);
    CHECK(groups_of(instance) == 0);
  }
}

TEST_CASE("the end of the server is the end of its machines") {
  auto settings = test_settings(real_lib);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t server = ::fork();
  if (server == 0) {
    plant made{settings};
    std::string told = "none";
    if (made.source) {
      auto [machine, listener] = made.start("abandoned");
      if (listener->next<guest::hello>())
        told = made.instance + " " + std::to_string(made.spawner_pid);
    }
    (void)!::write(ends[1], told.data(), told.size());
    ::kill(::getpid(), SIGKILL);
  }
  ::close(ends[1]);
  char text[64] = {};
  ssize_t count = ::read(ends[0], text, sizeof text - 1);
  ::waitpid(server, nullptr, 0);
  ::close(ends[0]);
  std::istringstream in{std::string(text, count > 0 ? static_cast<std::size_t>(count) : 0)};
  std::string instance;
  pid_t spawner = -1;
  in >> instance >> spawner;
  if (instance == "none")
    return skip("no machine can be made here");
  int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, spawner, 0));
  if (pidfd >= 0) {
    pollfd ended{pidfd, POLLIN, 0};
    CHECK(::poll(&ended, 1, 20'000) == 1);
    ::close(pidfd);
  }
  CHECK(groups_of(instance) == 0);
  CHECK_FALSE(std::filesystem::exists(settings.runtime_dir + "/" + instance));
  std::filesystem::remove_all(settings.runtime_dir);
}

TEST_CASE("an ordinary user makes machines too, without what only root can give") {
  if (::geteuid() != 0)
    return skip("the other tests run as an ordinary user already");
  std::string told = as_ordinary_user(real_lib, [](plant& made) {
    if (!made.source)
      return made.problem;
    auto [machine, listener] = made.start("rootless");
    std::string said =
        listener->next<guest::hello>()
            ? test::run(*machine, *listener, "bash", "id -u; touch /work/x && echo written").out
            : "no hello: " + listener->why();
    machine->destroy();
    listener->wait_gone();
    return said;
  });
  if (told.find("outer user namespace") != std::string::npos)
    return skip("ordinary users may not make user namespaces: " + told);
  CHECK(told == "1000\nwritten\n");
}

TEST_CASE("a spawner refuses to give less than is required, and names what is missing") {
  auto settings = test_settings("/nonexistent");
  plant made{settings};
  CHECK_FALSE(made.source);
  CHECK(made.problem.find("berth-guest") != std::string::npos);
}
