// SPDX-License-Identifier: Apache-2.0
#include "config/limits.hpp"
#include "tests/support/scripted_house.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace std::chrono_literals;
using house = berth::test::scripted_house;

namespace {

settings with(void (*change)(settings&)) {
  settings values = house::small_settings();
  change(values);
  return values;
}

} // namespace

TEST_CASE_METHOD(house, "A one-shot job gets a fresh machine that is destroyed after", "[house]") {
  all_up();
  auto asked = ask<outcome>(gateway, program());
  auto* machine = running();
  REQUIRE(machine != nullptr);
  CHECK(machine->last<guest::start_job>()->language == "bash");
  machine->listener->on_frame(guest::output{
      .job = machine->last<guest::start_job>()->job, .stream = 1, .data = {'h', 'i'}});
  end_job(*machine, 5);
  REQUIRE(asked.answered());
  REQUIRE(asked.answer());
  CHECK(asked.answer()->state == job_state::exited);
  CHECK(asked.answer()->exit_code == maybe<std::int32_t>{5});
  CHECK(asked.answer()->stdout_data == bytes{'h', 'i'});
  CHECK(asked.answer()->session.empty());
  CHECK(machine->destroyed);
  CHECK(machine->sent.size() == 1);
  REQUIRE(journal->accepted.size() == 1);
  REQUIRE(journal->ended.size() == 1);
  CHECK(journal->ended[0].ended.stdout_data == bytes{'h', 'i'});
}

TEST_CASE_METHOD(house, "The jobs of an agent run in one machine", "[house]") {
  all_up();
  auto first = ask<outcome>(gateway, program("ann"));
  auto* machine = running();
  REQUIRE(machine != nullptr);
  CHECK_FALSE(machine->last<guest::start_job>()->exclusive);
  end_job(*machine);
  auto second = ask<outcome>(gateway, program("ann"));
  end_job(*machine);
  REQUIRE(second.answered());
  CHECK_FALSE(machine->destroyed);
  CHECK(first.answer()->machine == second.answer()->machine);
  CHECK(first.answer()->session == second.answer()->session);
  auto sessions = ask<session_list>(gateway, list_sessions{.agent_id = "ann"});
  REQUIRE(sessions.answer()->sessions.size() == 1);
  CHECK(sessions.answer()->sessions[0].jobs_run == 2);
  CHECK(sessions.answer()->sessions[0].machine == first.answer()->machine);
}

TEST_CASE_METHOD(house, "Two agents never share a machine", "[house]") {
  all_up();
  auto first = ask<outcome>(gateway, program("ann"));
  auto* anns = running();
  end_job(*anns);
  all_up();
  auto second = ask<outcome>(gateway, program("bob"));
  auto* bobs = running();
  REQUIRE(bobs != anns);
  end_job(*bobs);
  CHECK(first.answer()->machine != second.answer()->machine);
}

TEST_CASE_METHOD(house, "A session whose machine is lost gets a new one under the same id",
                 "[house]") {
  all_up();
  auto first = ask<outcome>(gateway, program("ann"));
  auto* machine = running();
  machine->listener->on_lost("its PID 1 was killed", false);
  settle();
  REQUIRE(first.answered());
  CHECK(first.answer()->state == job_state::machine_lost);
  all_gone();
  pass(1s);
  all_up();
  pass(1s); // its Python never comes: it is up without
  auto second = ask<outcome>(gateway, program("ann"));
  auto* fresh = running();
  REQUIRE(fresh != nullptr);
  REQUIRE(fresh != machine);
  end_job(*fresh);
  CHECK(second.answer()->state == job_state::exited);
  CHECK(second.answer()->machine == first.answer()->machine);
}

TEST_CASE_METHOD(house, "A job waits for a machine, and ends when none comes", "[house]") {
  auto asked = ask<outcome>(gateway, program());
  CHECK_FALSE(asked.answered());
  SECTION("it runs when one is up") {
    all_up();
    auto* machine = running();
    REQUIRE(machine != nullptr);
    end_job(*machine);
    CHECK(asked.answer()->state == job_state::exited);
  }
  SECTION("it ends as machine_lost when none came in time") {
    for (int second = 0; second < 40 && !asked.answered(); ++second) {
      pass(1s);
      all_gone();
    }
    REQUIRE(asked.answered());
    CHECK(asked.answer()->state == job_state::machine_lost);
    CHECK(journal->ended.size() == 1);
  }
}

TEST_CASE_METHOD(house, "Machines that fail again and again are not started for a while",
                 "[house]") {
  for (int second = 0; second < 120; ++second) {
    for (std::size_t i = 0; i < source.made.size(); ++i)
      if (!source.made[i]->destroyed) {
        source.made[i]->listener->on_lost("mount: permission denied", false);
        settle();
      }
    all_gone();
    pass(1s);
  }
  // Back-off lets a handful start in two minutes, not hundreds.
  CHECK(source.made.size() < 60);
  CHECK(source.made.size() > 5);
}

TEST_CASE_METHOD(house, "More jobs than may be alive are refused with a hint", "[house]") {
  std::vector<question<outcome>> asked;
  for (std::uint32_t i = 0; i < config->pool.jobs_alive_max; ++i)
    asked.push_back(ask<outcome>(gateway, program()));
  auto late = ask<outcome>(gateway, program());
  REQUIRE(late.answered());
  REQUIRE_FALSE(late.answer());
  refusal told = to_refusal(late.answer().error());
  CHECK(told.name == "no_capacity");
  CHECK(told.retry_after_ms.has_value());
  CHECK(journal->accepted.size() == config->pool.jobs_alive_max);
}

TEST_CASE("More jobs than may wait for a machine are refused with a hint, and recorded as ended") {
  house berth{with([](settings& values) { values.pool.waiting_max = 2; })};
  auto first = berth.ask<outcome>(berth.gateway, house::program());
  auto second = berth.ask<outcome>(berth.gateway, house::program());
  auto third = berth.ask<outcome>(berth.gateway, house::program());
  CHECK_FALSE(first.answered());
  CHECK_FALSE(second.answered());
  REQUIRE(third.answered());
  REQUIRE_FALSE(third.answer());
  refusal told = to_refusal(third.answer().error());
  CHECK(told.name == "no_capacity");
  CHECK(told.retry_after_ms.has_value());
  REQUIRE(berth.journal->ended.size() == 1);
  CHECK(berth.journal->ended[0].ended.state == job_state::machine_lost);
}

TEST_CASE_METHOD(house, "A secret in output is in neither the reply nor history", "[house]") {
  all_up();
  auto asked = ask<outcome>(gateway, program());
  auto* machine = running();
  std::string output = "API_KEY=secret123456\n";
  machine->listener->on_frame(guest::output{.job = machine->last<guest::start_job>()->job,
                                            .stream = 1,
                                            .data = {output.begin(), output.end()}});
  end_job(*machine);
  REQUIRE(asked.answer());
  REQUIRE(journal->ended.size() == 1);
  for (const outcome& each : {*asked.answer(), journal->ended[0].ended}) {
    std::string told{each.stdout_data.begin(), each.stdout_data.end()};
    CHECK(told.find("secret123456") == std::string::npos);
    CHECK(each.redacted);
  }
}

TEST_CASE_METHOD(house, "A blocked program does not run, and is in history with its reasons",
                 "[house]") {
  all_up();
  run request = program();
  request.code = "rm -rf /";
  auto asked = ask<outcome>(gateway, request);
  REQUIRE(asked.answered());
  CHECK(asked.answer()->state == job_state::blocked);
  CHECK_FALSE(asked.answer()->verdict.reasons.empty());
  CHECK(running() == nullptr);
  REQUIRE(journal->ended.size() == 1);
  CHECK(journal->ended[0].ended.state == job_state::blocked);
}

TEST_CASE_METHOD(house, "Bad requests are refused by the name of the member, and change nothing",
                 "[house]") {
  all_up();
  struct bad {
    const char* member;
    void (*change)(run&);
  };
  auto wrong = GENERATE(
      bad{"language", [](run& r) { r.language = "cobol"; }},
      bad{"code", [](run& r) { r.code = "   "; }},
      bad{"code", [](run& r) { r.code = std::string(limits::code_bytes_max + 1, 'x'); }},
      bad{"timeout_ms", [](run& r) { r.timeout_ms = 0; }},
      bad{"memory_mib", [](run& r) { r.memory_mib = 1'000'000; }},
      bad{"env", [](run& r) { r.env["A=B"] = "c"; }}, bad{"kind", [](run& r) { r.kind = "qemu"; }},
      bad{"session", [](run& r) { r.session = "s-nobody"; }});
  run request = program();
  wrong.change(request);
  auto asked = ask<outcome>(gateway, request);
  REQUIRE(asked.answered());
  REQUIRE_FALSE(asked.answer());
  CHECK_THAT(to_refusal(asked.answer().error()).detail, Catch::Matchers::Contains(wrong.member));
  CHECK(journal->accepted.empty());
  CHECK(running() == nullptr);
}

TEST_CASE_METHOD(house, "A job that cannot be recorded is not acknowledged", "[house]") {
  all_up();
  journal->broken = true;
  submit request;
  request.code = "echo";
  request.language = "bash";
  auto asked = ask<accepted>(gateway, request);
  REQUIRE(asked.answered());
  REQUIRE_FALSE(asked.answer());
  CHECK(to_refusal(asked.answer().error()).name == "store_failed");
}

TEST_CASE_METHOD(house, "Output is read from any offset, and the end comes once", "[house]") {
  all_up();
  submit request;
  request.code = "echo";
  request.language = "bash";
  request.output_bytes = 64 * limits::mib;
  auto asked = ask<accepted>(gateway, request);
  REQUIRE(asked.answer());
  std::string job = asked.answer()->job;
  auto* machine = running();
  std::uint32_t number = machine->last<guest::start_job>()->job;
  // More than memory holds, so that the spool is read too.
  bytes written;
  for (std::size_t chunk = 0; chunk < 12; ++chunk) {
    bytes data(100'000, static_cast<char>('a' + chunk));
    written.insert(written.end(), data.begin(), data.end());
    machine->listener->on_frame(guest::output{.job = number, .stream = 1, .data = data});
    settle();
  }
  auto waiting = ask<output_slice>(
      gateway, berth::read{.job = job, .stdout_offset = written.size(), .wait_ms = 1000});
  CHECK_FALSE(waiting.answered());
  end_job(*machine);
  REQUIRE(waiting.answered());
  CHECK(waiting.answer()->ended.has_value());

  bytes got;
  int ends = 0;
  while (got.size() < written.size()) {
    auto slice = ask<output_slice>(
        gateway, berth::read{.job = job, .stdout_offset = got.size(), .bytes_max = 70'001});
    REQUIRE(slice.answer());
    REQUIRE(slice.answer()->stdout_offset == got.size());
    REQUIRE_FALSE(slice.answer()->stdout_data.empty());
    got.insert(got.end(), slice.answer()->stdout_data.begin(), slice.answer()->stdout_data.end());
    ends += slice.answer()->ended ? 1 : 0;
  }
  CHECK(got == written);
  CHECK(ends == 1);
  auto beyond =
      ask<output_slice>(gateway, berth::read{.job = job, .stdout_offset = written.size() + 1});
  CHECK_FALSE(beyond.answer());
}

TEST_CASE_METHOD(house, "A reader that waits is answered when its time is over", "[house]") {
  all_up();
  submit request;
  request.code = "sleep 9";
  request.language = "bash";
  auto asked = ask<accepted>(gateway, request);
  auto reading =
      ask<output_slice>(gateway, berth::read{.job = asked.answer()->job, .wait_ms = 500});
  pass(499ms);
  CHECK_FALSE(reading.answered());
  pass(1ms);
  REQUIRE(reading.answered());
  CHECK(reading.answer()->stdout_data.empty());
  CHECK_FALSE(reading.answer()->ended.has_value());
}

TEST_CASE_METHOD(house, "What is written past the limit is counted, not kept", "[house]") {
  all_up();
  run request = program();
  request.output_bytes = 10;
  auto asked = ask<outcome>(gateway, request);
  auto* machine = running();
  machine->listener->on_frame(guest::output{
      .job = machine->last<guest::start_job>()->job, .stream = 1, .data = bytes(25, 'x')});
  end_job(*machine);
  CHECK(asked.answer()->stdout_data.size() == 10);
  CHECK(asked.answer()->stdout_bytes == 25);
  CHECK(asked.answer()->stdout_truncated);
  CHECK_FALSE(asked.answer()->stderr_truncated);
}

TEST_CASE_METHOD(house, "A cancelled job ends at once, waiting or running", "[house]") {
  bool waits = GENERATE(true, false);
  if (!waits)
    all_up();
  auto asked = ask<outcome>(gateway, program());
  auto alive = ask<job_list>(gateway, list_jobs{});
  REQUIRE(alive.answer()->jobs.size() == 1);
  std::string job = alive.answer()->jobs[0].job;
  CHECK(alive.answer()->jobs[0].state == (waits ? job_state::queued : job_state::running));
  auto answer = ask<cancelled>(gateway, cancel{.job = job});
  CHECK(answer.answer());
  if (!waits) {
    auto* machine = running();
    machine->listener->on_frame(
        guest::job_ended{.job = machine->last<guest::end_job>()->job, .signal = 9});
    settle();
  }
  REQUIRE(asked.answered());
  CHECK(asked.answer()->state == job_state::cancelled);
  auto again = ask<cancelled>(gateway, cancel{.job = job});
  CHECK(again.answer()->state == job_state::cancelled);
  auto nobody = ask<cancelled>(gateway, cancel{.job = "nobody"});
  CHECK_FALSE(nobody.answer());
}

TEST_CASE_METHOD(house, "A drain takes nothing new, lets jobs end, and ends what is left",
                 "[house]") {
  all_up();
  auto first = ask<outcome>(gateway, program("ann"));
  auto second = ask<outcome>(gateway, program("ann"));
  auto* machine = running();
  auto over = ask<drained>(gateway, drain{.grace_ms = 1000});
  auto refused = ask<outcome>(gateway, program());
  REQUIRE(refused.answered());
  CHECK(to_refusal(refused.answer().error()).name == "shutting_down");
  end_job(*machine);
  CHECK(second.answered());
  CHECK_FALSE(over.answered());
  pass(1s);
  const auto* ended = machine->last<guest::end_job>();
  REQUIRE(ended != nullptr);
  machine->listener->on_frame(guest::job_ended{.job = ended->job, .signal = 9});
  settle();
  REQUIRE(first.answered());
  CHECK(first.answer()->state == job_state::interrupted);
  REQUIRE(over.answered());
  CHECK(over.answer()->ended == 1);
  CHECK(over.answer()->interrupted == 1);
}

TEST_CASE_METHOD(house, "A closed session cancels its jobs and destroys its machine", "[house]") {
  all_up();
  auto asked = ask<outcome>(gateway, program("ann"));
  auto* machine = running();
  auto sessions = ask<session_list>(gateway, list_sessions{});
  std::string id = sessions.answer()->sessions.at(0).session;
  auto closed = ask<session_closed>(gateway, close_session{.session = id});
  CHECK(asked.answered());
  CHECK(machine->destroyed);
  CHECK_FALSE(closed.answered());
  all_gone();
  REQUIRE(closed.answered());
  CHECK(closed.answer());
  CHECK(asked.answer()->state == job_state::cancelled);
  auto again = ask<session_closed>(gateway, close_session{.session = id});
  CHECK_FALSE(again.answer());
  CHECK(journal->sessions.back().session.state == session_state::closed);
}

TEST_CASE_METHOD(house, "A session's name is unique while the session lives", "[house]") {
  all_up();
  open_session request;
  request.name = "workbench";
  auto first = ask<session_info>(gateway, request);
  REQUIRE(first.answered());
  REQUIRE(first.answer());
  CHECK(first.answer()->state == session_state::ready);
  auto second = ask<session_info>(gateway, request);
  REQUIRE_FALSE(second.answer());
  CHECK(to_refusal(second.answer().error()).name == "already_exists");
  for (std::string any :
       {std::string{"workbench"}, first.answer()->session, first.answer()->machine}) {
    auto found = ask<session_list>(gateway, list_sessions{.session = any});
    CHECK(found.answer()->sessions.size() == 1);
  }
}

TEST_CASE("An idle session is closed after its time", "[house]") {
  house berth{with([](settings& values) { values.pool.session_idle_ms = 5000; })};
  berth.all_up();
  auto opened = berth.ask<session_info>(berth.gateway, open_session{.agent_id = "ann"});
  REQUIRE(opened.answer());
  berth.pass(4s);
  CHECK(berth.ask<session_list>(berth.gateway, list_sessions{}).answer()->sessions.size() == 1);
  berth.pass(1s);
  berth.pass(1s);
  berth.all_gone();
  auto left = berth.ask<session_list>(berth.gateway, list_sessions{});
  CHECK(left.answer()->sessions.empty());
}

TEST_CASE("Without auto_provision an agent needs a session that was opened", "[house]") {
  house berth{with([](settings& values) { values.policy.auto_provision = false; })};
  berth.all_up();
  auto asked = berth.ask<outcome>(berth.gateway, house::program("ann"));
  REQUIRE(asked.answered());
  REQUIRE_FALSE(asked.answer());
  CHECK(to_refusal(asked.answer().error()).name == "not_found");
}

TEST_CASE_METHOD(house, "A job's own limits are set before it starts", "[house]") {
  all_up();
  run request = program();
  request.memory_mib = 32;
  auto asked = ask<outcome>(gateway, request);
  auto* machine = running();
  REQUIRE(machine->limits.size() == 1);
  CHECK(machine->limits[0].memory_bytes == 32 * limits::mib);
  end_job(*machine);
}

TEST_CASE_METHOD(house,
                 "An equal program is served its binary, and only in a fresh machine made one",
                 "[house]") {
  all_up();
  run request = program();
  request.language = "rust";
  request.code = "fn main() {}";
  auto first = ask<outcome>(gateway, request);
  auto* machine = running();
  const auto* start = machine->last<guest::start_job>();
  CHECK(start->want_binary);
  machine->listener->on_frame(
      guest::binary{.job = start->job, .data = {'E', 'L', 'F'}, .last = true});
  end_job(*machine);
  all_gone();
  all_up();
  auto second = ask<outcome>(gateway, request);
  auto* other = running();
  CHECK(other->last<guest::start_job>()->binary == bytes{'E', 'L', 'F'});
  end_job(*other);
  request.agent_id = "ann";
  request.code = "fn main() { }";
  all_gone();
  all_up();
  auto third = ask<outcome>(gateway, request);
  CHECK_FALSE(running()->last<guest::start_job>()->want_binary);
  end_job(*running());
}
