// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/fixture.hpp"
#include "tests/support/skip.hpp"

using namespace berth;
using namespace berth::test;

namespace {

const std::string real_lib = std::string{BERTH_BUILD_DIR} + "/lib/berth";
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

TEST_CASE("a spawner refuses to give less than is required, and names what is missing") {
  auto settings = test_settings("/nonexistent");
  plant made{settings};
  CHECK_FALSE(made.source);
  CHECK(made.problem.find("berth-guest") != std::string::npos);
}
