// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/qemu/vm_fixture.hpp"
#include "tests/support/skip.hpp"

#include <ctime>
#include <thread>

using namespace berth;
using namespace berth::test;

namespace {

/// One source for most tests: a template takes seconds.
vm_plant& shared_plant() {
  static vm_plant plant;
  return plant;
}

bool no_plant(const vm_plant& made) {
  if (made.source && made.problem.empty())
    return false;
  skip("no virtual machine can be made here: " + made.problem);
  return true;
}

std::string python(machines::machine& in, heard& listener, const std::string& code) {
  ran result = test::run(in, listener, "python", code);
  CHECK(result.ended);
  return result.out + result.err;
}

std::string bash(machines::machine& in, heard& listener, const std::string& code) {
  ran result = test::run(in, listener, "bash", code);
  CHECK(result.ended);
  return result.out + result.err;
}

/// Waits for the hello of a machine whose template has to be booted first.
bool is_up(heard& listener) {
  auto until = std::chrono::steady_clock::now() + template_limit;
  while (!listener.next<guest::hello>())
    if (listener.lost_count() > 0 || std::chrono::steady_clock::now() > until)
      return false;
  return true;
}

/// Brings the guest to rest, as a slot does before it asks for a step.
void rest(machines::machine& in, heard& listener, bool force = false) {
  in.send(guest::freeze{.request = 1, .force = force});
  auto frozen = listener.next<guest::frozen>();
  REQUIRE(frozen);
  INFO(frozen->error);
  REQUIRE(frozen->error.empty());
}

void go_on(machines::machine& in, heard& listener) {
  in.send(guest::thaw{.request = 2});
  REQUIRE(listener.next<guest::thawed>());
}

void freeze(machines::machine& in, heard& listener, machines::checkpoint_number number) {
  rest(in, listener);
  in.freeze_files(number);
  auto done = listener.next_files(machines::files_step::freeze);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  go_on(in, listener);
}

void roll_back(machines::machine& in, heard& listener, machines::checkpoint_number number) {
  rest(in, listener, true);
  in.roll_back_files(number);
  auto done = listener.next_files(machines::files_step::roll_back);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  go_on(in, listener);
}

} // namespace

TEST_CASE("a virtual machine says hello, runs programs and leaves nothing behind") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("one");
  auto hello = listener->next<guest::hello>();
  REQUIRE(hello);
  CHECK(std::ranges::find(hello->languages, "python") != hello->languages.end());
  CHECK(python(*machine, *listener, "print(6 * 7)") == "42\n");
  CHECK(bash(*machine, *listener, "echo $((6*7)); hostname") == "42\none\n");
  ran failed = test::run(*machine, *listener, "python", "import sys; sys.exit(7)");
  CHECK(failed.exit_code == 7);
  ran killed = test::run(*machine, *listener, "bash", "kill -9 $$");
  CHECK(killed.signal == 9U);
  machine->destroy();
  REQUIRE(listener->wait_gone());
  CHECK(listener->lost_count() == 0);
  CHECK(listener->gone_count() == 1);
}

TEST_CASE("nothing is booted, and no QEMU waits, before a virtual machine is asked for") {
  vm_plant plant{"unasked", {}, false};
  if (no_plant(plant))
    return;
  std::this_thread::sleep_for(std::chrono::seconds{2});
  CHECK(plant.processes().empty());
}

TEST_CASE("a virtual machine has no network and another kernel than the host's") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("alone");
  REQUIRE(listener->next<guest::hello>());
  CHECK(python(*machine, *listener,
               "import socket\n"
               "try:\n"
               "  socket.create_connection(('10.0.2.2', 80), 2)\n"
               "except OSError as e:\n"
               "  print('none')\n")
        == "none\n");
  std::string host;
  std::ifstream in{"/proc/sys/kernel/random/boot_id"};
  std::getline(in, host);
  CHECK(bash(*machine, *listener, "cat /proc/sys/kernel/random/boot_id") != host + "\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("clones differ in random numbers and names, and have the right time") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  const std::string code = "import os, random, time, uuid\n"
                           "print(os.urandom(16).hex(), random.random(), uuid.uuid4())\n"
                           "print(time.time())\n"
                           "print(os.uname().nodename)\n";
  std::set<std::string> randoms;
  for (const std::string name : {"twin-a", "twin-b", "twin-c"}) {
    auto [machine, listener] = plant.start(name, {}, {"python"});
    REQUIRE(listener->next<guest::hello>());
    std::istringstream said{python(*machine, *listener, code)};
    std::string random;
    std::string time;
    std::string host;
    std::getline(said, random);
    std::getline(said, time);
    std::getline(said, host);
    randoms.insert(random);
    CHECK(host == name);
    // What the job took is between.
    CHECK(std::abs(std::atof(time.c_str()) - static_cast<double>(std::time(nullptr))) < 5.0);
    machine->destroy();
    REQUIRE(listener->wait_gone());
  }
  CHECK(randoms.size() == 3);
}

TEST_CASE("clones do not see each other's writes, and the template stays what it was") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [first, hears_first] = plant.start("first");
  auto [second, hears_second] = plant.start("second");
  REQUIRE(hears_first->next<guest::hello>());
  REQUIRE(hears_second->next<guest::hello>());
  bash(*first, *hears_first, "echo secret > /tmp/mine");
  CHECK(bash(*second, *hears_second, "cat /tmp/mine 2>&1 | grep -c secret") == "0\n");
  auto [third, hears_third] = plant.start("third");
  REQUIRE(hears_third->next<guest::hello>());
  CHECK(bash(*third, *hears_third, "cat /tmp/mine 2>&1 | grep -c secret") == "0\n");
  CHECK(bash(*first, *hears_first, "cat /tmp/mine") == "secret\n");
  for (auto& machine : {first, second, third})
    machine->destroy();
  for (auto& listener : {hears_first, hears_second, hears_third})
    CHECK(listener->wait_gone());
}

TEST_CASE("a virtual machine goes back to what it was, under its name, as often as asked") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("returns");
  REQUIRE(listener->next<guest::hello>());
  bash(*machine, *listener, "echo one > /tmp/file");
  freeze(*machine, *listener, 1);
  CHECK(bash(*machine, *listener, "cat /tmp/file; echo two > /tmp/file; touch /tmp/more")
        == "one\n");
  freeze(*machine, *listener, 2);
  bash(*machine, *listener, "rm /tmp/file");
  roll_back(*machine, *listener, 1);
  CHECK(bash(*machine, *listener, "cat /tmp/file; ls /tmp/more 2>/dev/null | wc -l; hostname")
        == "one\n0\nreturns\n");
  std::string first = python(*machine, *listener, "import os; print(os.urandom(16).hex())");
  roll_back(*machine, *listener, 1);
  std::string second = python(*machine, *listener, "import os; print(os.urandom(16).hex())");
  CHECK(first != second);
  roll_back(*machine, *listener, 2);
  CHECK(bash(*machine, *listener, "cat /tmp/file; ls /tmp/more | wc -l") == "two\n1\n");
  machine->drop_files(2);
  REQUIRE(listener->next_files(machines::files_step::drop));
  rest(*machine, *listener);
  machine->roll_back_files(2);
  auto refused = listener->next_files(machines::files_step::roll_back);
  REQUIRE(refused);
  CHECK_FALSE(refused->error.empty());
  go_on(*machine, *listener);
  machine->destroy();
  REQUIRE(listener->wait_gone());
  CHECK(listener->lost_count() == 0);
}

TEST_CASE("a live interpreter is what it was after a virtual machine went back") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("remembers");
  REQUIRE(listener->next<guest::hello>());
  machine->send(guest::open_kernel{.context = "c", .language = "python"});
  REQUIRE(listener->next<guest::kernel_opened>());
  auto cell = [&](const std::string& code) {
    static std::uint32_t number = 1000;
    machine->send(
        guest::run_cell{.job = ++number, .context = "c", .code = code, .output_bytes = 4096});
    std::string out;
    while (auto frame = listener->next_any()) {
      if (auto* output = std::get_if<guest::output>(&*frame))
        out.append(output->data.begin(), output->data.end());
      else if (std::holds_alternative<guest::cell_ended>(*frame))
        break;
    }
    return out;
  };
  cell("x = 41");
  freeze(*machine, *listener, 1);
  cell("x = 0");
  roll_back(*machine, *listener, 1);
  CHECK(cell("print(x + 1)") == "42\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("a fork begins with its parent's files and goes its own way") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [parent, hears_parent] = plant.start("parent");
  REQUIRE(hears_parent->next<guest::hello>());
  bash(*parent, *hears_parent, "echo inherited > /tmp/file");
  freeze(*parent, *hears_parent, 5);
  bash(*parent, *hears_parent, "echo later > /tmp/file");
  auto listener = std::make_shared<heard>();
  auto child = plant.source->start({.id = "child", .parent = "parent", .checkpoint = 5}, listener);
  REQUIRE(listener->next<guest::hello>());
  CHECK(bash(*child, *listener, "cat /tmp/file; hostname") == "inherited\nchild\n");
  parent->destroy();
  REQUIRE(hears_parent->wait_gone());
  bash(*child, *listener, "echo changed > /tmp/file");
  roll_back(*child, *listener, 5);
  CHECK(bash(*child, *listener, "cat /tmp/file") == "inherited\n");
  child->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("a virtual machine whose QEMU is killed is lost, and others go on") {
  vm_plant plant{"kill"};
  if (no_plant(plant))
    return;
  // As long as it only waits for a machine's state, nobody misses it.
  for (int tries = 0; plant.processes().size() < 2 && tries < 10'000; ++tries)
    ::usleep(1'000);
  for (pid_t pid : plant.processes())
    ::kill(pid, SIGKILL);
  auto [healthy, hears_healthy] = plant.start("healthy");
  REQUIRE(hears_healthy->next<guest::hello>());
  CHECK(hears_healthy->lost_count() == 0);
  auto before = plant.processes();
  auto [machine, listener] = plant.start("victim");
  REQUIRE(listener->next<guest::hello>());
  for (pid_t pid : plant.processes())
    if (!before.contains(pid))
      ::kill(pid, SIGKILL);
  // Spares that wait may have been among them; the one in use was older and so is killed now.
  if (listener->lost_count() == 0) {
    for (pid_t pid : before)
      ::kill(pid, SIGKILL);
    CHECK(hears_healthy->wait_lost());
  }
  CHECK(listener->wait_lost());
  CHECK(listener->why().find("signal 9") != std::string::npos);
  machine->destroy();
  CHECK(listener->wait_gone());
  healthy->destroy();
  CHECK(hears_healthy->wait_gone());
  // The source is as good as new, though spares were killed with them.
  auto [next, hears_next] = plant.start("next");
  REQUIRE(hears_next->next<guest::hello>());
  CHECK(bash(*next, *hears_next, "echo up") == "up\n");
  next->destroy();
  CHECK(hears_next->wait_gone());
}

TEST_CASE("a virtual machine whose first process dies is lost") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("panics");
  REQUIRE(listener->next<guest::hello>());
  // The agent is nobody in there; what it can do is to fill memory and processes.
  ran bomb =
      test::run(*machine, *listener, "bash", ":(){ :|:& };: 2>/dev/null; sleep 1; echo over");
  CHECK(bomb.ended);
  CHECK(bash(*machine, *listener, "echo still here") == "still here\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("limits of memory, processes and disk hold inside a virtual machine") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  constexpr std::uint64_t mib = 1 << 20;
  auto [machine, listener] =
      plant.start("tight", {.memory_bytes = 96 * mib, .processes = 32, .disk_bytes = 16 * mib});
  REQUIRE(is_up(*listener));
  ran eats = test::run(*machine, *listener, "python",
                       "x = []\nwhile True:\n  x.append(b'x' * (8 << 20))\n");
  CHECK(eats.ended);
  CHECK(eats.out.empty());
  CHECK(machine->usage().oom_kills > 0);
  CHECK(python(*machine, *listener,
               "n = 0\n"
               "try:\n"
               "  with open('/tmp/big', 'wb', buffering=0) as f:\n"
               "    while n < 64:\n"
               "      f.write(bytes(1 << 20)); n += 1\n"
               "except OSError as e:\n"
               "  print(e.errno, n < 20)\n"
               "import os; os.remove('/tmp/big')\n")
        == "28 True\n");
  CHECK(bash(*machine, *listener, "echo fine") == "fine\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("output is streamed while a program runs, and a held reader loses nothing") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("streams");
  REQUIRE(listener->next<guest::hello>());
  machine->send(guest::start_job{.job = 1,
                                 .language = "bash",
                                 .code = "echo first; read line; echo $line",
                                 .stdin_open = true,
                                 .output_bytes = 4096});
  auto first = listener->next<guest::output>();
  REQUIRE(first);
  CHECK(std::string(first->data.begin(), first->data.end()) == "first\n");
  machine->send(guest::stdin_data{.job = 1, .data = {'a', '\n'}, .eof = true});
  auto second = listener->next<guest::output>();
  REQUIRE(second);
  CHECK(std::string(second->data.begin(), second->data.end()) == "a\n");
  REQUIRE(listener->next<guest::job_ended>());
  ran much = test::run(*machine, *listener, "python", "print('x' * 500_000)");
  CHECK(much.out.size() == 500'001);
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("a virtual machine that is ended at any moment is gone, and nothing of it stays") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  for (int delay_ms : {0, 1, 5, 20, 50, 100}) {
    auto [machine, listener] = plant.start("short-" + std::to_string(delay_ms), {}, {"python"});
    ::usleep(static_cast<unsigned>(delay_ms) * 1000);
    machine->destroy();
    CHECK(listener->wait_gone());
    CHECK(listener->gone_count() == 1);
  }
}

TEST_CASE("an ended server leaves no QEMU behind") {
  pid_t launcher = -1;
  std::set<pid_t> children;
  {
    vm_plant plant{"ends"};
    if (no_plant(plant))
      return;
    auto [machine, listener] = plant.start("left");
    REQUIRE(listener->next<guest::hello>());
    launcher = plant.launcher_pid;
    children = plant.processes();
    CHECK_FALSE(children.empty());
  }
  CHECK(::kill(launcher, 0) != 0);
  for (pid_t pid : children)
    CHECK(::kill(pid, 0) != 0);
}
