// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/gateway.hpp"
#include "actors/stream_hub.hpp"
#include "actors/supervisor.hpp"
#include "actors/validator.hpp"
#include "tests/support/actors.hpp"
#include "tests/support/scripted_machines.hpp"

#include <caf/typed_event_based_actor.hpp>

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
      [=](const record_session& x) {
        journal->sessions.push_back(x);
        return done();
      },
      [=](const query_history& x) -> caf::result<history_page> {
        history_page page;
        for (const auto& each : journal->ended)
          if (each.ended.job == x.job)
            page.entries.push_back({.number = 1, .result = each.ended});
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

/// All actors but the journal and the spool, over machines that the test plays.
class scripted_house : public actors {
public:
  explicit scripted_house(settings values = small_settings())
    : config(std::make_shared<const settings>(std::move(values))) {
    history = system().spawn(scripted_history, journal);
    spool = system().spawn(scripted_spool, std::make_shared<spooled_files>());
    hub = spawn_stream_hub(system(), {.config = config, .sink = nullptr, .spool = spool});
    validator = spawn_validator(system(), *config);
    supervisor = spawn_supervisor(
        system(), {.config = config, .source = &source, .hub = hub, .history = history});
    gateway = spawn_gateway(system(), {.config = config,
                                       .supervisor = supervisor,
                                       .validator = validator,
                                       .history = history,
                                       .hub = hub,
                                       .machine_kind = "namespace",
                                       .isolation = {}});
    settle();
  }

  ~scripted_house() {
    stop(gateway);
    auto drained_all = ask<drained>(supervisor, drain{});
    while (!drained_all.answered()) {
      for (std::size_t i = 0; i < source.made.size(); ++i)
        source.made[i]->gone();
      settle();
    }
    stop(supervisor);
    stop(validator);
    stop(hub);
    stop(spool);
    stop(history);
    for (auto& machine : source.made)
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
  history_actor history;
  spool_actor spool;
  stream_hub_actor hub;
  validator_actor validator;
  supervisor_actor supervisor;
  gateway_actor gateway;
};

} // namespace berth::test
