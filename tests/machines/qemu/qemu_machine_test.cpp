// SPDX-License-Identifier: Apache-2.0
// What virtual machines do that others do not; the suite has the rest (../suite).
#include "tests/machines/qemu/vm_fixture.hpp"
#include "tests/machines/suite/steps.hpp"

#include <fstream>
#include <iterator>
#include <map>
#include <thread>

using namespace berth;
using namespace berth::test;

namespace {

std::size_t children_of(pid_t pid) {
  std::ifstream in{"/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children"};
  return static_cast<std::size_t>(
      std::distance(std::istream_iterator<pid_t>{in}, std::istream_iterator<pid_t>{}));
}

running start(vm_plant& in, machines::machine_spec spec) {
  auto listener = std::make_shared<heard>();
  return {in.source->start(spec, listener), listener};
}

} // namespace

TEST_CASE("nothing is booted, and no QEMU waits, before a virtual machine is asked for") {
  vm_plant plant{"unasked", {}, {}, false};
  if (plant.is_missing())
    return;
  std::this_thread::sleep_for(std::chrono::seconds{2});
  CHECK(children_of(plant.launcher_pid) == 0);
}

TEST_CASE(
    "kill -9 within a virtual machine, of process 1 or of what it keeps, loses that machine") {
  auto found = vm_image();
  if (!found)
    return skip("no image of virtual machines was made here");
  vm_plant plant{
      "inside", patient(),
      image_with(*found, "/lib/probe/berth-probe-killer", data_dir() + "/killer", "killer")};
  if (plant.is_missing())
    return;
  running neighbour = start(plant, {.id = "neighbour"});
  REQUIRE(is_up(neighbour));
  const std::map<std::string, std::string> losses{
      {"kill-init", "stopped by itself: Kernel panic - not syncing: Attempted to kill init"},
      {"kill-guest", "stopped by itself: berth: the machine is lost"},
      {"kill-spawner", "the spawner has ended"}};
  for (const auto& [name, about] : losses) {
    CAPTURE(name);
    check_lost(start(plant, {.id = name}), about);
    CHECK(bash(neighbour, "echo here") == "here\n");
  }
  destroy(neighbour);
}
