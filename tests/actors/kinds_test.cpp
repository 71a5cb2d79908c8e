// SPDX-License-Identifier: Apache-2.0
#include "tests/support/scripted_house.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::test;

namespace {

/// Namespace machines by default, and virtual ones beside them.
class two_kinds : public scripted_house {
public:
  explicit two_kinds(settings values = small_settings(), std::vector<session_info> past = {})
    : scripted_house(std::move(values), std::move(past), {}, {"namespace", "qemu"}) {}

  void virtual_up() {
    for (std::size_t i = 0; i < virtual_source.made.size(); ++i)
      if (auto machine = virtual_source.made[i]; !machine->destroyed) {
        machine->hello();
        for (const auto& language : machine->spec.warm)
          machine->listener->on_frame(guest::warmed{.language = language});
      }
    settle();
  }

  /// Ends the job that runs in a virtual machine.
  void end_virtual_job() {
    for (auto& machine : virtual_source.alive())
      if (machine->last<guest::start_job>() != nullptr)
        return end_job(*machine);
    FAIL("no virtual machine runs a job");
  }
};

} // namespace

TEST_CASE_METHOD(two_kinds, "No virtual machine is made before one is asked for", "[kinds]") {
  all_up();
  pass(std::chrono::seconds{5});
  CHECK(source.made.size() == 1);
  CHECK(virtual_source.made.empty());
}

TEST_CASE("Virtual machines stand ready where the configuration says so", "[kinds]") {
  settings values = scripted_house::small_settings();
  values.pool.warm["qemu/python"] = 2;
  two_kinds house{values};
  house.pass(std::chrono::seconds{2});
  REQUIRE(house.virtual_source.made.size() == 2);
  CHECK(house.virtual_source.made[0]->spec.warm == std::vector<std::string>{"python"});
}

TEST_CASE_METHOD(two_kinds, "A job that asks for a virtual machine gets one, and no other job does",
                 "[kinds]") {
  all_up();
  run request = program();
  request.isolation = "vm";
  auto asked = ask<outcome>(gateway, request);
  CHECK_FALSE(asked.answered());
  CHECK(running() == nullptr); // the idle namespace machine is not for it
  REQUIRE_FALSE(virtual_source.made.empty());
  auto plain = ask<outcome>(gateway, program());
  REQUIRE(running() != nullptr);
  end_job(*running());
  CHECK(plain.answered());
  virtual_up();
  end_virtual_job();
  REQUIRE(asked.answered());
  CHECK(asked.answer()->machine_kind == "qemu");
}

TEST_CASE_METHOD(two_kinds, "A machine type chooses the kind, and its session keeps it",
                 "[kinds]") {
  all_up();
  auto opened = ask<session_info>(gateway, open_session{.vm_type = "berth-vm"});
  virtual_up();
  REQUIRE(opened.answered());
  REQUIRE(opened.answer());
  CHECK(opened.answer()->machine_kind == "qemu");
  run request = program();
  request.session = opened.answer()->session;
  request.isolation = "vm";
  auto asked = ask<outcome>(gateway, request);
  end_virtual_job();
  CHECK(asked.answered());
}

TEST_CASE_METHOD(two_kinds, "A job that asks for more than its session's machine is refused",
                 "[kinds]") {
  all_up();
  auto opened = ask<session_info>(gateway, open_session{});
  REQUIRE(opened.answered());
  CHECK(opened.answer()->machine_kind == "namespace");
  run request = program();
  request.session = opened.answer()->session;
  request.isolation = "vm";
  auto asked = ask<outcome>(gateway, request);
  REQUIRE(asked.answered());
  REQUIRE_FALSE(asked.answer());
  CHECK(asked.answer().error() == ec::isolation_unavailable);
  CHECK(running() == nullptr);
}

TEST_CASE("Idle machines give way to one of another kind that a job waits for", "[kinds]") {
  settings values = scripted_house::small_settings();
  values.pool.slots_max = 2;
  values.pool.warm = {{"", 2}};
  two_kinds house{values};
  house.pass(std::chrono::seconds{2});
  house.all_up();
  REQUIRE(house.source.alive().size() == 2);
  run request = house.program();
  request.isolation = "vm";
  auto asked = house.ask<outcome>(house.gateway, request);
  CHECK(house.source.alive().size() == 1);
  house.all_gone();
  REQUIRE(house.virtual_source.made.size() == 1);
  house.virtual_up();
  house.end_virtual_job();
  CHECK(asked.answered());
}

TEST_CASE_METHOD(two_kinds, "Virtual machines that fail hold up no others", "[kinds]") {
  all_up();
  run request = program();
  request.isolation = "vm";
  auto asked = ask<outcome>(gateway, request);
  for (int i = 0; i < 3 && !virtual_source.alive().empty(); ++i) {
    auto machine = virtual_source.alive().front();
    machine->destroyed = true;
    machine->listener->on_lost("it does not boot", false);
    machine->gone();
    settle();
  }
  for (int i = 0; i < 3; ++i) {
    auto plain = ask<outcome>(gateway, program());
    all_up();
    REQUIRE(running() != nullptr);
    end_job(*running());
    CHECK(plain.answered());
    all_gone();
    all_up();
  }
}

TEST_CASE("A session of a kind that is not served now says so, and is kept", "[kinds]") {
  session_info past;
  past.session = "s-1";
  past.name = "old";
  past.machine_kind = "firecracker";
  past.memory_mib = 512;
  two_kinds house{scripted_house::small_settings(), {past}};
  house.all_up();
  auto resumed = house.ask<session_info>(house.gateway, resume_session{.session = "old"});
  REQUIRE(resumed.answered());
  REQUIRE_FALSE(resumed.answer());
  CHECK_THAT(to_refusal(resumed.answer().error()).detail, Catch::Matchers::Contains("firecracker"));
  run request = house.program();
  request.session = "s-1";
  auto asked = house.ask<outcome>(house.gateway, request);
  REQUIRE(asked.answered());
  auto listed = house.ask<session_list>(house.gateway, list_sessions{});
  REQUIRE(listed.answered());
  CHECK(listed.answer()->sessions.size() == 1);
}
