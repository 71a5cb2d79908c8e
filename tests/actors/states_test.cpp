// SPDX-License-Identifier: Apache-2.0
#include "tests/support/scripted_house.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace berth;
using namespace std::chrono_literals;
using machines::files_step;

namespace {

settings with(void (*change)(settings&)) {
  settings values = test::scripted_house::small_settings();
  values.policy.history.snapshot_on_failure = false;
  values.snapshots.checkpoint_idle_ms = 0;
  values.pool.session_pause_ms = 0;
  if (change != nullptr)
    change(values);
  return values;
}

/// A house with one session, whose machine is up.
class state_house : public test::scripted_house {
public:
  explicit state_house(void (*change)(settings&) = nullptr)
    : test::scripted_house(with(change)) {
    open();
  }

  void open() {
    all_up();
    auto opened = ask<session_info>(gateway, open_session{.agent_id = "a", .name = "home"});
    REQUIRE(opened.answered());
    REQUIRE(opened.answer());
    id = opened.answer()->session;
    // The first machine is the session's: it took the one that stood ready, or made its own.
    for (auto& each : source.made)
      if (each->spec.id == opened.answer()->machine && !each->destroyed)
        machine = each.get();
    REQUIRE(machine != nullptr);
  }

  question<outcome> begin_job(std::string language = "sh") {
    run request;
    request.code = "echo hello";
    request.language = std::move(language);
    request.session = id;
    return ask<outcome>(gateway, request);
  }

  /// A job from its start to its end; the machine does what is asked meanwhile.
  outcome job(std::int32_t exit_code = 0) {
    auto asked = begin_job();
    play_states();
    REQUIRE(machine->last<guest::start_job>() != nullptr);
    end_job(*machine, exit_code);
    play_states();
    REQUIRE(asked.answered());
    REQUIRE(asked.answer());
    return *asked.answer();
  }

  question<snapshot_info> begin_snapshot(std::string name = "", bool wait = true) {
    return ask<snapshot_info>(
        gateway, take_snapshot{.session = id, .name = std::move(name), .wait_durable = wait});
  }

  snapshot_info snapshot(std::string name = "") {
    auto asked = begin_snapshot(std::move(name));
    play_states();
    REQUIRE(asked.answered());
    REQUIRE(asked.answer());
    return *asked.answer();
  }

  question<rolled_back> begin_rollback(const std::string& to) {
    return ask<rolled_back>(gateway, rollback{.session = id, .snapshot = to});
  }

  session_info info() {
    auto list = ask<session_list>(gateway, list_sessions{.session = id});
    REQUIRE(list.answer()->sessions.size() == 1);
    return list.answer()->sessions.front();
  }

  std::vector<snapshot_info> listed() {
    auto list = ask<snapshot_list>(gateway, list_snapshots{.session = id});
    return list.answer()->snapshots;
  }

  std::size_t count(files_step step) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        machine->files_asked, [&](const auto& asked) { return asked.step == step; }));
  }

  /// The machine goes, and the one that takes its place says hello.
  void lose_machine() {
    machine->listener->on_lost("the test killed it", false);
    settle();
    machine->gone();
    settle();
    next_machine();
  }

  void next_machine() {
    for (int round = 0; round < 4; ++round) {
      all_gone();
      pass(1s);
    }
    for (auto& each : source.made)
      if (!each->destroyed && each->spec.id == machine_id())
        machine = each.get();
    REQUIRE_FALSE(machine->destroyed);
    machine->hello();
    settle();
    pass(1s); // nothing of it is warm
  }

  /// A snapshot that the session's machine does not have.
  snapshot_info state_on_disk_only() {
    auto first = snapshot("first");
    job();
    auto other = snapshot("other");
    begin_rollback(first.snapshot);
    play_states();
    lose_machine(); // it stands at `first`: the new one has no `other`
    return other;
  }

  std::string machine_id() const { return "vm-" + id.substr(2); }

  std::string id;
  test::scripted_machine* machine = nullptr;
};

} // namespace

// --- snapshots -----------------------------------------------------------------------------------

TEST_CASE_METHOD(state_house, "A snapshot freezes interpreters, then files, then lets them go on",
                 "[states]") {
  machine->contexts = {"python"};
  outcome before = job();
  auto asked = ask<snapshot_info>(
      gateway, take_snapshot{.session = id, .name = "my point", .description = "for later"});
  REQUIRE(machine->last<guest::freeze>() != nullptr);
  auto number = machine->last<guest::freeze>()->checkpoint;
  CHECK(number != 0);
  CHECK_FALSE(machine->last<guest::freeze>()->force);
  CHECK(machine->files_asked.empty());
  machine->play_state();
  settle();
  REQUIRE(machine->files_asked.size() == 1);
  CHECK(machine->files_asked[0].step == files_step::freeze);
  CHECK(machine->files_asked[0].checkpoint == number);
  CHECK(machine->last<guest::thaw>() == nullptr);
  machine->play_state();
  settle();
  REQUIRE(machine->last<guest::thaw>() != nullptr);
  CHECK(machine->last<guest::thaw>()->checkpoint == 0);
  CHECK_FALSE(asked.answered()); // not on disk yet
  play_states();
  REQUIRE(asked.answered());
  REQUIRE(asked.answer());
  const snapshot_info& info = *asked.answer();
  CHECK(info.snapshot.starts_with("my-point-"));
  CHECK(info.session == id);
  CHECK(info.agent_id == "a");
  CHECK(info.machine == machine_id());
  CHECK(info.name == "my point");
  CHECK(info.description == "for later");
  CHECK(info.parent.empty());
  CHECK(info.job == before.job);
  CHECK(info.entry == 1);
  CHECK(info.reason == snapshot_reason::asked);
  CHECK(info.content == snapshot_content::files_and_memory);
  CHECK(info.contexts == std::vector<std::string>{"python"});
  CHECK(info.durable);
  CHECK(listed().size() == 1);
  CHECK(listed().front().snapshot == info.snapshot);
  CHECK(snapshot().parent == info.snapshot);
  CHECK(this->info().snapshot == listed().back().snapshot);
}

TEST_CASE_METHOD(state_house, "A snapshot need not wait for the disk", "[states]") {
  job();
  states->silent = true;
  auto quick = begin_snapshot("quick", false);
  auto slow = begin_snapshot("slow", true);
  play_states();
  REQUIRE(quick.answered());
  CHECK_FALSE(quick.answer()->durable);
  CHECK_FALSE(slow.answered());
  CHECK(listed().size() == 2);
  CHECK(job().exit_code.value_or(-1) == 0); // nobody is held up by the disk
  for (int i = 0; i < 3; ++i) {
    finish_saves();
    play_states();
  }
  REQUIRE(slow.answered());
  CHECK(slow.answer()->durable);
  for (const auto& each : listed())
    CHECK(each.durable);
}

TEST_CASE_METHOD(state_house, "Snapshots wait for running jobs, and jobs for snapshots, in order",
                 "[states]") {
  auto first = begin_job();
  auto taken = begin_snapshot();
  auto second = begin_job();
  CHECK(machine->last<guest::freeze>() == nullptr);
  end_job(*machine);
  CHECK(first.answered());
  CHECK(machine->last<guest::freeze>() != nullptr);
  auto started = [&] {
    return std::ranges::count_if(machine->sent, [](const auto& message) {
      return std::holds_alternative<guest::start_job>(message);
    });
  };
  CHECK(started() == 1);
  play_states();
  CHECK(taken.answered());
  CHECK(taken.answer()->job == first.answer()->job);
  CHECK(started() == 2);
  end_job(*machine);
  CHECK(second.answered());
}

TEST_CASE_METHOD(state_house, "A session that cannot rest now is not snapshotted, and goes on",
                 "[states]") {
  machine->fails["freeze"] = "context a: a thread runs";
  auto refused = begin_snapshot();
  play_states();
  REQUIRE(refused.answered());
  REQUIRE_FALSE(refused.answer());
  CHECK(refused.answer().error() == ec::conflict);
  CHECK(to_refusal(refused.answer().error()).detail.find("a thread runs") != std::string::npos);
  CHECK(count(files_step::freeze) == 0);
  CHECK(listed().empty());
  CHECK(job().exit_code.value_or(-1) == 0);
  machine->fails.clear();
  CHECK(snapshot().durable);
}

TEST_CASE_METHOD(state_house, "When files cannot be frozen, interpreters go on and copies go",
                 "[states]") {
  machine->contexts = {"python"};
  machine->fails["freeze files"] = "process 7 has /work/log open for writing";
  auto refused = begin_snapshot();
  play_states();
  REQUIRE(refused.answered());
  REQUIRE_FALSE(refused.answer());
  CHECK(machine->parked.empty());
  CHECK(machine->last<guest::thaw>()->checkpoint == 0);
  CHECK(job().exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A full disk fails the snapshot and nothing else", "[states]") {
  auto kept = snapshot("kept");
  states->broken = fail(ec::no_capacity, "the disk is full");
  auto failed = begin_snapshot("lost");
  play_states();
  REQUIRE(failed.answered());
  CHECK(failed.answer().error() == ec::no_capacity);
  states->broken = {};
  machine->fails["save files"] = "No space left on device";
  auto again = begin_snapshot("lost too");
  play_states();
  CHECK(again.answer().error() == ec::store_failed);
  CHECK(states->abandoned.size() == 1);
  machine->fails.clear();
  REQUIRE(listed().size() == 1);
  CHECK(listed().front().snapshot == kept.snapshot);
  CHECK(job().exit_code.value_or(-1) == 0);
  auto good = snapshot("good");
  CHECK(good.parent == kept.snapshot);
  CHECK(states->catalog.find(good.snapshot)->base == kept.snapshot);
}

TEST_CASE_METHOD(state_house, "A machine that does not finish a step in time is given up",
                 "[states]") {
  auto stuck = begin_snapshot();
  pass(25s);
  REQUIRE(stuck.answered());
  CHECK(stuck.answer().error() == ec::machine_failed);
  CHECK(machine->destroyed);
  next_machine();
  CHECK(job().exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A deleted snapshot is gone, for lists and for the machine",
                 "[states]") {
  auto first = snapshot("first");
  auto second = snapshot("second");
  auto gone = ask<snapshot_deleted>(gateway, delete_snapshot{.snapshot = first.snapshot});
  play_states();
  REQUIRE(gone.answered());
  REQUIRE(gone.answer());
  REQUIRE(listed().size() == 1);
  CHECK(count(files_step::drop) == 1);
  auto again = ask<snapshot_deleted>(gateway, delete_snapshot{.snapshot = first.snapshot});
  CHECK(again.answer().error() == ec::not_found);
  auto nowhere = begin_rollback(first.snapshot);
  CHECK(nowhere.answer().error() == ec::not_found);
  auto back = begin_rollback("second"); // by its name
  play_states();
  REQUIRE(back.answered());
  CHECK(back.answer()->snapshot == second.snapshot);
}

TEST_CASE_METHOD(state_house, "A session goes on from a snapshot that was deleted under it",
                 "[states]") {
  job();
  auto point = snapshot("point");
  auto gone = ask<snapshot_deleted>(gateway, delete_snapshot{.snapshot = point.snapshot});
  play_states();
  REQUIRE(gone.answer());
  CHECK(info().snapshot.empty());
  auto forks = ask<forked>(gateway, fork_session{.session = id, .count = 1});
  play_states();
  all_gone();
  pass(1s);
  all_up();
  pass(1s);
  REQUIRE(forks.answered());
  REQUIRE(forks.answer());
  job();
  auto next = snapshot("next");
  CHECK(next.durable);
  CHECK(next.parent.empty());
}

// --- rollback ------------------------------------------------------------------------------------

TEST_CASE_METHOD(state_house, "A rollback ends jobs, once each, and goes back in place",
                 "[states]") {
  machine->contexts = {"python"};
  job();
  auto point = snapshot();
  machine->contexts = {"python", "bash"};
  job();
  auto running = begin_job();
  auto waiting = begin_snapshot();
  auto back = begin_rollback(point.snapshot);
  CHECK(machine->last<guest::end_job>() != nullptr);
  auto later = begin_job(); // arrives meanwhile: it waits
  guest::job_ended killed;
  killed.job = machine->last<guest::start_job>()->job;
  killed.signal = 9;
  machine->listener->on_frame(killed);
  settle();
  REQUIRE(running.answered());
  CHECK(running.answer()->state == job_state::cancelled);
  CHECK(machine->last<guest::freeze>()->checkpoint == 0);
  CHECK(machine->last<guest::freeze>()->force);
  play_states();
  REQUIRE(back.answered());
  REQUIRE(back.answer());
  CHECK(back.answer()->machine == machine_id());
  CHECK(back.answer()->snapshot == point.snapshot);
  CHECK(back.answer()->content == snapshot_content::files_and_memory);
  CHECK(back.answer()->contexts == std::vector<std::string>{"python"});
  CHECK(back.answer()->entry == 5);
  CHECK(machine->contexts == std::vector<std::string>{"python"});
  CHECK(count(files_step::roll_back) == 1);
  CHECK(info().snapshot == waiting.answer()->snapshot);
  CHECK(waiting.answer()->parent == point.snapshot);
  end_job(*machine);
  REQUIRE(later.answered());
  CHECK(later.answer()->exit_code.value_or(-1) == 0);
  CHECK(
      std::ranges::count_if(
          journal->ended, [&](const auto& each) { return each.ended.job == running.answer()->job; })
      == 1);
  const outcome& entry = journal->ended[3].ended; // before `later`
  CHECK(entry.rolled_back_to == point.snapshot);
  CHECK(journal->accepted[4].order.kind == entry_kind::rollback);
}

TEST_CASE_METHOD(state_house, "What is not exactly one place to go back to is refused",
                 "[states]") {
  auto none = ask<rolled_back>(gateway, rollback{.session = id});
  CHECK(none.answer().error() == ec::malformed);
  auto two =
      ask<rolled_back>(gateway, rollback{.session = id, .snapshot = "x", .last_success = true});
  CHECK(two.answer().error() == ec::malformed);
  auto running = begin_job();
  auto unknown = begin_rollback("nobody");
  CHECK(unknown.answer().error() == ec::not_found);
  CHECK(machine->last<guest::end_job>() == nullptr); // no job was ended in vain
  end_job(*machine);
  CHECK(running.answer()->exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A rollback that fails leaves the session as it is", "[states]") {
  machine->contexts = {"python"};
  auto point = snapshot();
  job();
  machine->fails["roll back files"] = "no";
  auto failed = begin_rollback(point.snapshot);
  play_states();
  REQUIRE(failed.answered());
  CHECK(failed.answer().error() == ec::conflict);
  CHECK(machine->last<guest::thaw>()->checkpoint == 0); // the interpreters that lived go on
  CHECK(job().exit_code.value_or(-1) == 0);
  machine->fails.clear();
  auto back = begin_rollback(point.snapshot);
  play_states();
  CHECK(back.answer()->contexts == std::vector<std::string>{"python"});
}

TEST_CASE_METHOD(state_house, "Before and after an entry, and the last success, are found",
                 "[states]") {
  auto fresh = snapshot("fresh");
  job();
  auto one = snapshot("one");
  job(1);
  auto two = snapshot("two");
  job(1);
  auto to = [&](rollback request) {
    request.session = id;
    auto asked = ask<rolled_back>(gateway, request);
    play_states();
    REQUIRE(asked.answered());
    return asked.answer() ? asked.answer()->snapshot
                          : std::string{name_of(static_cast<ec>(asked.answer().error().code()))};
  };
  CHECK(to({.before_entry = 1}) == fresh.snapshot);
  CHECK(to({.after_entry = 1}) == one.snapshot);
  CHECK(to({.before_entry = 2}) == one.snapshot);
  CHECK(to({.after_entry = 2}) == two.snapshot);
  CHECK(to({.before_entry = 3}) == two.snapshot);
  CHECK(to({.after_entry = 3}) == "not_found");
  CHECK(to({.after_entry = 99}) == "not_found");
  CHECK(to({.last_success = true}) == one.snapshot);
  CHECK(to({.after_entry = 4}) == fresh.snapshot); // the first rollback's own entry
}

TEST_CASE_METHOD(state_house, "A snapshot can be taken before going back, and gone back to",
                 "[states]") {
  auto point = snapshot("point");
  job();
  auto asked = ask<rolled_back>(
      gateway, rollback{.session = id, .snapshot = point.snapshot, .snapshot_first = true});
  play_states();
  REQUIRE(asked.answered());
  REQUIRE(asked.answer());
  std::string before = asked.answer()->snapshot_before;
  REQUIRE(listed().size() == 2);
  CHECK(listed().back().snapshot == before);
  CHECK(listed().back().reason == snapshot_reason::before_rollback);
  auto again = begin_rollback(before);
  play_states();
  CHECK(again.answer()->snapshot == before);
  CHECK(again.answer()->entry == 3);
}

TEST_CASE_METHOD(state_house, "A lost machine's session starts anew from what was saved last",
                 "[states]") {
  machine->contexts = {"python"};
  auto first = snapshot("first");
  job();
  auto second = snapshot("second");
  job();
  lose_machine();
  REQUIRE(machine->spec.layers.size() == 2);
  CHECK(machine->spec.layers[1].checkpoint == 2);
  CHECK(info().state == session_state::ready);
  CHECK(info().snapshot == second.snapshot);
  CHECK(info().detail.find("the test killed it") != std::string::npos);
  CHECK(info().detail.find(second.snapshot) != std::string::npos);
  for (const auto& each : listed())
    CHECK(each.content == snapshot_content::files);
  // The new machine knows the states that it was made from.
  auto back = begin_rollback(first.snapshot);
  play_states();
  REQUIRE(back.answered());
  CHECK(back.answer()->content == snapshot_content::files);
  CHECK(count(files_step::roll_back) == 1);
  CHECK(job().exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A state that the machine has no more comes back in a new machine",
                 "[states]") {
  auto other = state_on_disk_only();
  REQUIRE(machine->spec.layers.size() == 1);
  auto* old = machine;
  auto again = begin_rollback(other.snapshot);
  auto later = begin_job();
  play_states();
  CHECK(old->destroyed);
  next_machine();
  REQUIRE(again.answered());
  REQUIRE(again.answer());
  CHECK(again.answer()->machine == machine_id());
  CHECK(again.answer()->content == snapshot_content::files);
  CHECK_FALSE(again.answer()->detail.empty());
  CHECK(machine->spec.layers.size() == 2);
  end_job(*machine);
  CHECK(later.answer()->exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A damaged state is refused and the session stays as it is",
                 "[states]") {
  auto other = state_on_disk_only();
  saved_state damaged = *states->catalog.find(other.snapshot);
  damaged.info.damage = "its archive's checksum does not match";
  states->catalog.put(damaged);
  auto refused = begin_rollback(other.snapshot);
  play_states();
  REQUIRE(refused.answered());
  CHECK(refused.answer().error() == ec::store_failed);
  CHECK_FALSE(machine->destroyed);
  CHECK(job().exit_code.value_or(-1) == 0);
  bool told = false;
  for (const auto& each : listed())
    told |= each.snapshot == other.snapshot && !each.damage.empty();
  CHECK(told);
}

TEST_CASE_METHOD(state_house, "Archives that no machine can start from are given up for older ones",
                 "[states]") {
  auto first = snapshot("first");
  job();
  auto second = snapshot("second");
  lose_machine();
  for (int round = 0; round < 2; ++round) { // what fails is tried again, for it may be the host
    CHECK(machine->spec.layers.size() == 2);
    lose_machine();
  }
  auto asked = begin_job();
  // The third machine was up at last.
  CHECK(info().state == session_state::busy);
  end_job(*machine);
  CHECK(asked.answer()->exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "A machine that dies during a rollback fails it, and is replaced",
                 "[states]") {
  auto first = snapshot("first");
  job();
  auto back = begin_rollback(first.snapshot);
  lose_machine();
  REQUIRE(back.answered());
  CHECK(back.answer().error() == ec::machine_failed);
  CHECK(machine->spec.layers.size() == 1);
  CHECK(info().detail.find("lost") != std::string::npos);
  CHECK(job().exit_code.value_or(-1) == 0);
}

// --- rules ---------------------------------------------------------------------------------------

TEST_CASE("snapshot_on_execution saves the state before each job", "[states]") {
  state_house house{[](settings& values) { values.policy.history.snapshot_on_execution = true; }};
  auto one = house.job(1);
  auto two = house.job();
  REQUIRE_FALSE(one.snapshot_before.empty());
  REQUIRE_FALSE(two.snapshot_before.empty());
  auto all = house.listed();
  REQUIRE(all.size() == 2);
  CHECK(all[0].snapshot == one.snapshot_before);
  CHECK(all[0].reason == snapshot_reason::before_job);
  CHECK(all[0].job.empty());
  CHECK(all[1].job == one.job);
  CHECK(all[1].parent == all[0].snapshot);
  // The job does not wait for the disk.
  house.states->silent = true;
  auto asked = house.begin_job();
  house.play_states();
  CHECK(house.info().state == session_state::busy);
  house.end_job(*house.machine);
  REQUIRE(asked.answered());
  auto back =
      house.ask<rolled_back>(house.gateway, rollback{.session = house.id, .before_entry = 3});
  house.play_states();
  REQUIRE(back.answered());
  CHECK(back.answer()->snapshot == asked.answer()->snapshot_before);
}

TEST_CASE("snapshot_on_failure saves the state after a failed job, and after no other",
          "[states]") {
  state_house house{[](settings& values) { values.policy.history.snapshot_on_failure = true; }};
  CHECK(house.job(0).snapshot_after.empty());
  auto failed = house.job(3);
  REQUIRE_FALSE(failed.snapshot_after.empty());
  CHECK(failed.exit_code.value_or(-1) == 3);
  CHECK(house.listed().front().reason == snapshot_reason::after_failure);
  CHECK(house.listed().front().job == failed.job);
  // While others run there is no state between two jobs.
  auto one = house.begin_job();
  auto two = house.begin_job();
  house.end_job(*house.machine, 1);
  REQUIRE(two.answered());
  CHECK(two.answer()->snapshot_after.empty());
  CHECK(two.answer()->detail.find("other jobs") != std::string::npos);
  guest::job_ended other;
  other.job = house.machine->last<guest::start_job>()->job - 1;
  other.exit_code = 0;
  house.machine->listener->on_frame(other);
  house.settle();
  CHECK(one.answered());
}

TEST_CASE("auto_rollback_on_failure goes back to the state before the failed job", "[states]") {
  state_house house{[](settings& values) {
    values.policy.history.auto_rollback_on_failure = true;
    values.policy.history.snapshot_on_failure = true;
  }};
  house.machine->contexts = {"python"};
  CHECK(house.job(0).rolled_back_to.empty());
  CHECK(house.listed().empty()); // the cheap checkpoint is nobody's snapshot
  auto asked = house.begin_job();
  house.play_states();
  auto before = house.machine->last<guest::freeze>()->checkpoint;
  house.machine->contexts = {"python", "broken"};
  house.end_job(*house.machine, 1);
  house.play_states();
  REQUIRE(asked.answered());
  const outcome& failed = *asked.answer();
  CHECK(failed.exit_code.value_or(-1) == 1);
  CHECK_FALSE(failed.snapshot_after.empty());
  REQUIRE_FALSE(failed.rolled_back_to.empty());
  CHECK(failed.rolled_back_to != failed.snapshot_after); // the fault of those before us
  CHECK(house.machine->contexts == std::vector<std::string>{"python"});
  auto rolled = std::ranges::find(house.machine->files_asked, files_step::roll_back,
                                  &test::files_request::step);
  REQUIRE(rolled != house.machine->files_asked.end());
  CHECK(rolled->checkpoint == before);
  // What it went back to is a snapshot now, and the rollback an entry.
  auto all = house.listed();
  REQUIRE(all.size() == 2);
  CHECK(house.journal->accepted.back().order.kind == entry_kind::rollback);
  // Nothing happened since: the next job needs no new checkpoint.
  auto frozen = house.count(files_step::freeze);
  CHECK(house.job(0).exit_code.value_or(-1) == 0);
  CHECK(house.count(files_step::freeze) == frozen);
  // Jobs stand in a row, for each has a state before it.
  auto one = house.begin_job();
  auto two = house.begin_job();
  house.play_states();
  house.end_job(*house.machine, 0);
  CHECK(one.answered());
  CHECK_FALSE(two.answered());
  house.play_states();
  house.end_job(*house.machine, 0);
  CHECK(two.answered());
}

TEST_CASE("A job that never ran is not rolled back, and one whose state was not saved says so",
          "[states]") {
  state_house house{
      [](settings& values) { values.policy.history.auto_rollback_on_failure = true; }};
  house.machine->fails["freeze files"] = "a file is open";
  auto asked = house.begin_job();
  house.play_states();
  house.end_job(*house.machine, 1);
  house.play_states();
  REQUIRE(asked.answered());
  CHECK(asked.answer()->rolled_back_to.empty());
  CHECK(asked.answer()->detail.find("a file is open") != std::string::npos);
  CHECK(house.count(files_step::roll_back) == 0);
}

// --- forks ---------------------------------------------------------------------------------------

TEST_CASE_METHOD(state_house, "Forks share the parent's files and are sessions of their own",
                 "[states]") {
  job();
  auto asked = ask<forked>(gateway, fork_session{.session = id, .count = 2});
  play_states();
  auto* parent = machine;
  all_gone(); // idle machines made room
  pass(1s);
  all_up();
  pass(1s); // nothing of them is warm
  REQUIRE(asked.answered());
  REQUIRE(asked.answer());
  REQUIRE(asked.answer()->sessions.size() == 2);
  CHECK(asked.answer()->content == snapshot_content::files);
  for (const session_info& child : asked.answer()->sessions) {
    CHECK(child.parent == id);
    CHECK(child.session != id);
    CHECK(child.state == session_state::ready);
    CHECK(child.machine == "vm-" + child.session.substr(2));
    for (auto& each : source.made)
      if (each->spec.id == child.machine) {
        CHECK(each->spec.parent == parent->spec.id);
        CHECK(each->spec.checkpoint == 1);
      }
  }
  // Both are on disk, on top of what the parent saved for them.
  play_states();
  for (const session_info& child : asked.answer()->sessions)
    CHECK(states->catalog.tip(child.session) != nullptr);
  CHECK(job().exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "More forks than there is room for are refused, all of them",
                 "[states]") {
  auto many = ask<forked>(gateway, fork_session{.session = id, .count = 4});
  CHECK(many.answer().error() == ec::no_capacity);
  auto none = ask<forked>(gateway, fork_session{.session = id, .count = 0});
  CHECK(none.answer().error() == ec::malformed);
  auto too_many = ask<forked>(gateway, fork_session{.session = id, .count = 257});
  CHECK(too_many.answer().error() == ec::malformed);
  auto list = ask<session_list>(gateway, list_sessions{});
  CHECK(list.answer()->sessions.size() == 1);
}

TEST_CASE_METHOD(state_house, "A fork that does not come up takes the others with it", "[states]") {
  auto asked = ask<forked>(gateway, fork_session{.session = id, .count = 2});
  play_states();
  all_gone();
  pass(1s);
  for (std::size_t i = 0; i < source.made.size(); ++i)
    if (!source.made[i]->spec.parent.empty()) {
      source.made[i]->listener->on_lost("no memory", true);
      break;
    }
  settle();
  all_gone();
  REQUIRE(asked.answered());
  CHECK(asked.answer().error() == ec::machine_failed);
  pass(1s);
  all_gone();
  auto list = ask<session_list>(gateway, list_sessions{});
  CHECK(list.answer()->sessions.size() == 1);
  CHECK(job().exit_code.value_or(-1) == 0);
  // The state they were to have is nobody's now, and the parent's machine lets it go.
  snapshot("later");
  snapshot("much later");
  CHECK(count(files_step::drop) == 1);
}

// --- sleep ---------------------------------------------------------------------------------------

TEST_CASE_METHOD(state_house, "A paused session has no machine, and a job wakes it", "[states]") {
  job();
  auto paused = ask<session_info>(gateway, pause_session{.session = id});
  play_states();
  CHECK(machine->destroyed);
  all_gone();
  REQUIRE(paused.answered());
  CHECK(paused.answer()->state == session_state::paused);
  REQUIRE(listed().size() == 1);
  CHECK(listed().front().reason == snapshot_reason::pause);
  CHECK(journal->sessions.back().session.state == session_state::paused);
  pass(5s);
  CHECK(info().state == session_state::paused);
  auto again =
      ask<session_info>(gateway, pause_session{.session = id}); // pausing twice is no fault
  CHECK(again.answer()->state == session_state::paused);
  auto asked = begin_job();
  next_machine();
  CHECK(machine->spec.layers.size() == 1);
  CHECK(machine->spec.id == machine_id());
  end_job(*machine);
  REQUIRE(asked.answered());
  CHECK(asked.answer()->exit_code.value_or(-1) == 0);
}

TEST_CASE_METHOD(state_house, "Pause and resume by hand; the pause before is forgotten",
                 "[states]") {
  for (int round = 0; round < 3; ++round) {
    job();
    auto paused = ask<session_info>(gateway, pause_session{.session = id});
    play_states();
    all_gone();
    REQUIRE(paused.answered());
    auto resumed = ask<session_info>(gateway, resume_session{.session = id});
    CHECK_FALSE(resumed.answered());
    next_machine();
    REQUIRE(resumed.answered());
    CHECK(resumed.answer()->state == session_state::ready);
    CHECK(listed().size() == 1);
  }
}

TEST_CASE_METHOD(state_house, "A pause that cannot be saved leaves the session awake", "[states]") {
  job();
  states->broken = fail(ec::no_capacity, "the disk is full");
  auto paused = ask<session_info>(gateway, pause_session{.session = id});
  play_states();
  REQUIRE(paused.answered());
  CHECK(paused.answer().error() == ec::no_capacity);
  CHECK_FALSE(machine->destroyed);
  CHECK(job().exit_code.value_or(-1) == 0);
}

TEST_CASE("A session that nobody uses is paused by itself", "[states]") {
  state_house house{[](settings& values) { values.pool.session_pause_ms = 5000; }};
  house.job();
  house.pass(3s);
  CHECK(house.info().state == session_state::ready);
  for (int i = 0; i < 5; ++i) {
    house.pass(1s);
    house.play_states();
  }
  house.all_gone();
  CHECK(house.info().state == session_state::paused);
}

// --- what survives -------------------------------------------------------------------------------

TEST_CASE("Files go to disk by themselves a moment after the last job", "[states]") {
  state_house house{[](settings& values) { values.snapshots.checkpoint_idle_ms = 1000; }};
  house.pass(5s);
  house.play_states();
  CHECK(house.count(files_step::freeze) == 0); // nothing happened
  for (int round = 1; round <= 12; ++round) {
    house.job();
    for (int i = 0; i < 3; ++i) {
      house.pass(1s);
      house.play_states();
    }
    CHECK(house.count(files_step::freeze) == static_cast<std::size_t>(round));
    REQUIRE(house.states->catalog.tip(house.id) != nullptr);
    CHECK(house.states->catalog.tip(house.id)->kind == saved_kind::checkpoint);
    CHECK(house.states->catalog.tip(house.id)->info.job == house.journal->ended.back().ended.job);
    CHECK(house.states->catalog.chain(house.states->catalog.tip(house.id)->info.snapshot)->size()
          <= 9);
  }
  CHECK(house.listed().empty());
  house.lose_machine();
  CHECK_FALSE(house.machine->spec.layers.empty());
}

TEST_CASE("Sessions of a dead server come back as what they are", "[states]") {
  auto session = [](std::string id, session_state state) {
    session_info info;
    info.session = info.name = id;
    info.machine = "vm-" + id.substr(2);
    info.state = state;
    info.agent_id = "agent-" + id;
    info.memory_mib = 64;
    info.processes = 16;
    info.disk_mib = 16;
    return info;
  };
  saved_state tip;
  tip.info.snapshot = "keep-1";
  tip.info.session = "s-000000000001";
  tip.info.job = "job-9";
  tip.info.durable = true;
  tip.kind = saved_kind::checkpoint;
  tip.sequence = 5;
  tip.archive_bytes = 10;
  test::scripted_house house{with(nullptr),
                             {session("s-000000000001", session_state::busy),
                              session("s-000000000002", session_state::ready),
                              session("s-000000000003", session_state::paused)},
                             {tip}};
  auto list = house.ask<session_list>(house.gateway, list_sessions{});
  REQUIRE(list.answer()->sessions.size() == 3);
  std::map<std::string, session_info> all;
  for (const auto& each : list.answer()->sessions)
    all[each.session] = each;
  const auto& saved = all["s-000000000001"];
  CHECK(saved.state == session_state::paused);
  CHECK(saved.detail.find("job-9") != std::string::npos);
  CHECK(saved.detail.find("live interpreters are gone") != std::string::npos);
  CHECK(all["s-000000000002"].state == session_state::lost);
  CHECK_FALSE(all["s-000000000002"].detail.empty());
  CHECK(all["s-000000000003"].state == session_state::paused);
  CHECK(all["s-000000000003"].detail.empty());
  // The agent finds its session, and the job its files.
  auto asked =
      house.ask<outcome>(house.gateway, test::scripted_house::program("agent-s-000000000001"));
  for (int i = 0; i < 3; ++i) {
    house.pass(1s);
    house.all_up();
  }
  REQUIRE(house.running() != nullptr);
  CHECK(house.running()->spec.id == "vm-000000000001");
  CHECK(house.running()->spec.layers.size() == 1);
  house.end_job(*house.running());
  REQUIRE(asked.answered());
  CHECK(asked.answer()->session == "s-000000000001");
}

TEST_CASE_METHOD(state_house, "At the end of the server sessions are saved and go to sleep",
                 "[states]") {
  job();
  auto ended = ask<drained>(supervisor, drain{});
  play_states();
  all_gone();
  pass(1s);
  all_gone();
  REQUIRE(ended.answered());
  CHECK(journal->sessions.back().session.state == session_state::paused);
  REQUIRE(states->catalog.tip(id) != nullptr);
  CHECK(states->over.empty());
}

TEST_CASE_METHOD(state_house, "A closed session keeps its snapshots and nothing else", "[states]") {
  job();
  auto kept = snapshot("kept");
  auto closing = ask<session_closed>(gateway, close_session{.session = id});
  all_gone();
  REQUIRE(closing.answered());
  CHECK(states->over.contains(id));
  REQUIRE(listed().size() == 1);
  CHECK(listed().front().snapshot == kept.snapshot);
}

// --- against a model -----------------------------------------------------------------------------

TEST_CASE("Random operations and losses leave each session where the model says", "[states]") {
  for (unsigned seed = 1; seed <= 30; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    state_house house;
    std::map<std::string, std::string> job_of; // the last job that each snapshot knows
    std::string last_job;
    for (int step = 0; step < 40; ++step) {
      switch (random() % 6) {
      case 0:
      case 1:
        last_job = house.job(static_cast<std::int32_t>(random() % 2)).job;
        break;
      case 2: {
        auto taken = house.snapshot();
        CHECK(taken.job == last_job);
        job_of[taken.snapshot] = last_job;
        break;
      }
      case 3:
      case 4: {
        if (job_of.empty())
          break;
        auto place = job_of.begin();
        std::advance(place, static_cast<std::ptrdiff_t>(random() % job_of.size()));
        auto back = house.begin_rollback(place->first);
        house.play_states();
        if (!back.answered())
          house.next_machine(); // it came back in a new one
        REQUIRE(back.answered());
        REQUIRE(back.answer());
        CHECK(back.answer()->snapshot == place->first);
        last_job = place->second;
        break;
      }
      default:
        if (random() % 2 == 0)
          break;
        house.lose_machine();
        auto at = house.info().snapshot;
        last_job = at.empty() ? "" : job_of.at(at);
        const saved_state* tip = house.states->catalog.tip(house.id);
        CHECK(house.machine->spec.layers.empty() == (tip == nullptr));
      }
    }
    CHECK(house.job().exit_code.value_or(-1) == 0);
    CHECK(house.listed().size() == job_of.size());
  }
}
