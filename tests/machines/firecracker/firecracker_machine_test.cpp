// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/api.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/namespace/sweep.hpp"
#include "tests/machines/firecracker/plant.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <sys/socket.h>
#include <sys/wait.h>

#include <ctime>
#include <fcntl.h>
#include <poll.h>

using namespace berth;
using namespace berth::test;

/// Machines of the kind firecracker against the conformance server and its jailer, which have QEMU
/// behind them: nothing here runs Firecracker itself, but the last test, where it can.
namespace {

/// Templates of all plants: a later one reads what an earlier one wrote.
const std::string& template_dir() {
  static temp_dir dir;
  return dir.path();
}

firecracker_plant& shared_plant() {
  static firecracker_plant plant{"fc", [] {
                                   auto wanted = conformance_settings();
                                   wanted.data_dir = template_dir();
                                   wanted.metrics = true;
                                   wanted.disk_bytes_per_second = 1ULL << 30;
                                   return wanted;
                                 }()};
  return plant;
}

bool no_plant(const firecracker_plant& made) {
  if (made.source && made.problem.empty())
    return false;
  // Where QEMU and the image are there, so must be these machines.
  const bool excused = made.problem.starts_with("no image");
  if (!excused)
    FAIL(made.problem);
  skip("no virtual machine can be made here: " + made.problem);
  return true;
}

std::string said(machines::machine& in, heard& listener, const std::string& language,
                 const std::string& code) {
  ran result = test::run(in, listener, language, code);
  CHECK(result.ended);
  return result.out + result.err;
}

std::string bash(machines::machine& in, heard& listener, const std::string& code) {
  return said(in, listener, "bash", code);
}

void ask_step(machines::machine& in, heard& listener, bool force, machines::files_step step,
              machines::checkpoint_number number) {
  in.send(guest::freeze{.request = 1, .force = force});
  auto frozen = listener.next<guest::frozen>();
  REQUIRE(frozen);
  INFO(frozen->error);
  REQUIRE(frozen->error.empty());
  if (step == machines::files_step::freeze)
    in.freeze_files(number);
  else
    in.roll_back_files(number);
  auto done = listener.next_files(step);
  INFO(listener.why());
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  in.send(guest::thaw{.request = 2});
  REQUIRE(listener.next<guest::thawed>());
}

void freeze(machines::machine& in, heard& listener, machines::checkpoint_number number) {
  ask_step(in, listener, false, machines::files_step::freeze, number);
}

void roll_back(machines::machine& in, heard& listener, machines::checkpoint_number number) {
  ask_step(in, listener, true, machines::files_step::roll_back, number);
}

/// A template is written down behind its first machine's back.
bool template_is_on_disk() {
  for (int tries = 0; tries < 60'000; ++tries) {
    std::error_code error;
    for (const auto& one :
         std::filesystem::directory_iterator{template_dir() + "/templates", error})
      if (one.path().extension() == ".vmt")
        return true;
    ::usleep(1'000);
  }
  return false;
}

/// Whether a process has ended, seen by its parent or not.
bool is_dead(pid_t pid) {
  for (int tries = 0; tries < 10'000; ++tries) {
    std::ifstream in{"/proc/" + std::to_string(pid) + "/stat"};
    std::string stat;
    if (!std::getline(in, stat) || stat.find(") Z ") != std::string::npos)
      return true;
    ::usleep(1'000);
  }
  return false;
}

constexpr uid_t ordinary_id = 12345;

/// As an ordinary user: one machine, started directly. What it said, or why there is none.
std::string use_as_ordinary_user() {
  if (::setgid(ordinary_id) != 0 || ::setuid(ordinary_id) != 0)
    return "cannot change identity";
  firecracker_plant plant{"user", conformance_settings()};
  if (!plant.problem.empty())
    return plant.problem;
  auto [machine, listener] = plant.start("user");
  if (!listener->next<guest::hello>())
    return "no hello: " + listener->why();
  ran result = test::run(*machine, *listener, "python", "print(6 * 7)");
  machine->destroy();
  return listener->wait_gone() ? result.out + result.err : "it does not go";
}

/// What Firecracker's socket answers to `GET /`, as curl --unix-socket asks.
std::string answer_to_get(const std::string& socket_path) {
  std::string error;
  owned_fd to = machines::firecracker::connect_api(socket_path, error);
  if (!to)
    return error;
  const std::string_view asked = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  REQUIRE(::send(to.get(), asked.data(), asked.size(), 0) == static_cast<ssize_t>(asked.size()));
  std::string all;
  while (all.find('}') == std::string::npos) {
    pollfd ready{to.get(), POLLIN, 0};
    char text[4096];
    ssize_t count = ::poll(&ready, 1, 30'000) == 1 ? ::recv(to.get(), text, sizeof text, 0) : 0;
    if (count <= 0)
      break;
    all.append(text, static_cast<std::size_t>(count));
  }
  return all;
}

std::size_t kept_states_of(const firecracker_plant& plant) {
  const std::string path = "/proc/" + std::to_string(plant.launcher_pid) + "/root"
                           + plant.settings.runtime_dir + "/" + plant.source->instance()
                           + "/states";
  std::size_t count = 0;
  std::error_code error;
  for (const auto& one : std::filesystem::directory_iterator{path, error})
    count += one.path().filename().string().starts_with("s") ? 1 : 0;
  return count;
}

} // namespace

TEST_CASE("a Firecracker machine boots, runs programs, and leaves nothing behind [conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("one", {}, {"python"});
  auto hello = listener->next<guest::hello>();
  INFO(listener->why());
  REQUIRE(hello);
  CHECK(std::ranges::find(hello->languages, "python") != hello->languages.end());
  CHECK(said(*machine, *listener, "python", "print(6 * 7)") == "42\n");
  CHECK(bash(*machine, *listener, "hostname") == "one\n");
  CHECK(test::run(*machine, *listener, "bash", "exit 7").exit_code == 7);
  CHECK(test::run(*machine, *listener, "bash", "kill -9 $$").signal == 9U);
  CHECK(said(*machine, *listener, "python", "print('x' * 300_000)").size() == 300'001);
  const std::string root = plant.root_of("one");
  REQUIRE_FALSE(root.empty());
  CHECK_THAT(answer_to_get(root + "/vm.sock"), Catch::Matchers::Contains(R"("state": "Running")"));
  CHECK(std::filesystem::exists(root + "/metrics"));
  machine->destroy();
  REQUIRE(listener->wait_gone());
  CHECK(listener->lost_count() == 0);
  CHECK(plant.root_of("one").empty());
}

TEST_CASE("Firecracker's clones differ in random numbers and names, and know the time "
          "[conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  std::set<std::string> randoms;
  for (const std::string name : {"twin-a", "twin-b"}) {
    auto [machine, listener] = plant.start(name, {}, {"python"});
    REQUIRE(listener->next<guest::hello>());
    std::istringstream in{said(*machine, *listener, "python",
                               "import os, random, time\n"
                               "print(os.urandom(16).hex(), random.random())\n"
                               "print(int(time.time()))\nprint(os.uname().nodename)\n")};
    std::string random;
    std::string time;
    std::string host;
    std::getline(in, random);
    std::getline(in, time);
    std::getline(in, host);
    randoms.insert(random);
    CHECK(host == name);
    CHECK(std::abs(std::atof(time.c_str()) - static_cast<double>(std::time(nullptr))) < 5.0);
    machine->destroy();
    REQUIRE(listener->wait_gone());
  }
  CHECK(randoms.size() == 2);
}

TEST_CASE("a Firecracker machine goes back to what it was, and forks [conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  const std::size_t kept = kept_states_of(plant);
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
  const std::string draw = "import os; print(os.urandom(16).hex())";
  std::string first = said(*machine, *listener, "python", draw);
  roll_back(*machine, *listener, 1);
  CHECK(first != said(*machine, *listener, "python", draw));
  roll_back(*machine, *listener, 2);
  CHECK(bash(*machine, *listener, "cat /tmp/file; ls /tmp/more | wc -l") == "two\n1\n");
  CHECK(kept_states_of(plant) == kept + 2);
  auto hears_child = std::make_shared<heard>();
  auto child =
      plant.source->start({.id = "child", .parent = "returns", .checkpoint = 1}, hears_child);
  REQUIRE(hears_child->next<guest::hello>());
  CHECK(bash(*child, *hears_child, "cat /tmp/file; hostname") == "one\nchild\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
  bash(*child, *hears_child, "echo changed > /tmp/file");
  roll_back(*child, *hears_child, 1);
  CHECK(bash(*child, *hears_child, "cat /tmp/file") == "one\n");
  child->destroy();
  REQUIRE(hears_child->wait_gone());
  CHECK(hears_child->lost_count() == 0);
  // What nobody can go back to takes no memory.
  for (int tries = 0; kept_states_of(plant) > kept && tries < 10'000; ++tries)
    ::usleep(1'000);
  CHECK(kept_states_of(plant) == kept);
}

TEST_CASE("a live interpreter is what it was after a Firecracker machine went back "
          "[conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("remembers");
  REQUIRE(listener->next<guest::hello>());
  machine->send(guest::open_kernel{.context = "c", .language = "python"});
  REQUIRE(listener->next<guest::kernel_opened>());
  auto cell = [&, in = machine, hears = listener](const std::string& code) {
    static std::uint32_t number = 1000;
    in->send(guest::run_cell{.job = ++number, .context = "c", .code = code, .output_bytes = 4096});
    std::string out;
    while (auto frame = hears->next_any()) {
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

TEST_CASE("limits hold inside a Firecracker machine, and a larger one is another template's "
          "[conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  constexpr std::uint64_t mib = 1 << 20;
  auto [machine, listener] =
      plant.start("tight", {.memory_bytes = 112 * mib, .processes = 32, .disk_bytes = 16 * mib});
  REQUIRE(listener->next<guest::hello>());
  ran eats = test::run(*machine, *listener, "python",
                       "x = []\nwhile True:\n  x.append(b'x' * (8 << 20))\n");
  CHECK(eats.ended);
  CHECK(machine->usage().oom_kills > 0);
  CHECK(bash(*machine, *listener,
             "head -c 64M /dev/zero > /tmp/big 2>/dev/null || echo full; rm /tmp/big")
        == "full\n");
  CHECK(bash(*machine, *listener, "echo fine") == "fine\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}

TEST_CASE("a Firecracker that is killed loses its machine and no other [conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  auto [healthy, hears_healthy] = plant.start("healthy");
  REQUIRE(hears_healthy->next<guest::hello>());
  auto before = plant.processes();
  auto [machine, listener] = plant.start("victim");
  REQUIRE(listener->next<guest::hello>());
  for (pid_t pid : plant.processes())
    if (!before.contains(pid))
      ::kill(pid, SIGKILL);
  CHECK(listener->wait_lost());
  CHECK_THAT(listener->why(), Catch::Matchers::Contains("signal 9"));
  CHECK(listener->wait_gone());
  CHECK(plant.root_of("victim").empty());
  CHECK(bash(*healthy, *hears_healthy, "echo up") == "up\n");
  healthy->destroy();
  CHECK(hears_healthy->wait_gone());
}

TEST_CASE("a Firecracker machine that is ended at any moment is gone [conformance]") {
  auto& plant = shared_plant();
  if (no_plant(plant))
    return;
  for (int delay_ms : {0, 20, 200, 400}) {
    auto [machine, listener] = plant.start("short-" + std::to_string(delay_ms));
    ::usleep(static_cast<unsigned>(delay_ms) * 1000);
    machine->destroy();
    CHECK(listener->wait_gone());
    CHECK(listener->gone_count() == 1);
  }
  CHECK(plant.processes().empty());
}

TEST_CASE("memory by page faults, from a template that was on disk; who brings it is missed "
          "[conformance]") {
  if (no_plant(shared_plant()))
    return;
  REQUIRE(template_is_on_disk());
  auto wanted = conformance_settings();
  wanted.data_dir = template_dir();
  wanted.disk_bytes_per_second = 1ULL << 30;
  wanted.memory_by_faults = true;
  firecracker_plant plant{"faults", wanted};
  if (no_plant(plant))
    return;
  const auto facts = plant.source->isolation();
  CHECK(std::ranges::any_of(
      facts, [](const auto& one) { return one.find("read from disk") != std::string::npos; }));
  auto [machine, listener] = plant.start("faulty", {}, {"python"});
  auto hello = listener->next<guest::hello>();
  INFO(listener->why());
  REQUIRE(hello);
  CHECK(said(*machine, *listener, "python", "print(6 * 7)") == "42\n");
  freeze(*machine, *listener, 1);
  bash(*machine, *listener, "touch /tmp/gone");
  roll_back(*machine, *listener, 1);
  CHECK(bash(*machine, *listener, "ls /tmp/gone 2>/dev/null | wc -l") == "0\n");
  auto name_of = [](pid_t pid) {
    std::string name;
    std::ifstream in{"/proc/" + std::to_string(pid) + "/comm"};
    std::getline(in, name);
    return name;
  };
  std::size_t handlers = 0;
  for (pid_t pid : plant.processes())
    if (name_of(pid) == "berth-faults") {
      ++handlers;
      ::kill(pid, SIGKILL);
    }
  CHECK(handlers == 1);
  CHECK(listener->wait_lost());
  CHECK(listener->wait_gone());
  CHECK(plant.processes().empty());
}

TEST_CASE("a launcher that is killed takes its Firecrackers along, or the next start does "
          "[conformance]") {
  if (no_plant(shared_plant()))
    return;
  REQUIRE(template_is_on_disk());
  auto wanted = conformance_settings();
  wanted.data_dir = template_dir();
  wanted.disk_bytes_per_second = 1ULL << 30;
  std::set<pid_t> children;
  std::string runtime;
  {
    firecracker_plant plant{"swept", wanted};
    if (no_plant(plant))
      return;
    runtime = plant.settings.runtime_dir;
    auto [machine, listener] = plant.start("orphan");
    REQUIRE(listener->next<guest::hello>());
    children = plant.processes();
    CHECK(children.size() == 1);
    ::kill(plant.launcher_pid, SIGKILL);
    CHECK(listener->wait_lost());
    CHECK(listener->wait_gone());
    // The plant's end waits for the launcher; what it left is there.
    plant.source.reset();
    CHECK(machines::sweep(runtime).left == 0);
    CHECK(std::filesystem::is_empty(runtime) == false);
    for (const auto& one : std::filesystem::directory_iterator{runtime})
      CHECK(one.path().filename() == "lock");
  }
  for (pid_t pid : children)
    CHECK(is_dead(pid));
}

TEST_CASE("an ordinary user's Firecracker is started without the jailer [conformance]") {
  if (::geteuid() != 0)
    return skip("an ordinary user begins as root here; all other cases are one's");
  if (no_plant(shared_plant()))
    return;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pid_t user = ::fork();
  if (user == 0) {
    const std::string told = use_as_ordinary_user();
    bool whole = ::write(ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size());
    ::_exit(whole ? 0 : 1);
  }
  ::close(ends[1]);
  char text[4096];
  ssize_t count = ::read(ends[0], text, sizeof text);
  ::close(ends[0]);
  ::waitpid(user, nullptr, 0);
  const std::string told(text, count > 0 ? static_cast<std::size_t>(count) : 0);
  if (told.find("user namespace") != std::string::npos)
    return skip("ordinary users make no user namespaces here: " + told);
  CHECK(told == "42\n");
  CHECK_FALSE(std::filesystem::exists(runtime_dir_of(user) + "-user"));
}

TEST_CASE("a host without Firecracker, or its jailer, says so") {
  auto wanted = conformance_settings();
  wanted.binary = "/no/such/firecracker";
  firecracker_plant without{"none", wanted};
  if (without.problem.starts_with("no image"))
    return skip(without.problem);
  CHECK_FALSE(without.source);
  CHECK_THAT(without.problem, Catch::Matchers::Contains("install Firecracker"));
  CHECK_FALSE(std::filesystem::exists(without.settings.runtime_dir));
  if (::geteuid() != 0)
    return;
  wanted = conformance_settings();
  wanted.jailer = "/no/such/jailer";
  firecracker_plant unjailed{"unjailed", wanted};
  CHECK_FALSE(unjailed.source);
  CHECK_THAT(unjailed.problem, Catch::Matchers::Contains("jailer is needed"));
}

TEST_CASE("Firecracker itself boots a machine that runs a program") {
  machines::firecracker_settings wanted;
  if (::access(wanted.binary.c_str(), X_OK) != 0)
    return skip("firecracker: no binary on this host");
  if (auto kvm = machines::probe_kvm(); !kvm.usable)
    return skip("firecracker: KVM does not work here: " + kvm.detail);
  firecracker_plant plant{"real", wanted};
  if (no_plant(plant))
    return;
  auto [machine, listener] = plant.start("real");
  REQUIRE(listener->next<guest::hello>());
  CHECK(said(*machine, *listener, "python", "print(6 * 7)") == "42\n");
  freeze(*machine, *listener, 1);
  bash(*machine, *listener, "touch /tmp/gone");
  roll_back(*machine, *listener, 1);
  CHECK(bash(*machine, *listener, "ls /tmp/gone 2>/dev/null | wc -l") == "0\n");
  machine->destroy();
  REQUIRE(listener->wait_gone());
}
