// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/gateway.hpp"
#include "actors/stream_hub.hpp"
#include "actors/supervisor.hpp"
#include "actors/validator.hpp"
#include "config/kinds.hpp"
#include "store/snapshot_catalog.hpp"
#include "tests/support/actors.hpp"
#include "tests/support/scripted_machines.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace berth::test {

/// What the journal was told, and whether it works.
struct scripted_journal {
  std::vector<record_accepted> accepted;
  std::vector<record_ended> ended;
  std::vector<record_session> sessions;
  bool broken = false;
};

inline history_actor::behavior_type scripted_history(std::shared_ptr<scripted_journal> journal) {
  auto done = [journal]() -> caf::result<recorded> {
    if (journal->broken)
      return fail(ec::store_failed, "the disk is full");
    return recorded{.number = journal->accepted.size()};
  };
  return {
      [=](const record_accepted& x) {
        journal->accepted.push_back(x);
        return done();
      },
      [=](const record_ended& x) {
        journal->ended.push_back(x);
        return done();
      },
      [=](const answer_run& x) -> caf::result<outcome> {
        if (journal->broken)
          return fail(ec::store_failed, "the disk is full");
        return x.ended;
      },
      [=](const record_session& x) {
        journal->sessions.push_back(x);
        return done();
      },
      [=](const query_history& x) -> caf::result<history_page> {
        history_page page;
        for (std::size_t i = journal->accepted.size(); i > 0; --i) {
          const job_order& order = journal->accepted[i - 1].order;
          entry made;
          made.number = i;
          made.kind = order.kind;
          made.result.job = order.job;
          made.result.session = order.request.session;
          for (const auto& each : journal->ended)
            if (each.ended.job == order.job)
              made.result = each.ended;
          bool wanted = (x.job.empty() || x.job == order.job)
                        && (x.session.empty() || x.session == order.request.session)
                        && (x.before == 0 || i < x.before);
          if (wanted)
            page.entries.push_back(std::move(made));
        }
        return page;
      },
  };
}

/// Output beyond memory, in memory.
using spooled_files = std::map<std::pair<std::string, std::uint32_t>, bytes>;

inline spool_actor::behavior_type scripted_spool(std::shared_ptr<spooled_files> files) {
  return {
      [files](const output_chunk& x) {
        bytes& file = (*files)[{x.job, x.stream}];
        file.insert(file.end(), x.data.begin(), x.data.end());
        return output_taken{.bytes_taken = x.data.size()};
      },
      [files](const read_spool& x) {
        const bytes& file = (*files)[{x.job, x.stream}];
        auto from = std::min<std::uint64_t>(x.offset, file.size());
        auto size = std::min<std::uint64_t>(x.bytes_max, file.size() - from);
        auto begin = file.begin() + static_cast<std::ptrdiff_t>(from);
        return spooled{.data = {begin, begin + static_cast<std::ptrdiff_t>(size)}};
      },
      [](const end_spool&) {},
      [files](const drop_spool& x) {
        std::erase_if(*files, [&](const auto& item) { return item.first.first == x.job; });
      },
  };
}

/// The snapshot store, in memory: what it was told, and whether its disk works. Archives are empty
/// files.
struct scripted_states {
  snapshot_catalog catalog;
  std::vector<std::string> begun;
  std::vector<std::string> abandoned;
  std::set<std::string> over; // sessions that ended
  error broken;               // what it says to every save
  bool silent = false;        // it answers no finish_save before finish_saves() of the house
  std::vector<std::pair<saved_state, caf::typed_response_promise<save_finished>>> waiting;

  void deliver() {
    for (auto& [state, promise] : std::exchange(waiting, {}))
      promise.deliver(keep(state));
  }
  save_finished keep(saved_state state) {
    state.info.durable = true;
    state.info.durable_at_ms = 1;
    catalog.put(state);
    return {.state = state, .evicted = {}};
  }
};

class scripted_store_state {
public:
  static constexpr const char* name = "test.store";
  int unused = 0;
};

/// The store, which also can be told to answer what it kept waiting.
using scripted_store_actor = snapshot_store_actor::extend<caf::reacts_to<caf::flush_atom>>;

inline scripted_store_actor::behavior_type
scripted_store(scripted_store_actor::stateful_pointer<scripted_store_state> self,
               std::shared_ptr<scripted_states> states) {
  auto empty_file = [] {
    return std::make_shared<const owned_fd>(memfd_create("archive", MFD_CLOEXEC));
  };
  return {
      [=](const begin_save& x) -> caf::result<open_files> {
        if (states->broken)
          return states->broken;
        states->begun.push_back(x.state);
        return open_files{.files = {empty_file()}};
      },
      [=](const finish_save& x) -> caf::result<save_finished> {
        if (states->broken)
          return states->broken;
        saved_state state = x.state;
        state.archive_bytes =
            std::ranges::find(states->begun, state.info.snapshot) == states->begun.end() ? 0 : 10;
        if (!states->silent)
          return states->keep(std::move(state));
        auto promise = self->template make_response_promise<save_finished>();
        states->waiting.emplace_back(std::move(state), promise);
        return promise;
      },
      [=](const abandon_save& x) { states->abandoned.push_back(x.state); },
      [=](const open_archives& x) -> caf::result<saved_states, open_files> {
        auto chain = states->catalog.chain(x.state);
        if (!chain)
          return chain.error();
        saved_states all;
        open_files files;
        for (const saved_state* link : *chain) {
          all.states.push_back(*link);
          files.files.push_back(link->archive_bytes == 0 ? nullptr : empty_file());
        }
        return {std::move(all), std::move(files)};
      },
      [=](const list_snapshots& x) {
        snapshot_list list;
        for (const saved_state* state : states->catalog.snapshots(x.session, x.agent_id))
          list.snapshots.push_back(state->info);
        return list;
      },
      [=](const delete_snapshot& x) -> caf::result<snapshot_deleted> {
        const saved_state* known = states->catalog.find(x.snapshot);
        if (known == nullptr || known->deleted)
          return fail(ec::not_found, "snapshot: there is none");
        saved_state gone = *known;
        gone.deleted = true;
        states->catalog.put(gone);
        return snapshot_deleted{.snapshot = x.snapshot};
      },
      [=](const keep_states& x) {
        if (!x.alive)
          states->over.insert(x.session);
      },
      [=](caf::flush_atom) { states->deliver(); },
  };
}

/// All actors but the journal, the spool and the snapshot store, over machines that the test plays.
class scripted_house : public actors {
public:
  explicit scripted_house(settings values = small_settings(), std::vector<session_info> past = {},
                          std::vector<saved_state> saved = {},
                          std::vector<std::string> makes = {"namespace"})
    : config(std::make_shared<const settings>(std::move(values))) {
    for (const saved_state& each : saved)
      states->catalog.put(each);
    scripted_ = system().spawn(scripted_store, states);
    store = caf::actor_cast<snapshot_store_actor>(scripted_);
    history = system().spawn(scripted_history, journal);
    spool = system().spawn(scripted_spool, std::make_shared<spooled_files>());
    hub = spawn_stream_hub(system(), {.config = config, .sink = nullptr, .spool = spool});
    validator = spawn_validator(system(), *config);
    std::vector<make_source> sources;
    for (const auto& make : makes)
      sources.push_back(
          {.make = make, .source = kind_of(make) == "qemu" ? &virtual_source : &source});
    supervisor = spawn_supervisor(system(), {.config = config,
                                             .sources = std::move(sources),
                                             .hub = hub,
                                             .history = history,
                                             .store = store,
                                             .past_sessions = std::move(past),
                                             .saved = std::move(saved)});
    gateway = spawn_gateway(system(), {.config = config,
                                       .supervisor = supervisor,
                                       .validator = validator,
                                       .history = history,
                                       .hub = hub,
                                       .makes = makes,
                                       .isolation = {}});
    settle();
  }

  ~scripted_house() {
    stop(gateway);
    finish_saves();
    auto drained_all = ask<drained>(supervisor, drain{});
    while (!drained_all.answered()) {
      play_states();
      finish_saves();
      pass(std::chrono::milliseconds{500});
      for (auto* each : {&source, &virtual_source})
        for (std::size_t i = 0; i < each->made.size(); ++i)
          each->made[i]->gone();
      settle();
    }
    stop(supervisor);
    stop(validator);
    stop(hub);
    stop(spool);
    stop(std::exchange(scripted_, {}));
    store = nullptr;
    stop(history);
    for (auto* each : {&source, &virtual_source})
      for (auto& machine : each->made)
        machine->listener.reset();
  }

  static settings small_settings() {
    settings values;
    values.pool.slots_max = 4;
    values.pool.warm = {{"", 1}};
    values.pool.jobs_alive_max = 8;
    return values;
  }

  /// Every machine that is up says hello.
  void all_up() {
    for (std::size_t i = 0; i < source.made.size(); ++i)
      if (!source.made[i]->destroyed)
        source.made[i]->hello();
    settle();
  }

  /// Every machine that was destroyed goes.
  void all_gone() {
    for (std::size_t i = 0; i < source.made.size(); ++i)
      if (source.made[i]->destroyed)
        source.made[i]->gone();
    settle();
  }

  /// The store answers the saves that it kept waiting.
  void finish_saves() {
    caf::anon_send(scripted_, caf::flush_atom::value);
    settle();
  }

  /// The machines and their guests do all that is asked for about states, in order. What a machine
  /// was told to fail at, it fails at.
  void play_states() {
    for (bool more = true; more;) {
      more = false;
      for (std::size_t i = 0; i < source.made.size(); ++i)
        if (!source.made[i]->destroyed)
          more |= source.made[i]->play_state();
      settle();
    }
  }

  /// The machine in which a job was started last; null when there is none.
  scripted_machine* running() {
    for (auto place = source.made.rbegin(); place != source.made.rend(); ++place)
      if (!(*place)->destroyed && (*place)->last<guest::start_job>() != nullptr)
        return place->get();
    return nullptr;
  }

  /// The guest of a machine ends the job started last.
  void end_job(scripted_machine& machine, std::int32_t exit_code = 0) {
    guest::job_ended message;
    message.job = machine.last<guest::start_job>()->job;
    message.exit_code = exit_code;
    machine.listener->on_frame(message);
    settle();
  }

  static run program(std::string agent = {}) {
    run request;
    request.code = "echo hello";
    request.language = "sh";
    request.agent_id = std::move(agent);
    return request;
  }

  std::shared_ptr<const settings> config;
  std::shared_ptr<scripted_journal> journal = std::make_shared<scripted_journal>();
  scripted_source source;
  scripted_source virtual_source{"qemu"};
  history_actor history;
  std::shared_ptr<scripted_states> states = std::make_shared<scripted_states>();
  snapshot_store_actor store;
  spool_actor spool;
  stream_hub_actor hub;
  validator_actor validator;
  supervisor_actor supervisor;
  gateway_actor gateway;

private:
  scripted_store_actor scripted_;
};

} // namespace berth::test
