// SPDX-License-Identifier: Apache-2.0
#include "actors/slot.hpp"
#include "actors/slot_files.hpp"
#include "config/limits.hpp"
#include "tests/support/actors.hpp"
#include "tests/support/scripted_machines.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <catch2/catch.hpp>

using namespace berth;
using namespace std::chrono_literals;

namespace {

/// What the slot told its supervisor and the hub.
struct heard {
  std::vector<slot_changed> changes;
  std::vector<output_chunk> output;
  std::vector<announce_files> files;
  std::vector<keep_binary> binaries;
};

supervisor_actor::behavior_type fake_supervisor(std::shared_ptr<heard> ears) {
  auto no = [] { return fail(ec::internal, "not asked in this test"); };
  return {
      [no](const place_job&) -> caf::result<outcome> { return no(); },
      [no](const stop_job&) -> caf::result<cancelled> { return no(); },
      [no](const list_jobs&) -> caf::result<job_list> { return no(); },
      [no](const find_session&) -> caf::result<session_info> { return no(); },
      [no](const open_session&) -> caf::result<session_info> { return no(); },
      [no](const close_session&) -> caf::result<session_closed> { return no(); },
      [no](const list_sessions&) -> caf::result<session_list> { return no(); },
      [no](const write_stdin&) -> caf::result<stdin_written> { return no(); },
      [no](const put_files&) -> caf::result<files_put> { return no(); },
      [no](const read_file&) -> caf::result<file_content> { return no(); },
      [no](const write_file&) -> caf::result<file_info> { return no(); },
      [no](const list_files&) -> caf::result<file_list> { return no(); },
      [no](const stat_file&) -> caf::result<file_info> { return no(); },
      [no](const make_dir&) -> caf::result<file_info> { return no(); },
      [no](const move_file&) -> caf::result<file_info> { return no(); },
      [no](const remove_file&) -> caf::result<file_removed> { return no(); },
      [no](const watch_files&) -> caf::result<files_watched> { return no(); },
      [no](const read_watch&) -> caf::result<file_events> { return no(); },
      [no](const unwatch_files&) -> caf::result<files_unwatched> { return no(); },
      [no](const get_usage&) -> caf::result<session_usage> { return no(); },
      [no](const open_context&) -> caf::result<context_info> { return no(); },
      [no](const list_contexts&) -> caf::result<context_list> { return no(); },
      [no](const restart_context&) -> caf::result<context_info> { return no(); },
      [no](const close_context&) -> caf::result<context_closed> { return no(); },
      [no](const interrupt&) -> caf::result<interrupt_sent> { return no(); },
      [no](const take_snapshot&) -> caf::result<snapshot_info> { return no(); },
      [no](const list_snapshots&) -> caf::result<snapshot_list> { return no(); },
      [no](const delete_snapshot&) -> caf::result<snapshot_deleted> { return no(); },
      [no](const rollback&) -> caf::result<rolled_back> { return no(); },
      [no](const fork_session&) -> caf::result<forked> { return no(); },
      [no](const pause_session&) -> caf::result<session_info> { return no(); },
      [no](const resume_session&) -> caf::result<session_info> { return no(); },
      [no](const get_pool&) -> caf::result<pool_info> { return no(); },
      [ears](const slot_changed& x) { ears->changes.push_back(x); },
      [ears](const keep_binary& x) { ears->binaries.push_back(x); },
      [no](const drain&) -> caf::result<drained> { return no(); },
      [](caf::tick_atom) {},
      [](caf::update_atom) {},
  };
}

stream_hub_actor::behavior_type fake_hub(std::shared_ptr<heard> ears) {
  return {
      [](const open_stream&) {},
      [ears](const output_chunk& x) {
        ears->output.push_back(x);
        return output_taken{.bytes_taken = x.data.size()};
      },
      [](const close_stream& x) { return x.ended; },
      [](const berth::read&) -> caf::result<output_slice> {
        return fail(ec::internal, "not asked");
      },
      [](const announce&) {},
      [ears](const announce_files& x) {
        ears->files.push_back(x);
        return output_taken{};
      },
      [](caf::timeout_atom, std::uint64_t) {},
  };
}

/// A slot with a scripted machine in it.
class slot_fixture : public test::actors {
public:
  slot_fixture() {
    supervisor_ = system().spawn(fake_supervisor, ears);
    hub_ = system().spawn(fake_hub, ears);
    slot_ = spawn_slot(system(), {.number = 7,
                                  .source = &source,
                                  .supervisor = supervisor_,
                                  .hub = hub_,
                                  .start_timeout_ms = 5000});
  }
  ~slot_fixture() {
    stop(slot_);
    stop(supervisor_);
    stop(hub_);
    for (auto& machine : source.made)
      machine->listener.reset();
  }

  test::scripted_machine& fill(std::string warm = "") {
    caf::anon_send(slot_, fill_slot{.machine = "vm-1",
                                    .warm = std::move(warm),
                                    .memory_mib = 64,
                                    .processes = 8,
                                    .disk_mib = 8});
    settle();
    return *source.made.back();
  }

  test::scripted_machine& up() {
    auto& machine = fill();
    machine.hello();
    settle();
    return machine;
  }

  static run_job job(std::string id = "j1", std::string language = "bash") {
    run_job message;
    message.order.job = std::move(id);
    message.order.request.code = "true";
    message.order.request.language = std::move(language);
    message.order.limits = {
        .timeout_ms = 1000, .memory_mib = 64, .processes = 8, .output_bytes = 1000, .disk_mib = 8};
    message.exclusive = true;
    return message;
  }

  std::shared_ptr<heard> ears = std::make_shared<heard>();
  test::scripted_source source;
  supervisor_actor supervisor_;
  stream_hub_actor hub_;
  slot_actor slot_;
};

} // namespace

TEST_CASE_METHOD(slot_fixture, "A slot is idle once its guest has said hello", "[slot]") {
  auto& machine = fill();
  CHECK(machine.spec.id == "vm-1");
  CHECK(machine.spec.limits.memory_bytes == 64 * limits::mib);
  CHECK(ears->changes.empty());
  machine.hello();
  settle();
  REQUIRE(ears->changes.size() == 1);
  CHECK(ears->changes[0].state == slot_state::idle);
  CHECK(ears->changes[0].slot == 7);
}

TEST_CASE_METHOD(slot_fixture, "A slot waits for its warm interpreter, but not for ever",
                 "[slot]") {
  auto& machine = fill("python");
  machine.hello();
  settle();
  CHECK(ears->changes.empty());
  SECTION("it is idle when the interpreter is there") {
    machine.listener->on_frame(guest::warmed{.language = "python"});
    settle();
  }
  SECTION("it is idle, and cold, when none comes") {
    pass(1s);
  }
  REQUIRE(ears->changes.size() == 1);
  CHECK(ears->changes[0].state == slot_state::idle);
}

TEST_CASE_METHOD(slot_fixture, "A machine that does not come up in time is lost", "[slot]") {
  auto& machine = fill();
  pass(6s);
  REQUIRE(ears->changes.size() == 1);
  CHECK(ears->changes[0].state == slot_state::ending);
  CHECK(machine.destroyed);
  machine.gone();
  settle();
  CHECK(ears->changes.back().state == slot_state::empty);
}

TEST_CASE_METHOD(slot_fixture, "A source that sees to the time itself has the first word",
                 "[slot]") {
  source.within = 20s;
  auto& machine = fill();
  pass(21s);
  CHECK_FALSE(machine.destroyed);
  pass(5s);
  CHECK(machine.destroyed);
  machine.gone();
  settle();
}

TEST_CASE_METHOD(slot_fixture, "A job ends with the exit code of the guest's kernel", "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  const auto* start = machine.last<guest::start_job>();
  REQUIRE(start != nullptr);
  CHECK(start->exclusive);
  machine.listener->on_frame(guest::job_started{.job = start->job, .path = run_path::warm});
  machine.listener->on_frame(guest::output{.job = start->job, .stream = 1, .data = {'h', 'i'}});
  machine.listener->on_frame(guest::job_ended{.job = start->job, .exit_code = 3, .cpu_us = 42});
  settle();
  REQUIRE(asked.answered());
  REQUIRE(asked.answer());
  CHECK(asked.answer()->state == job_state::exited);
  CHECK(asked.answer()->exit_code == maybe<std::int32_t>{3});
  CHECK(asked.answer()->path == run_path::warm);
  CHECK(asked.answer()->cpu_us == 42);
  CHECK(asked.answer()->machine == "vm-1");
  REQUIRE(ears->output.size() == 1);
  CHECK(ears->output[0].data == bytes{'h', 'i'});
}

TEST_CASE_METHOD(slot_fixture, "A signal that Berth did not send is reported as such", "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  machine.listener->on_frame(
      guest::job_ended{.job = machine.last<guest::start_job>()->job, .signal = 11});
  settle();
  CHECK(asked.answer()->state == job_state::signalled);
  CHECK(asked.answer()->signal == maybe<std::uint32_t>{11});
}

TEST_CASE_METHOD(slot_fixture, "A job beyond its time is ended, and reported as timed out",
                 "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  std::uint32_t number = machine.last<guest::start_job>()->job;
  pass(999ms);
  CHECK(machine.last<guest::end_job>() == nullptr);
  pass(1ms);
  REQUIRE(machine.last<guest::end_job>() != nullptr);
  machine.listener->on_frame(guest::job_ended{.job = number, .signal = 9});
  settle();
  CHECK(asked.answer()->state == job_state::timed_out);
  CHECK_FALSE(machine.destroyed);
}

TEST_CASE_METHOD(slot_fixture, "A guest that does not end a job in time loses its machine",
                 "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  pass(1s);
  CHECK_FALSE(asked.answered());
  pass(limits::guest_grace);
  REQUIRE(asked.answered());
  CHECK(asked.answer()->state == job_state::timed_out);
  CHECK(machine.destroyed);
}

TEST_CASE_METHOD(slot_fixture, "A cancelled job says cancelled, whatever comes after", "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  std::uint32_t number = machine.last<guest::start_job>()->job;
  caf::anon_send(slot_, stop_job{.job = "j1", .reason = end_reason::cancelled});
  settle();
  machine.listener->on_frame(guest::job_ended{.job = number, .signal = 9});
  machine.listener->on_frame(guest::job_ended{.job = number, .exit_code = 0});
  settle();
  CHECK(asked.answer()->state == job_state::cancelled);
}

TEST_CASE_METHOD(slot_fixture, "A kill by the kernel for memory is told from other kills",
                 "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  machine.used.oom_kills = 1;
  machine.listener->on_frame(
      guest::job_ended{.job = machine.last<guest::start_job>()->job, .signal = 9});
  settle();
  CHECK(asked.answer()->state == job_state::out_of_memory);
}

TEST_CASE_METHOD(slot_fixture, "Every job of a lost machine ends exactly once", "[slot]") {
  auto& machine = up();
  auto first = ask<outcome>(slot_, job("j1"));
  auto second = ask<outcome>(slot_, job("j2"));
  bool out_of_memory = GENERATE(false, true);
  machine.listener->on_lost("the guest died", out_of_memory);
  machine.listener->on_gone();
  settle();
  auto expected = out_of_memory ? job_state::out_of_memory : job_state::machine_lost;
  CHECK(first.answer()->state == expected);
  CHECK(second.answer()->state == expected);
  CHECK(ears->changes.back().state == slot_state::empty);
}

TEST_CASE_METHOD(slot_fixture, "What a guest says about jobs it does not have changes nothing",
                 "[slot]") {
  auto& machine = up();
  auto asked = ask<outcome>(slot_, job());
  machine.listener->on_frame(guest::job_ended{.job = 99, .exit_code = 0});
  machine.listener->on_frame(guest::output{.job = 99, .stream = 1, .data = {'x'}});
  machine.listener->on_frame(
      guest::output{.job = machine.last<guest::start_job>()->job, .stream = 5, .data = {'x'}});
  machine.listener->on_frame(guest::file_put{.request = 99});
  machine.listener->on_frame(guest::file_data{.request = 99});
  machine.listener->on_frame(guest::binary{.job = 99, .data = {'x'}, .last = true});
  machine.listener->on_frame(guest::stdin_taken{.job = 99, .bytes_taken = ~0ull});
  machine.hello();
  settle();
  CHECK_FALSE(asked.answered());
  CHECK(ears->output.empty());
  CHECK(ears->binaries.empty());
}

TEST_CASE_METHOD(slot_fixture, "Late words of an old machine do not reach the next one", "[slot]") {
  auto& old = up();
  auto listener = old.listener;
  caf::anon_send(slot_, empty_slot{});
  settle();
  CHECK(old.destroyed);
  old.gone();
  settle();
  auto& fresh = up();
  auto asked = ask<outcome>(slot_, job());
  std::uint32_t number = fresh.last<guest::start_job>()->job;
  listener->on_frame(guest::job_ended{.job = number, .exit_code = 0});
  listener->on_lost("too late", false);
  listener->on_gone();
  settle();
  CHECK_FALSE(asked.answered());
  CHECK_FALSE(fresh.destroyed);
}

TEST_CASE_METHOD(slot_fixture, "Files are in the machine before the program starts", "[slot]") {
  auto& machine = up();
  auto message = job();
  message.order.request.files = {{.path = "a", .data = bytes(limits::chunk_bytes_max + 1, 'a')},
                                 {.path = "b", .data = {}}};
  auto asked = ask<outcome>(slot_, message);
  CHECK(machine.sent.size() == 3);
  CHECK(machine.last<guest::start_job>() == nullptr);
  std::uint32_t request = machine.last<guest::put_file>()->request;
  for (int chunk = 0; chunk < 2; ++chunk)
    machine.listener->on_frame(guest::file_put{.request = request});
  settle();
  CHECK(machine.last<guest::start_job>() == nullptr);
  SECTION("then it starts") {
    machine.listener->on_frame(guest::file_put{.request = request});
    settle();
    CHECK(machine.last<guest::start_job>() != nullptr);
  }
  SECTION("or does not when one could not be placed") {
    machine.listener->on_frame(
        guest::file_put{.request = request, .failure = ec::conflict, .error = "b: is a directory"});
    settle();
    REQUIRE(asked.answered());
    CHECK(asked.answer()->state == job_state::blocked);
    CHECK(asked.answer()->detail == "files: b: is a directory");
    CHECK(machine.last<guest::start_job>() == nullptr);
  }
}

TEST_CASE_METHOD(slot_fixture, "A guest that does not answer for a file is not waited for",
                 "[slot]") {
  auto& machine = up();
  auto read = ask<file_content>(slot_, read_file{.session = "s", .path = "a"});
  auto written = ask<file_info>(slot_, write_file{.session = "s", .path = "a", .data = {'x'}});
  // An answer to something else is none.
  machine.listener->on_frame(
      guest::dir_listed{.request = machine.last<guest::get_file>()->request});
  settle();
  CHECK_FALSE(read.answered());
  pass(2 * file_timeout);
  REQUIRE(read.answered());
  CHECK(read.answer().error() == ec::deadline);
  CHECK(written.answer().error() == ec::deadline);
}

TEST_CASE_METHOD(slot_fixture, "What a guest says went wrong is a refusal that names the member",
                 "[slot]") {
  auto& machine = up();
  auto refused = [&](ec code) {
    auto asked = ask<file_info>(slot_, stat_file{.session = "s", .path = "a"});
    machine.listener->on_frame(
        guest::path_done{.request = machine.last<guest::stat_path>()->request,
                         .failure = code,
                         .error = "/work/a: so it is"});
    settle();
    CHECK(to_refusal(asked.answer().error()).detail == "path: /work/a: so it is");
    return asked.answer().error();
  };
  CHECK(refused(ec::not_found) == ec::not_found);
  CHECK(refused(ec::conflict) == ec::conflict);
  // Not a reason that a guest can have.
  CHECK(refused(ec::unauthorized) == ec::machine_failed);
}

TEST_CASE_METHOD(slot_fixture,
                 "The changes of a watch are kept, within bounds, until they are taken", "[slot]") {
  auto& machine = up();
  auto watched = ask<files_watched>(slot_, watch_files{.session = "s-1", .path = "/work"});
  const auto* order = machine.last<guest::watch_path>();
  machine.listener->on_frame(guest::path_done{.request = order->request});
  settle();
  REQUIRE(watched.answered());
  std::string id = watched.answer()->watch;
  auto waits = ask<file_events>(slot_, read_watch{.session = "s", .watch = id, .wait_ms = 1000});
  auto late = ask<file_events>(slot_, read_watch{.session = "s", .watch = id, .wait_ms = 1000});
  guest::files_changed message{{{id, file_change::created, "/work/a"}, {"w-99", {}, "/x"}}};
  machine.listener->on_frame(message);
  settle();
  REQUIRE(waits.answered());
  CHECK(waits.answer()->events.size() == 1);
  CHECK(ears->files.size() == 1);
  CHECK(ears->files.front().session == "s-1");
  pass(1s);
  CHECK(late.answer()->events.empty());
  for (std::size_t i = 0; i < limits::watch_events_max + 1; ++i)
    machine.listener->on_frame(message);
  settle();
  auto taken = ask<file_events>(slot_, read_watch{.session = "s", .watch = id});
  CHECK(taken.answer()->events.size() == 1);
  CHECK(taken.answer()->events.front().change == file_change::overflow);
  auto ended = ask<files_unwatched>(slot_, unwatch_files{.session = "s", .watch = id});
  machine.listener->on_frame(
      guest::path_done{.request = machine.last<guest::unwatch_path>()->request});
  settle();
  CHECK(ended.answer());
  auto gone = ask<file_events>(slot_, read_watch{.session = "s", .watch = id});
  CHECK(gone.answer().error() == ec::not_found);
}

TEST_CASE_METHOD(slot_fixture, "Input is sent as far as the guest has room", "[slot]") {
  auto& machine = up();
  auto message = job();
  message.order.request.stdin_data = bytes(3 * limits::chunk_bytes_max, 'i');
  auto asked = ask<outcome>(slot_, message);
  auto sent_bytes = [&] {
    std::size_t total = 0;
    for (const auto& each : machine.sent)
      if (const auto* input = std::get_if<guest::stdin_data>(&each))
        total += input->data.size();
    return total;
  };
  std::size_t window = sent_bytes();
  CHECK(window < message.order.request.stdin_data.size());
  std::uint32_t number = machine.last<guest::start_job>()->job;
  for (int round = 0; round < 4; ++round) {
    machine.listener->on_frame(guest::stdin_taken{.job = number, .bytes_taken = window});
    settle();
  }
  CHECK(sent_bytes() == message.order.request.stdin_data.size());
  CHECK(machine.last<guest::stdin_data>()->eof);
}
