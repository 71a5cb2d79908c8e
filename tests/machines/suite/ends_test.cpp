// SPDX-License-Identifier: Apache-2.0
// How machines of any kind end, whoever dies. Cases that fork need a process without other
// stations, so this is a program of its own.
#include "machines/namespace/sweep.hpp"
#include "tests/machines/suite/steps.hpp"
#include "tests/support/probe_lies.hpp"
#include "tests/support/skip.hpp"

#include <sys/wait.h>

#include <sstream>

using namespace berth;
using namespace berth::test;

namespace {

bool directory_is_gone(const station& at) {
  return !std::filesystem::exists(at.runtime_dir + "/" + at.instance);
}

} // namespace

TEST_CASE("a source that ends leaves nothing behind") {
  const std::size_t mounts = mounts_of_this_process();
  FOR_EACH_KIND_ALONE(of, at, "ends", guest_program::real);
  running left = at->start("left");
  REQUIRE(is_up(left));
  auto processes = at->processes();
  CHECK_FALSE(processes.empty());
  at->end();
  CHECK(left.listener->gone_count() == 1);
  CHECK(has_ended(at->keeper));
  for (pid_t pid : processes)
    CHECK(has_ended(pid));
  CHECK(groups_of(at->instance) == 0);
  CHECK(directory_is_gone(*at));
  CHECK(mounts_of_this_process() == mounts);
}

TEST_CASE("a machine that is ended at any moment is gone") {
  FOR_EACH_KIND_ALONE(of, at, "moments", guest_program::real);
  for (int delay_ms : {0, 1, 5, 20, 50, 100}) {
    running one = at->start("short-" + std::to_string(delay_ms), {}, {"python"});
    ::usleep(static_cast<unsigned>(delay_ms) * 1000);
    one.machine->destroy();
    CHECK(one.listener->wait_gone());
    CHECK(one.listener->gone_count() == 1);
  }
}

TEST_CASE("a keeper that is killed takes its machines along, and the next start sweeps") {
  FOR_EACH_KIND_ALONE(of, at, "killed", guest_program::real);
  running one = at->start("orphan");
  REQUIRE(is_up(one));
  REQUIRE(bash(one, "sleep 1000 & echo ok") == "ok\n");
  auto processes = at->processes();
  ::kill(at->keeper, SIGKILL);
  check_lost(one, "has ended");
  running late = at->start("late");
  check_lost(late, "has ended");
  at->end();
  machines::swept found = machines::sweep(at->runtime_dir);
  CHECK(found.instances == 1);
  CHECK(found.left == 0);
  CHECK(groups_of(at->instance) == 0);
  for (pid_t pid : processes)
    CHECK(has_ended(pid));
}

TEST_CASE("kill -9 of what holds a machine loses that machine and no other") {
  FOR_EACH_KIND_ALONE(of, at, "holder", guest_program::real);
  running neighbour = at->start("neighbour");
  REQUIRE(is_up(neighbour));
  running victim = at->start("victim");
  REQUIRE(is_up(victim));
  auto processes = at->processes();
  REQUIRE(processes.size() >= 2);
  ::kill(processes[1], SIGKILL);
  check_lost(victim, "signal 9");
  CHECK(bash(neighbour, "hostname") == "neighbour\n");
  // What only waits for a machine may be killed as well: nobody misses it.
  auto left = at->processes();
  for (std::size_t i = 1; i < left.size(); ++i)
    ::kill(left[i], SIGKILL);
  running next = at->start("next");
  REQUIRE(is_up(next));
  CHECK(bash(next, "hostname") == "next\n");
  destroy(next);
  destroy(neighbour);
}

TEST_CASE("kill -9 of the server, alone or with the keeper, is the end of its machines") {
  const kind& of = *GENERATE(from_range(kind_pointers()));
  CAPTURE(of.name);
  const bool both = GENERATE(false, true);
  CAPTURE(both);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t server = ::fork();
  if (server == 0) {
    std::string told = "none";
    auto at = of.make("dies", guest_program::real);
    if (at->source != nullptr) {
      running one = at->start("abandoned");
      if (is_up(one)) {
        told = at->instance + " " + at->runtime_dir + " " + std::to_string(at->keeper);
        for (pid_t pid : at->processes())
          told += " " + std::to_string(pid);
      }
    }
    (void)!::write(ends[1], told.data(), told.size());
    if (both && at->keeper > 0)
      ::kill(at->keeper, SIGKILL);
    ::kill(::getpid(), SIGKILL);
  }
  ::close(ends[1]);
  char text[4096] = {};
  ssize_t count = ::read(ends[0], text, sizeof text - 1);
  ::waitpid(server, nullptr, 0);
  ::close(ends[0]);
  std::istringstream in{std::string(text, count > 0 ? static_cast<std::size_t>(count) : 0)};
  std::string instance;
  std::string directory;
  in >> instance >> directory;
  if (instance == "none")
    return skip("no machine of this kind can be made here");
  std::size_t seen = 0;
  for (pid_t pid = 0; in >> pid; ++seen)
    CHECK(has_ended(pid));
  CHECK(seen > 1);
  // A keeper that lives cleans up itself; else the next start does.
  machines::swept found = machines::sweep(directory);
  CHECK(found.instances == (both ? 1 : 0));
  CHECK(found.left == 0);
  CHECK(groups_of(instance) == 0);
  CHECK_FALSE(std::filesystem::exists(directory + "/" + instance));
  std::error_code error;
  std::filesystem::remove_all(directory, error);
}

TEST_CASE("an ordinary user makes machines too, without what only root can give") {
  const kind& of = *GENERATE(from_range(kind_pointers()));
  CAPTURE(of.name);
  if (::geteuid() != 0)
    return skip("the other tests run as an ordinary user already");
  std::string told = as_ordinary_user([&] {
    auto at = of.make("rootless", guest_program::real);
    if (at->source == nullptr)
      return at->problem;
    running one = at->start("rootless");
    std::string said = is_up(one) ? test::run(*one.machine, *one.listener, "bash",
                                              "id -u; touch /work/x && echo written")
                                        .out
                                  : "no hello: " + one.listener->why();
    one.machine->destroy();
    one.listener->wait_gone();
    at->end();
    std::error_code error;
    std::filesystem::remove_all(at->runtime_dir, error);
    return said;
  });
  if (told.find("outer user namespace") != std::string::npos
      || told.find("no image") != std::string::npos)
    return skip("an ordinary user cannot here: " + told);
  CHECK(told == "1000\nwritten\n");
}

TEST_CASE("a guest that lies before it is up loses its machine and harms no other") {
  FOR_EACH_KIND_ALONE(of, at, "early", guest_program::hostile);
  running neighbour = at->start("neighbour-x");
  REQUIRE(is_up(neighbour));
  std::vector<running> liars;
  for (const auto& lie : of.early_lies)
    liars.push_back(at->start("early-" + lie.name + "-x"));
  for (std::size_t i = 0; i < liars.size(); ++i) {
    CAPTURE(of.early_lies[i].name);
    CHECK(answers(neighbour));
    check_lost(liars[i], of.early_lies[i].loss);
    liars[i].machine->destroy();
  }
  CHECK(answers(neighbour));
  destroy(neighbour);
}

TEST_CASE("a guest that lies later harms at most itself, and costs the server no memory") {
  FOR_EACH_KIND_ALONE(of, at, "late", guest_program::hostile);
  running neighbour = at->start("neighbour-x");
  REQUIRE(is_up(neighbour));
  std::vector<running> liars;
  for (const auto& lie : of.lies) {
    CAPTURE(lie.name);
    liars.push_back(at->start(lie.name + "-x"));
    REQUIRE(is_up(liars.back()));
    // As a slot does with who says more than anybody takes.
    if (lie.name == "flood")
      liars.back().machine->hold_output(true);
  }
  const auto before = memory_of_this_process();
  for (const auto& one : liars)
    one.machine->send(guest::ping{.request = lie_now});
  for (std::size_t i = 0; i < liars.size(); ++i) {
    CAPTURE(of.lies[i].name);
    CHECK(answers(neighbour));
    if (!of.lies[i].loss.empty())
      check_lost(liars[i], of.lies[i].loss);
  }
  constexpr std::uint64_t mib = 1 << 20;
  CHECK(memory_of_this_process() < before + 64 * mib);
  for (std::size_t i = 0; i < liars.size(); ++i) {
    CAPTURE(of.lies[i].name);
    if (!of.lies[i].loss.empty())
      continue;
    liars[i].machine->destroy();
    destroy(liars[i]);
  }
  CHECK(answers(neighbour));
  destroy(neighbour);
}

TEST_CASE("what exceeds the send queue of a machine is a lost machine") {
  FOR_EACH_KIND_ALONE(of, at, "deaf", guest_program::hostile);
  running deaf = at->start("silent-x");
  REQUIRE(is_up(deaf));
  deaf.machine->send(guest::ping{.request = lie_now});
  guest::stdin_data data{.job = 1, .data = bytes(256 * 1024, 'x')};
  for (int i = 0; i < 128; ++i)
    deaf.machine->send(data);
  check_lost(deaf, "more was sent to the guest than it takes");
}
