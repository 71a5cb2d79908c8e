// SPDX-License-Identifier: Apache-2.0
#include "app/serve.hpp"

#include "actors/agents/office.hpp"
#include "actors/gateway.hpp"
#include "actors/history.hpp"
#include "actors/ids.hpp"
#include "actors/snapshot_store.hpp"
#include "actors/spool.hpp"
#include "actors/stream_hub.hpp"
#include "actors/supervisor.hpp"
#include "actors/validator.hpp"
#include "app/host.hpp"
#include "app/machine_room.hpp"
#include "app/system_config.hpp"
#include "bridge/http/server.hpp"
#include "bridge/porter.hpp"
#include "bridge/zmq/zmq_bridge.hpp"
#include "config/kinds.hpp"
#include "config/log.hpp"
#include "config/role_files.hpp"
#include "config/settings.hpp"
#include "config/version.hpp"
#include "store/journal.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>

#include <csignal>
#include <cstdio>
#include <memory>
#include <set>
#include <thread>

namespace berth {

namespace {

/// Time that the last machines have to go once all jobs ended.
constexpr std::chrono::seconds machines_gone_within{15};

/// All actors, made in the order in which they need each other.
struct cast {
  spool_actor spool;
  history_actor history;
  snapshot_store_actor snapshots;
  stream_hub_actor hub;
  validator_actor validator;
  supervisor_actor supervisor;
  gateway_actor gateway;
  std::shared_ptr<office> staff = std::make_shared<office>();
};

/// What a former server left of its sessions.
struct past_states {
  snapshots store;
  std::vector<session_info> sessions;
};

/// Opens the snapshots, and says which sessions still are: those that were used lately enough.
expected<past_states> open_snapshots(const settings& values,
                                     const std::vector<session_info>& recorded) {
  auto store = snapshots::open(values.data_dir + "/snapshots", values.snapshots);
  if (!store)
    return store.error();
  past_states past{.store = std::move(*store), .sessions = {}};
  std::set<std::string> alive;
  auto idle_ms = static_cast<std::int64_t>(values.pool.session_idle_ms);
  for (const session_info& each : recorded) {
    if (each.last_used_at_ms + idle_ms < unix_ms() || alive.size() >= limits::sessions_max)
      continue;
    past.sessions.push_back(each);
    alive.insert(each.session);
  }
  past.store.keep_only(alive);
  return past;
}

expected<cast> raise(caf::actor_system& system, std::shared_ptr<const settings> values,
                     std::shared_ptr<const config::ordered> roles, const machine_room& room,
                     std::shared_ptr<event_sink> sink) {
  cast all;
  auto records = journal::open(*values);
  if (!records)
    return records.error();
  if (records->recovered().jobs_interrupted > 0)
    log::warn("serve", "jobs were alive when the last server ended",
              {{"interrupted", std::to_string(records->recovered().jobs_interrupted)}});
  if (records->recovered().records_damaged > 0)
    log::error("serve", "records are damaged on disk",
               {{"records", std::to_string(records->recovered().records_damaged)}});
  auto past = open_snapshots(*values, records->recovered().sessions);
  if (!past)
    return past.error();
  auto spool = spawn_spool(system, *values);
  if (!spool)
    return spool.error();
  all.spool = *spool;
  auto history = spawn_history(system, std::move(*records), *values);
  if (!history)
    return history.error();
  all.history = *history;
  auto front = open_front_office(system, values, std::move(roles), sink);
  if (!front)
    return front.error();
  std::vector<saved_state> saved;
  for (const auto& [id, state] : past->store.catalog().all())
    saved.push_back(state);
  all.snapshots = spawn_snapshot_store(system, std::move(past->store));
  all.hub = spawn_stream_hub(system, {.config = values, .sink = sink, .spool = *spool});
  all.validator = spawn_validator(system, *values);
  all.supervisor = spawn_supervisor(system, {.config = values,
                                             .sources = room.sources(),
                                             .hub = all.hub,
                                             .history = all.history,
                                             .sink = sink,
                                             .store = all.snapshots,
                                             .past_sessions = std::move(past->sessions),
                                             .saved = std::move(saved)});
  auto staff = all.staff;
  all.gateway = spawn_gateway(
      system, {.config = values,
               .supervisor = all.supervisor,
               .validator = all.validator,
               .history = all.history,
               .hub = all.hub,
               .makes = room.makes(),
               .isolation = room.isolation(),
               .sink = std::move(sink),
               .open_office =
                   [&system, values, front = *front, staff](const gateway_actor& gateway) {
                     *staff = open_office(system, values, front, gateway);
                     return *staff;
                   },
               .on_rush = share_cores_in_batches});
  // Its first answer: from here on the staff is there.
  caf::scoped_actor self{system};
  self->request(all.gateway, machines_gone_within, get_health{})
      .receive([](const health_info&) {}, [](const error&) {});
  return all;
}

void dismiss(const cast& all) {
  close_office(*all.staff);
  caf::anon_send_exit(all.gateway, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.supervisor, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.validator, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.hub, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.snapshots, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.history, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(all.spool, caf::exit_reason::user_shutdown);
}

/// Takes nothing new, lets jobs end, ends what is left, destroys every machine.
void drain_all(caf::actor_system& system, const settings& values, const cast& all) {
  caf::scoped_actor self{system};
  log::info("serve", "drains", {{"grace_ms", std::to_string(values.drain_grace_ms)}});
  std::chrono::milliseconds limit{values.drain_grace_ms};
  auto settle = [&](const auto& who, const char* what) {
    self->request(who, machines_gone_within, drain{})
        .receive([](const drained&) {},
                 [&](const error& why) {
                   log::error("serve", what, {{"why", describe_error(why)}});
                 });
  };
  if (all.staff->workflows) {
    settle(all.staff->workflows, "workflows did not settle");
    settle(all.staff->agents, "agents did not settle");
  }
  self->request(all.gateway, limit + machines_gone_within, drain{.grace_ms = values.drain_grace_ms})
      .receive(
          [](const drained& done) {
            log::info("serve", "all jobs ended",
                      {{"by_themselves", std::to_string(done.ended)},
                       {"interrupted", std::to_string(done.interrupted)}});
          },
          [](const error& why) {
            log::error("serve", "jobs did not end", {{"why", describe_error(why)}});
          });
  self->request(all.supervisor, machines_gone_within, drain{})
      .receive([](const drained&) {},
               [](const error& why) {
                 log::error("serve", "machines did not go", {{"why", describe_error(why)}});
               });
}

void say_where(const settings& values, const zmq_bridge& zmq, const http::server& http,
               const machine_room& room) {
  std::printf("berth %s serves %s machines\n", version, list_kinds(room.makes()).c_str());
  for (const auto& fact : room.isolation())
    std::printf("  %s\n", fact.c_str());
  std::printf("requests  %s\n", zmq.router_endpoint().c_str());
  if (!zmq.ipc_endpoint().empty())
    std::printf("          %s\n", zmq.ipc_endpoint().c_str());
  std::printf("events    %s\n", zmq.events_endpoint().c_str());
  std::printf("http      http://%s:%u\n", values.http_address.c_str(), unsigned{http.port()});
  if (http.terraphim_port() != 0)
    std::printf("terraphim http://%s:%u\n", values.http_address.c_str(),
                unsigned{http.terraphim_port()});
  std::fflush(stdout);
}

int give_up(const error& why) {
  std::fprintf(stderr, "berth serve: %s\n", to_refusal(why).detail.c_str());
  return 1;
}

/// Runs until a signal of the set; the server's threads exist only in here.
int serve_until(const sigset_t& signals, const settings& given,
                std::shared_ptr<const config::ordered> roles, machine_room& room, bool quiet) {
  auto values = std::make_shared<const settings>(given);
  system_config config;
  caf::actor_system system{config};
  auto outbox = std::make_shared<zmq_outbox>();
  auto all = raise(system, values, std::move(roles), room, outbox);
  if (!all)
    return give_up(all.error());
  int status = 0;
  {
    porter carrier{system, all->gateway};
    auto http = make_http_server(*values, carrier);
    auto zmq = zmq_bridge::start(zmq_options::from(*values), system, all->gateway, outbox);
    if (!zmq) {
      status = give_up(zmq.error());
    } else if (error why = http->start()) {
      status = give_up(why);
    } else {
      if (!quiet)
        say_where(*values, **zmq, *http, room);
      int signal = 0;
      sigwait(&signals, &signal);
    }
    drain_all(system, *values, *all); // also when it never served: machines are up already
    http->stop();
    if (zmq)
      (*zmq)->stop();
  }
  dismiss(*all);
  return status;
}

} // namespace

int serve(const serve_options& options) {
  auto values = read_settings(options);
  if (!values)
    return give_up(values.error());
  log::set_level(values->log_level);
  if (error why = prepare_directories(*values))
    return give_up(why);
  // With root's rights: the files may lie where the server's user sees nothing.
  auto roles = config::read_role_files(values->agents.roles_dir);
  if (!roles)
    return give_up(roles.error());
  machine_room room;
  if (error why = room.prepare(*values))
    return give_up(why);
  if (error why = drop_privileges(*values))
    return give_up(why);
  // Every thread inherits the mask: signals come to this one only.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  if (error why = room.open(*values))
    return give_up(why);
  return serve_until(signals, *values, std::make_shared<const config::ordered>(std::move(*roles)),
                     room, options.quiet);
}

} // namespace berth
