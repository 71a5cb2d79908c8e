// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/image/vm.hpp"

#include <catch2/catch.hpp>

#include <cerrno>

using namespace berth;
using test::bare_vm;

namespace {

guest::renew renewal(const std::string& name, char seed) {
  guest::renew message;
  message.entropy = bytes(48, seed);
  message.clock_us = 2'000'000'000'000'000; // 2033-05-18
  message.hostname = name;
  return message;
}

} // namespace

TEST_CASE("A virtual machine runs programs of an ordinary user behind walls of its own") {
  bare_vm vm{test::test_image()};
  auto hello = vm.await<guest::hello>();
  CHECK(hello.version == guest::protocol_version);
  CHECK(hello.languages == std::vector<std::string>{"python", "bash"});

  auto first = vm.run("python", "print(6 * 7)");
  CHECK(first.out == "42\n");
  CHECK(first.end.exit_code.value_or(-1) == 0);

  auto who = vm.run("bash", "id -u; grep -E 'NoNewPrivs|^Seccomp:|CapBnd' /proc/self/status; "
                            "ls /sys /dev/vda 2>&1 | head -2; kill -9 1 && echo alive");
  CHECK(who.out.starts_with("1000\n"));
  CHECK(who.out.find("CapBnd:\t0000000000000000") != std::string::npos);
  CHECK(who.out.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(who.out.find("Seccomp:\t2") != std::string::npos);
  CHECK(who.out.find("'/dev/vda': No such file") != std::string::npos);
  CHECK(vm.run("bash", "exit 3").end.exit_code.value_or(-1) == 3);

  auto net = vm.run("python", "import socket\n"
                              "print(socket.socket().connect_ex(('192.0.2.1', 80)))");
  CHECK(net.out == std::to_string(ENETUNREACH) + "\n");
}

TEST_CASE("Interpreters in a virtual machine wait warm, and a copy of it draws its own numbers") {
  bare_vm vm{test::test_image(), "berth.disk_mib=48"};
  vm.await<guest::hello>();
  for (const char* language : {"python", "bash"}) {
    vm.send(guest::prepare{language});
    CHECK(vm.await<guest::warmed>().language == language);
  }
  CHECK(vm.run("python", "pass").path == run_path::warm);

  vm.send(renewal("twin-1", 'a'));
  CHECK(vm.await<guest::renewed>().error == "");
  auto told = vm.run("python", "import time, socket, random, os\n"
                               "print(time.gmtime().tm_year, socket.gethostname(), "
                               "os.statvfs('/').f_blocks * os.statvfs('/').f_frsize >> 20)");
  CHECK(told.out == "2033 twin-1 48\n");
  CHECK(told.path == run_path::warm);
  CHECK(vm.run("bash", "echo $RANDOM").path == run_path::warm);

  guest::renew poor = renewal("twin-2", 'b');
  poor.entropy.resize(8);
  vm.send(poor);
  CHECK(vm.await<guest::renewed>().error != "");
}

TEST_CASE(
    "What a program in a virtual machine may use ends at its limits, and it alone ends there") {
  bare_vm vm{test::test_image()};
  vm.await<guest::hello>();
  vm.send(guest::limit{.memory_bytes = 48 << 20, .processes = 16, .disk_bytes = 8 << 20});
  auto hungry = vm.run("python", "kept = []\n"
                                 "while True: kept.append(b'x' * (1 << 20))");
  CHECK(hungry.end.signal.value_or(0) == 9U);
  CHECK(hungry.used.oom_kills == 1);
  auto many = vm.run("bash", "for i in $(seq 300); do sleep 20 & done 2>/dev/null; wait");
  CHECK(many.end.exit_code.value_or(-1) != 0);
  auto full = vm.run("bash", "head -c 64M /dev/zero > /work/much; stat -c %s /work/much");
  CHECK(full.err.find("No space left") != std::string::npos);
  CHECK(full.used.disk_bytes > 7 << 20);
  CHECK(vm.run("bash", "rm -f /work/much").used.disk_bytes < 1 << 20);
  CHECK(vm.run("python", "print('well')").out == "well\n");
}

TEST_CASE("A virtual machine that is told nonsense ends, and says why on its console") {
  bare_vm vm{test::test_image()};
  vm.await<guest::hello>();
  vm.send_bytes(bytes{'\5', '\0', '\0', '\0', 'h', 'e', 'l', 'l', 'o'});
  CHECK(vm.ends());
  CHECK(vm.console().find("berth: the host sent what is no frame") != std::string::npos);
}
