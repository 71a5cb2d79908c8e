// SPDX-License-Identifier: Apache-2.0
#include "actors/supervisor.hpp"

#include "actors/binary_cache.hpp"
#include "actors/ids.hpp"
#include "actors/job_end.hpp"
#include "actors/lifecycle.hpp"
#include "actors/pool_plan.hpp"
#include "actors/restart_policy.hpp"
#include "actors/slot.hpp"
#include "actors/slot_job.hpp"
#include "actors/state_desk.hpp"
#include "config/kinds.hpp"
#include "config/limits.hpp"
#include "config/log.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <chrono>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>

namespace berth {

namespace {

using clock = std::chrono::steady_clock;

/// A job that waits for its place or runs in it.
struct placed_job {
  job_order order;
  berth::flavour flavour; // what serves it best
  caf::typed_response_promise<outcome> promise;
  clock::time_point since;
  std::optional<std::uint32_t> slot; // once it runs
};

/// A slot as the SUPERVISOR knows it.
struct slot_record {
  slot_actor actor;
  slot_state state = slot_state::empty;
  std::string machine;
  berth::flavour flavour; // its make stays with the actor while it is empty
  std::string session;    // the session that holds it
  std::uint32_t jobs = 0; // jobs that run in it
  bool one_shot = false;  // leased for one job
  job_limits limits;      // the machine's own
};

/// A session as the SUPERVISOR knows it.
struct session_record {
  session_info info;
  std::string make; // of its machine, for life
  std::optional<std::uint32_t> slot;
  std::deque<std::string> queue; // jobs, and steps of the desk, that wait for the machine
  std::vector<std::function<void()>> when_ready; // what else waits for it
  std::set<std::string> contexts_busy;
  std::vector<caf::typed_response_promise<session_info>> opening;
  std::vector<caf::typed_response_promise<session_closed>> closing;
  clock::time_point last_used;
  bool closed = false;
};

/// SUPERVISOR: the pool, its sessions, and who waits.
class supervisor_state : public state_host {
public:
  static constexpr const char* name = "berth.supervisor";

  supervisor_actor::behavior_type make_behavior(supervisor_actor::pointer self,
                                                supervisor_parts parts);

private:
  caf::result<outcome> on_place(place_job& request);
  caf::result<cancelled> on_stop(const stop_job& request);
  job_list on_list_jobs(const list_jobs& request);
  caf::result<session_info> on_find(const find_session& request);
  caf::result<session_info> on_open(const open_session& request);
  caf::result<session_closed> on_close(const close_session& request);
  session_list on_list(const list_sessions& request) const;
  caf::result<stdin_written> on_write_stdin(const write_stdin& request);
  caf::result<files_put> on_put_files(const put_files& request);
  caf::result<files_watched> on_watch_files(watch_files& request);
  caf::result<session_usage> on_usage(const get_usage& request);
  pool_info on_pool() const;
  caf::result<session_info> on_pause(const pause_session& request);
  caf::result<session_info> on_resume(const resume_session& request);
  void on_slot_changed(const slot_changed& message);
  caf::result<drained> on_drain();
  void on_tick();

  // Jobs.
  void run_in(std::uint32_t slot, const std::string& job, bool exclusive);
  void on_job_done(const std::string& job, outcome result);
  void end_unplaced(std::string job, job_state state, std::string detail);
  void serve_waiting();
  void forget_waiting(const flavour& of);
  std::optional<std::uint32_t> find_idle(const flavour& wanted) const;

  // Machines.
  std::optional<std::uint32_t> empty_place();
  machines::machine_source* source_of(std::string_view make) const;
  std::string name_of(const flavour& which) const { return which.name(makes_.front()); }
  flavour flavour_of(const std::string& label) const { return flavour::of(label, makes_.front()); }
  expected<std::string> make_for(std::string_view kind, std::string_view isolation,
                                 const std::string& vm_type) const;
  bool may_start(const std::string& make) const {
    auto found = restarts_.find(make);
    return found != restarts_.end() && found->second.may_start(now());
  }
  void prepare_slot(std::uint32_t place, const std::string& make, machines::machine_source& source);
  bool start_machine(const std::string& machine, flavour of, const job_limits& limits,
                     machine_files files = {});
  void lease(std::uint32_t slot);
  void release(std::uint32_t slot);
  void refill_soon(bool hurry);
  void refill(bool hurry);
  void make_room();
  void shrink();
  std::map<std::string, pool_plan::stock> stocks() const;

  // Sessions.
  caf::result<session_info> info_for(const find_session& job, const session_record& session) const;
  /// The make of the new session's machine, or why there can be none.
  expected<std::string> admit_session(const open_session& request, const std::string& title);
  session_record& make_session(const open_session& request, std::string title, std::string make);
  session_record* find_by(const std::string& any);
  void seat(session_record& session);
  void begin_close(session_record& session);
  void end_close(const std::string& id);
  void run_queue(session_record& session);
  void start_session_machine(session_record& session);
  void seat_waiting();
  void wake(session_record& session);
  void refuse_homeless(session_record& session);
  std::string why_homeless(const session_record& session) const;
  void adopt_past();
  std::string make_of_past(const session_info& past) const;
  template <class Reply, class F>
  caf::result<Reply> in_session(const std::string& any, F ask);

  // What the desk asks for.
  session_info* info_of(const std::string& session) override;
  const slot_actor* slot_of(const std::string& session) override;
  std::uint32_t running(const std::string& session) override;
  void queue_step(const std::string& session, const std::string& step, bool in_front) override;
  void answer(caf::typed_response_promise<outcome> promise, outcome result) override;
  void end_jobs(const std::string& session, const std::string& why) override;
  void go_on(const std::string& session) override;
  void leave_machine(const std::string& session) override;
  void seat(const std::string& session) override;
  error room_for(std::uint32_t sessions) override;
  std::string open_fork(const session_info& parent) override;
  void close(const std::string& session) override;
  void publish(const std::string& session, std::string state, std::string detail) override;
  void record(const std::string& session) override;
  clock::time_point time() const override { return now(); }
  void touch(session_record& session) const {
    session.info.last_used_at_ms = unix_ms();
    session.last_used = now();
  }
  void tell(const std::string& topic, const std::string& id, std::string state,
            std::string detail = {});
  template <class Reply, class Request>
  void ask_slot(session_record& session, const Request& request,
                caf::typed_response_promise<Reply> promise);
  template <class Reply, class Request>
  caf::result<Reply> delegate_to(const std::string& session, const Request& request);

  /// The clock that delays follow too: simulated in tests.
  clock::time_point now() const { return self_->system().clock().now(); }

  supervisor_actor::pointer self_ = nullptr;
  supervisor_parts parts_;
  std::vector<std::string> makes_; // those of the sources
  std::vector<slot_record> slots_;
  std::unordered_map<std::string, placed_job> jobs_;
  std::list<std::string> waiting_;                  // one-shot jobs without a machine, oldest first
  std::map<std::string, std::uint32_t> waiting_of_; // how many of them, by flavour; no zeros
  std::map<std::string, session_record> sessions_;
  std::set<std::string> unseated_; // sessions that found no place for their machine
  std::unique_ptr<state_desk> desk_;
  std::unordered_map<std::string, std::string> by_name_;
  std::unordered_map<std::string, std::string> by_agent_;
  std::map<std::string, std::uint32_t> alive_; // one-shot jobs by flavour
  pool_plan plan_{{}, 0, 0};
  std::map<std::string, restart_policy> restarts_; // by make: one that fails holds up no other
  binary_cache binaries_{limits::binary_cache_bytes_max};
  pool_info totals_;
  caf::typed_response_promise<drained> draining_;
  bool is_draining_ = false;
  bool refill_is_due_ = false;
  bool refill_hurries_ = false;
  clock::time_point next_look_;
  clock::time_point parked_by_; // what is not saved then is not saved at all
};

/// Whether a type is among others.
template <class T, class... Others>
constexpr bool is_one_of = (std::is_same_v<T, Others> || ...);

job_limits machine_limits(const settings& config) {
  return config.defaults;
}

bool same_machine_limits(const job_limits& a, const job_limits& b) {
  return a.memory_mib == b.memory_mib && a.processes == b.processes && a.disk_mib == b.disk_mib;
}

supervisor_actor::behavior_type supervisor_state::make_behavior(supervisor_actor::pointer self,
                                                                supervisor_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  const pool_settings& pool = parts_.config->pool;
  for (const auto& each : parts_.sources) {
    makes_.push_back(each.make);
    restarts_.emplace(each.make, restart_policy{pool.restarts_per_minute_max});
  }
  std::map<std::string, std::uint32_t> ready;
  for (const auto& [label, count] : pool.warm) {
    flavour each = flavour_of(label);
    if (source_of(each.make) != nullptr)
      ready[name_of(each)] = std::max(ready[name_of(each)], count);
  }
  plan_ = pool_plan{std::move(ready), pool.warm_max, limits::machines_starting_max};
  slots_.resize(pool.slots_max);
  desk_ = std::make_unique<state_desk>(
      self, *this,
      state_desk_parts{.config = parts_.config, .store = parts_.store, .history = parts_.history});
  adopt_past();
  self->send(self, caf::tick_atom_v);
  return {
      [this](place_job& x) { return on_place(x); },
      [this](const stop_job& x) { return on_stop(x); },
      [this](const list_jobs& x) { return on_list_jobs(x); },
      [this](const find_session& x) { return on_find(x); },
      [this](const open_session& x) { return on_open(x); },
      [this](const close_session& x) { return on_close(x); },
      [this](const list_sessions& x) { return on_list(x); },
      [this](const write_stdin& x) { return on_write_stdin(x); },
      [this](const put_files& x) { return on_put_files(x); },
      [this](const read_file& x) { return delegate_to<file_content>(x.session, x); },
      [this](const write_file& x) { return delegate_to<file_info>(x.session, x); },
      [this](const list_files& x) { return delegate_to<file_list>(x.session, x); },
      [this](const stat_file& x) { return delegate_to<file_info>(x.session, x); },
      [this](const make_dir& x) { return delegate_to<file_info>(x.session, x); },
      [this](const move_file& x) { return delegate_to<file_info>(x.session, x); },
      [this](const remove_file& x) { return delegate_to<file_removed>(x.session, x); },
      [this](watch_files& x) { return on_watch_files(x); },
      [this](const read_watch& x) { return delegate_to<file_events>(x.session, x); },
      [this](const unwatch_files& x) { return delegate_to<files_unwatched>(x.session, x); },
      [this](const get_usage& x) { return on_usage(x); },
      [this](const open_context& x) { return delegate_to<context_info>(x.session, x); },
      [this](const list_contexts& x) { return delegate_to<context_list>(x.session, x); },
      [this](const restart_context& x) { return delegate_to<context_info>(x.session, x); },
      [this](const close_context& x) { return delegate_to<context_closed>(x.session, x); },
      [this](const interrupt& x) { return delegate_to<interrupt_sent>(x.session, x); },
      [this](const take_snapshot& x) {
        return in_session<snapshot_info>(x.session, [&](auto& id) { return desk_->take(x, id); });
      },
      [this](const list_snapshots& x) {
        session_record* named = find_by(x.session);
        return desk_->list({.session = named == nullptr ? x.session : named->info.session,
                            .agent_id = x.agent_id});
      },
      [this](const delete_snapshot& x) { return desk_->remove(x); },
      [this](const rollback& x) {
        return in_session<rolled_back>(x.session,
                                       [&](auto& id) { return desk_->roll_back(x, id); });
      },
      [this](const fork_session& x) {
        return in_session<forked>(x.session, [&](auto& id) { return desk_->fork(x, id); });
      },
      [this](const pause_session& x) { return on_pause(x); },
      [this](const resume_session& x) { return on_resume(x); },
      [this](const get_pool&) { return on_pool(); },
      [this](const slot_changed& x) { on_slot_changed(x); },
      [this](keep_binary& x) { binaries_.keep(x.language, x.code, std::move(x.data)); },
      [this](const drain&) { return on_drain(); },
      [this](caf::tick_atom) { on_tick(); },
      [this](caf::update_atom) {
        refill_is_due_ = false;
        refill(std::exchange(refill_hurries_, false));
      },
  };
}

// --- jobs ----------------------------------------------------------------------------------------

caf::result<outcome> supervisor_state::on_place(place_job& request) {
  const std::string id = request.order.job;
  placed_job& job = jobs_[id];
  job.order = std::move(request.order);
  const run& wanted = job.order.request;
  job.promise = self_->make_response_promise<outcome>();
  job.since = now();
  auto promise = job.promise;
  if (is_draining_) {
    end_unplaced(id, job_state::interrupted, "the server drains");
  } else if (!wanted.session.empty()) {
    session_record* session = find_by(wanted.session);
    if (session == nullptr || session->closed) {
      end_unplaced(id, job_state::machine_lost, "session " + wanted.session + " is closed");
    } else {
      ++session->info.jobs_alive;
      touch(*session);
      session->queue.push_back(id);
      wake(*session);
      run_queue(*session);
    }
  } else if (waiting_.size() >= parts_.config->pool.waiting_max) {
    jobs_.erase(id);
    promise.deliver(caf::make_error(
        ec::no_capacity, std::to_string(waiting_.size()) + " jobs wait for a machine already",
        static_cast<std::uint32_t>(limits::retry_after.count())));
  } else if (auto make = make_for(wanted.kind, wanted.isolation, wanted.vm_type); !make) {
    jobs_.erase(id);
    promise.deliver(make.error());
  } else {
    job.flavour = {.make = std::move(*make), .warm = wanted.language};
    std::string label = name_of(job.flavour);
    std::uint32_t alive = ++alive_[label];
    plan_.note_demand(label, alive);
    waiting_.push_back(id);
    ++waiting_of_[label];
    serve_waiting();
  }
  return promise;
}

/// Gives machines to waiting one-shot jobs, in order. A job whose flavour has no machine now does
/// not hold up those of others.
void supervisor_state::serve_waiting() {
  std::vector<std::string> none_for;
  for (auto place = waiting_.begin(); place != waiting_.end();) {
    const std::string id = *place;
    const flavour wanted = jobs_.at(id).flavour;
    const std::string label = name_of(wanted);
    bool hopeless = std::ranges::find(none_for, label) != none_for.end();
    auto slot = hopeless ? std::nullopt : find_idle(wanted);
    if (!slot) {
      if (!hopeless)
        none_for.push_back(label);
      if (none_for.size() >= waiting_of_.size()) // nobody who waits can be served
        break;
      ++place;
      continue;
    }
    place = waiting_.erase(place);
    forget_waiting(wanted);
    lease(*slot);
    slots_[*slot].one_shot = true;
    run_in(*slot, id, true);
  }
  refill_soon(false);
}

void supervisor_state::forget_waiting(const flavour& of) {
  auto found = waiting_of_.find(name_of(of));
  if (found != waiting_of_.end() && --found->second == 0)
    waiting_of_.erase(found);
}

/// An idle machine of the make for a job: its language warm, else a plain one. Another language's
/// is taken only when none of the job's own is on its way: it would be wasted and have to be made
/// anew.
std::optional<std::uint32_t> supervisor_state::find_idle(const flavour& wanted) const {
  std::optional<std::uint32_t> plain;
  std::optional<std::uint32_t> other;
  bool coming = false;
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    const slot_record& slot = slots_[i];
    if (slot.flavour.make != wanted.make)
      continue;
    if (slot.state == slot_state::starting && slot.session.empty()
        && slot.flavour.warm == wanted.warm)
      coming = true;
    if (slot.state != slot_state::idle)
      continue;
    if (slot.flavour.warm == wanted.warm)
      return i;
    (slot.flavour.warm.empty() ? plain : other) = i;
  }
  return plain || coming ? plain : other;
}

void supervisor_state::run_in(std::uint32_t slot, const std::string& id, bool exclusive) {
  placed_job& job = jobs_.at(id);
  slot_record& place = slots_[slot];
  job.slot = slot;
  ++place.jobs;
  ++totals_.jobs_total;
  place.state = next(place.state, slot_event::begin).value_or(slot_state::busy);
  const job_limits& limits = job.order.limits;
  if (exclusive && !same_machine_limits(limits, place.limits))
    self_->send(place.actor, limit_slot{.memory_mib = limits.memory_mib,
                                        .processes = limits.processes,
                                        .disk_mib = limits.disk_mib});
  run_job message{.order = job.order, .exclusive = exclusive, .binary = {}, .want_binary = false};
  const run& wanted = job.order.request;
  bool modified = job.order.verdict.decision == decision::modify;
  if (!modified && binary_cache::cacheable(wanted.language, wanted.code)) {
    if (const bytes* known = binaries_.find(wanted.language, wanted.code))
      message.binary = *known;
    else
      message.want_binary = exclusive && wanted.files.empty() && wanted.env.empty();
  }
  self_->request(place.actor, caf::infinite, std::move(message))
      .then([this, id](outcome& result) { on_job_done(id, std::move(result)); },
            [this, id](const error& why) {
              outcome lost;
              lost.job = id;
              lost.state = job_state::machine_lost;
              lost.detail = describe_error(why);
              on_job_done(id, std::move(lost));
            });
}

void supervisor_state::on_job_done(const std::string& id, outcome result) {
  auto found = jobs_.find(id);
  if (found == jobs_.end())
    return;
  placed_job job = std::move(found->second);
  jobs_.erase(found);
  const run& wanted = job.order.request;
  if (result.state == job_state::exited || result.started_at_ms != 0) {
    std::uint64_t& count = result.path == run_path::warm   ? totals_.warm_total
                           : result.path == run_path::cold ? totals_.cold_total
                                                           : totals_.cached_total;
    ++count;
  }
  complete(result, job.order);
  if (wanted.session.empty())
    answer(job.promise, std::move(result));
  if (job.slot) {
    slot_record& place = slots_[*job.slot];
    --place.jobs;
    if (place.jobs == 0)
      place.state = next(place.state, slot_event::done).value_or(place.state);
    if (place.one_shot)
      release(*job.slot);
  }
  if (wanted.session.empty()) {
    --alive_[name_of(job.flavour)];
  } else if (session_record* session = find_by(wanted.session)) {
    --session->info.jobs_alive;
    ++session->info.jobs_run;
    if (wanted.kernel && job.slot)
      session->contexts_busy.erase(wanted.context);
    touch(*session);
    if (!desk_->job_ended(wanted.session, result, job.promise))
      answer(job.promise, std::move(result));
    run_queue(*session);
  } else {
    answer(job.promise, std::move(result));
  }
}

void supervisor_state::answer(caf::typed_response_promise<outcome> promise, outcome result) {
  promise.delegate(parts_.hub, close_stream{.ended = std::move(result)});
}

/// Ends a job that never reached a machine.
/// The id is a copy: it may have been an element of the list that it is taken from.
void supervisor_state::end_unplaced(std::string id, job_state state, std::string detail) {
  const placed_job& job = jobs_.at(id);
  outcome result;
  result.state = state;
  result.detail = std::move(detail);
  if (!job.slot && waiting_.remove(id) > 0)
    forget_waiting(job.flavour);
  on_job_done(id, std::move(result));
}

caf::result<cancelled> supervisor_state::on_stop(const stop_job& request) {
  auto found = jobs_.find(request.job);
  if (found == jobs_.end())
    return fail(ec::not_found, "job: " + request.job + " is not alive");
  if (found->second.slot) {
    self_->send(slots_[*found->second.slot].actor, request);
  } else {
    if (session_record* session = find_by(found->second.order.request.session))
      std::erase(session->queue, request.job);
    end_unplaced(request.job, state_of(request.reason), "ended before it was started");
  }
  return cancelled{.job = request.job, .state = job_state::cancelled};
}

job_list supervisor_state::on_list_jobs(const list_jobs& request) {
  job_list all;
  const session_record* session = find_by(request.session);
  const std::string& only = session != nullptr ? session->info.session : request.session;
  for (const auto& [id, job] : jobs_) {
    const run& wanted = job.order.request;
    if (!only.empty() && only != wanted.session)
      continue;
    all.jobs.push_back({.job = id,
                        .state = job.slot ? job_state::running : job_state::queued,
                        .language = wanted.language,
                        .agent_id = wanted.agent_id,
                        .session = wanted.session,
                        .machine = job.slot ? slots_[*job.slot].machine : std::string{},
                        .submitted_at_ms = job.order.submitted_at_ms});
  }
  std::ranges::sort(all.jobs, {}, &job_info::job);
  return all;
}

// --- machines ------------------------------------------------------------------------------------

std::optional<std::uint32_t> supervisor_state::empty_place() {
  for (std::uint32_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].state == slot_state::empty)
      return i;
  return std::nullopt;
}

/// The source of a make; null when it is not served.
machines::machine_source* supervisor_state::source_of(std::string_view make) const {
  auto found = std::ranges::find(parts_.sources, make, &make_source::make);
  return found == parts_.sources.end() ? nullptr : found->source;
}

expected<std::string> supervisor_state::make_for(std::string_view kind, std::string_view isolation,
                                                 const std::string& vm_type) const {
  return choose_make(makes_, kind, isolation, find_vm_type(*parts_.config, vm_type),
                     *parts_.config);
}

/// Sees to it that an empty place has an actor for machines of the make.
void supervisor_state::prepare_slot(std::uint32_t place, const std::string& make,
                                    machines::machine_source& source) {
  slot_record& slot = slots_[place];
  if (slot.actor && slot.flavour.make == make)
    return;
  if (slot.actor) // it holds no machine
    self_->send_exit(slot.actor, caf::exit_reason::user_shutdown);
  slot.actor =
      spawn_slot(self_->system(), {.number = place,
                                   .source = &source,
                                   .supervisor = caf::actor_cast<supervisor_actor>(self_),
                                   .hub = parts_.hub,
                                   .start_timeout_ms = parts_.config->pool.start_timeout_ms});
}

bool supervisor_state::start_machine(const std::string& machine, flavour of,
                                     const job_limits& limits, machine_files files) {
  auto place = empty_place();
  machines::machine_source* source = source_of(of.make);
  if (!place || source == nullptr || is_draining_ || !may_start(of.make))
    return false;
  prepare_slot(*place, of.make, *source);
  slot_record& slot = slots_[*place];
  slot.state = slot_state::starting;
  slot.machine = machine;
  slot.flavour = std::move(of);
  slot.session.clear();
  slot.one_shot = false;
  slot.jobs = 0;
  slot.limits = limits;
  ++totals_.started_total;
  fill_slot order{.machine = machine,
                  .warm = slot.flavour.warm,
                  .memory_mib = limits.memory_mib,
                  .processes = limits.processes,
                  .disk_mib = limits.disk_mib,
                  .checkpoints = std::move(files.checkpoints),
                  .parent = std::move(files.parent)};
  if (files.archives.files.empty())
    self_->send(slot.actor, std::move(order));
  else
    self_->send(slot.actor, std::move(order), std::move(files.archives));
  return true;
}

void supervisor_state::lease(std::uint32_t slot) {
  slots_[slot].state = next(slots_[slot].state, slot_event::lease).value_or(slots_[slot].state);
}

void supervisor_state::release(std::uint32_t slot) {
  slot_record& place = slots_[slot];
  if (!next(place.state, slot_event::end) || place.state == slot_state::ending)
    return;
  place.state = slot_state::ending;
  place.session.clear();
  self_->send(place.actor, empty_slot{});
}

std::map<std::string, pool_plan::stock> supervisor_state::stocks() const {
  std::map<std::string, pool_plan::stock> all;
  for (const auto& slot : slots_) {
    if (!slot.session.empty())
      continue;
    if (slot.state == slot_state::idle)
      ++all[name_of(slot.flavour)].idle;
    if (slot.state == slot_state::starting)
      ++all[name_of(slot.flavour)].starting;
  }
  for (const auto& [label, count] : waiting_of_)
    all[label].waiting = count;
  return all;
}

/// Looks at the stock behind the messages that wait already: one look does for all of them.
void supervisor_state::refill_soon(bool hurry) {
  refill_hurries_ = refill_hurries_ || hurry;
  if (!std::exchange(refill_is_due_, true))
    self_->send(self_, caf::update_atom_v);
}

/// Starts the machines that the plan asks for.
void supervisor_state::refill(bool hurry) {
  if (is_draining_)
    return;
  auto room = static_cast<std::uint32_t>(std::ranges::count_if(
      slots_, [](const slot_record& slot) { return slot.state == slot_state::empty; }));
  for (const auto& label : plan_.to_start(stocks(), room, hurry, [this](const std::string& each) {
         return may_start(flavour_of(each).make);
       }))
    start_machine("vm-" + new_hex_id(), flavour_of(label), machine_limits(*parts_.config));
  if (room == 0 && !waiting_of_.empty())
    make_room();
}

/// Where every place is taken, an idle machine gives way to one of another kind that a job waits
/// for. One of the job's own kind would have been given to it.
void supervisor_state::make_room() {
  for (const auto& [label, stock] : stocks())
    if (stock.waiting > 0 && stock.starting > 0)
      return; // what comes will free a place when it is used
  for (const slot_record& slot : slots_)
    if (slot.state == slot_state::ending)
      return;
  auto idle = std::ranges::find_if(slots_, [](const slot_record& slot) {
    return slot.state == slot_state::idle && slot.session.empty();
  });
  if (idle != slots_.end())
    release(static_cast<std::uint32_t>(idle - slots_.begin()));
}

/// Ends machines that nobody asks for any more.
void supervisor_state::shrink() {
  for (const auto& label : plan_.to_end(stocks())) {
    auto spare = std::ranges::find_if(slots_, [&](const slot_record& slot) {
      return slot.state == slot_state::idle && slot.session.empty()
             && name_of(slot.flavour) == label;
    });
    if (spare != slots_.end())
      release(static_cast<std::uint32_t>(spare - slots_.begin()));
  }
}

void supervisor_state::on_slot_changed(const slot_changed& message) {
  slot_record& slot = slots_[message.slot];
  if (slot.machine != message.machine)
    return;
  switch (message.state) {
  case slot_state::idle:
    slot.state = slot_state::idle;
    restarts_.at(slot.flavour.make).on_success();
    tell("vm." + slot.machine, slot.machine, "idle");
    if (session_record* session = find_by(slot.session))
      seat(*session);
    else
      serve_waiting();
    break;
  case slot_state::ending: {
    // Lost. Before it served anybody that is a failure of the host, not of a job.
    if (slot.state == slot_state::starting || slot.state == slot_state::idle) {
      restarts_.at(slot.flavour.make).on_failure(now());
      log::error("supervisor", "a machine failed before it served",
                 {{"machine", slot.machine}, {"why", message.detail}});
    }
    ++totals_.lost_total;
    slot.state = slot_state::ending;
    tell("vm." + slot.machine, slot.machine, "lost", message.detail);
    if (session_record* session = find_by(slot.session)) {
      session->info.state = session_state::lost;
      desk_->machine_lost(session->info.session, message.detail);
      tell("session." + session->info.session, session->info.session, "lost", message.detail);
    }
    break;
  }
  case slot_state::empty: {
    std::string held_by = slot.session;
    tell("vm." + slot.machine, slot.machine, "gone");
    slot.state = slot_state::empty;
    slot.machine.clear();
    slot.session.clear();
    slot.one_shot = false;
    for (auto& [id, session] : sessions_)
      if (session.slot == message.slot) {
        session.slot.reset();
        held_by = id;
        break;
      }
    if (auto found = sessions_.find(held_by); found != sessions_.end()) {
      if (found->second.closed) {
        end_close(held_by);
      } else {
        desk_->machine_gone(held_by);
        // What came while the session fell asleep wakes it.
        session_record* left = find_by(held_by);
        if (left != nullptr && !is_draining_
            && (!left->queue.empty() || !left->when_ready.empty() || !left->opening.empty()))
          wake(*left);
        seat(held_by);
      }
    }
    seat_waiting();
    serve_waiting();
    refill_soon(true);
    break;
  }
  default:
    break;
  }
  if (is_draining_)
    on_tick();
}

// --- sessions ------------------------------------------------------------------------------------

session_record* supervisor_state::find_by(const std::string& any) {
  if (any.empty())
    return nullptr;
  if (auto found = sessions_.find(any); found != sessions_.end())
    return &found->second;
  if (auto found = sessions_.find(session_of_machine(any));
      found != sessions_.end() && any.starts_with("vm-"))
    return &found->second;
  if (auto named = by_name_.find(any); named != by_name_.end())
    return &sessions_.at(named->second);
  return nullptr;
}

expected<std::string> supervisor_state::admit_session(const open_session& request,
                                                      const std::string& title) {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains");
  if (error why = room_for(1))
    return why;
  auto make = make_for(request.kind, request.isolation, request.vm_type);
  if (!make)
    return make.error();
  if (title.size() > limits::name_bytes_max || title.find('\0') != std::string::npos)
    return fail(ec::malformed, "name: must have at most " + std::to_string(limits::name_bytes_max)
                                   + " bytes and no NUL");
  if (!title.empty() && by_name_.contains(title))
    return fail(ec::already_exists, "name: " + title + " is in use");
  return make;
}

session_record& supervisor_state::make_session(const open_session& request, std::string title,
                                               std::string make) {
  vm_type type = find_vm_type(*parts_.config, request.vm_type);
  // An idle machine lends the session its digits; else they are new.
  auto idle = find_idle({.make = make, .warm = "python"});
  std::string id = idle ? session_of_machine(slots_[*idle].machine) : "s-" + new_hex_id();
  session_record& session = sessions_[id];
  session_info& info = session.info;
  info.session = id;
  info.name = title.empty() ? id : std::move(title);
  info.agent_id = request.agent_id;
  info.machine = machine_of_session(id);
  info.machine_kind = kind_of(make);
  session.make = std::move(make);
  info.vm_type = request.vm_type;
  info.created_at_ms = unix_ms();
  touch(session);
  info.memory_mib = request.memory_mib ? *request.memory_mib : type.memory_mib;
  info.processes = request.processes ? *request.processes : type.processes;
  info.disk_mib = request.disk_mib ? *request.disk_mib : type.disk_mib;
  by_name_[info.name] = id;
  if (!info.agent_id.empty())
    by_agent_.try_emplace(info.agent_id, id);
  desk_->opened(id);
  if (idle) {
    lease(*idle);
    slots_[*idle].session = id;
    session.slot = idle;
    self_->send(slots_[*idle].actor, limit_slot{.memory_mib = info.memory_mib,
                                                .processes = info.processes,
                                                .disk_mib = info.disk_mib});
    info.state = session_state::ready;
    desk_->machine_up(id);
  }
  tell("session." + id, id, "opened");
  caf::anon_send(parts_.history, record_session{.session = info});
  if (!idle)
    seat(session);
  refill_soon(false);
  return session;
}

/// Brings a session to its machine: starts one, or takes the one that came up for it.
void supervisor_state::seat(session_record& session) {
  session_info& info = session.info;
  if (session.closed)
    return;
  for (std::uint32_t i = 0; i < slots_.size() && !session.slot; ++i)
    if (slots_[i].session == info.session && slots_[i].state != slot_state::ending)
      session.slot = i;
  if (!session.slot)
    return start_session_machine(session);
  slot_record& slot = slots_[*session.slot];
  if (slot.state != slot_state::idle)
    return;
  lease(*session.slot);
  info.state = session_state::ready;
  tell("session." + info.session, info.session, "ready");
  desk_->machine_up(info.session);
  for (auto& promise : session.opening)
    promise.deliver(info);
  session.opening.clear();
  run_queue(session);
}

/// Starts a session's machine from what the desk has of it. An idle machine of nobody makes room.
void supervisor_state::start_session_machine(session_record& session) {
  session_info& info = session.info;
  if (desk_->asleep(info.session) || is_draining_)
    return;
  if (info.state != session_state::lost)
    info.state = session_state::starting;
  auto place = empty_place();
  if (!place) {
    unseated_.insert(info.session);
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].state == slot_state::idle && slots_[i].session.empty())
        return release(i);
    return;
  }
  if (!may_start(session.make))
    return;
  auto files = desk_->files_for(info.session);
  if (!files)
    return;
  job_limits limits{.timeout_ms = 0,
                    .memory_mib = info.memory_mib,
                    .processes = info.processes,
                    .output_bytes = 0,
                    .disk_mib = info.disk_mib};
  if (start_machine(info.machine, {.make = session.make, .warm = "python"}, limits,
                    std::move(*files))) {
    slots_[*place].session = info.session;
    session.slot = place;
    unseated_.erase(info.session);
  }
}

void supervisor_state::seat_waiting() {
  for (const std::string& id : std::set<std::string>{unseated_}) {
    if (!empty_place())
      return;
    seat(id);
  }
}

/// Gives a sleeping session a machine again.
void supervisor_state::wake(session_record& session) {
  if (!desk_->asleep(session.info.session))
    return;
  if (source_of(session.make) == nullptr)
    return refuse_homeless(session);
  desk_->wake(session.info.session);
  touch(session);
  seat(session);
}

/// Answers all who wait for a session of a former server whose kind of machine this one does not
/// serve. It stays asleep, with its states, for a server that does.
void supervisor_state::refuse_homeless(session_record& session) {
  const std::string why = why_homeless(session);
  for (const auto& id : std::exchange(session.queue, {}))
    if (state_desk::is_step(id))
      desk_->cancel_step(id);
    else
      end_unplaced(id, job_state::machine_lost, why);
  for (auto& promise : std::exchange(session.opening, {}))
    promise.deliver(fail(ec::isolation_unavailable, why));
  for (auto& each : std::exchange(session.when_ready, {}))
    each();
}

std::string supervisor_state::why_homeless(const session_record& session) const {
  return "session: its machine is of kind " + session.make
         + ", which is not served now; kinds that are: " + list_kinds(makes_);
}

/// Starts jobs of a session as far as they may run at once, behind what else waited for it.
void supervisor_state::run_queue(session_record& session) {
  if (!session.slot || session.closed)
    return;
  slot_record& slot = slots_[*session.slot];
  bool up = slot.state == slot_state::leased || slot.state == slot_state::busy;
  const std::string id_of_session = session.info.session;
  if (up && !desk_->holds(id_of_session))
    for (auto& each : std::exchange(session.when_ready, {}))
      each();
  for (auto at = session.queue.begin(); up && at != session.queue.end()
                                        && slot.jobs < limits::jobs_per_session_running_max
                                        && !desk_->holds(id_of_session);) {
    std::string id = *at;
    if (state_desk::is_step(id)) {
      if (slot.jobs > 0) // it waits for those that run, and those behind it wait for it
        break;
      session.queue.erase(at);
      desk_->begin_step(id);
      if (!session.slot) // the step let the machine go
        return;
      at = session.queue.begin();
      continue;
    }
    const run& wanted = jobs_.at(id).order.request;
    // Cells of one context run one after another; the others need not wait for them.
    if (wanted.kernel && session.contexts_busy.contains(wanted.context)) {
      ++at;
      continue;
    }
    if (!desk_->may_start(id_of_session, id))
      break;
    at = std::ranges::find(session.queue, id);
    if (at == session.queue.end())
      break;
    if (wanted.kernel)
      session.contexts_busy.insert(wanted.context);
    at = session.queue.erase(at);
    run_in(*session.slot, id, false);
  }
  session.info.state = !up             ? session.info.state
                       : slot.jobs > 0 ? session_state::busy
                                       : session_state::ready;
}

/// A session for a job, if the job can be one of its jobs.
caf::result<session_info> supervisor_state::info_for(const find_session& job,
                                                     const session_record& session) const {
  const session_info& info = session.info;
  vm_type machine{.memory_mib = info.memory_mib,
                  .processes = info.processes,
                  .disk_mib = info.disk_mib,
                  .kind = {}};
  if (error why = check_in_session(job, machine))
    return why;
  // The session's machine serves the job, or nothing does.
  vm_type named = job.vm_type.empty() ? vm_type{} : find_vm_type(*parts_.config, job.vm_type);
  bool is_other = !job.vm_type.empty() && !make_of(named, *parts_.config).empty()
                  && make_of(named, *parts_.config) != session.make;
  if (is_other || check_served(info.machine_kind, job.kind, job.isolation, named))
    return fail(ec::isolation_unavailable,
                "session: its machine is of kind " + session.make
                    + ", and is not what this job asks for by kind, isolation or vm_type");
  return info;
}

caf::result<session_info> supervisor_state::on_find(const find_session& request) {
  if (!request.session.empty()) {
    session_record* session = find_by(request.session);
    if (session == nullptr || session->closed)
      return fail(ec::not_found, "session: there is no session " + request.session);
    return info_for(request, *session);
  }
  if (auto found = by_agent_.find(request.agent_id); found != by_agent_.end())
    return info_for(request, sessions_.at(found->second));
  if (!parts_.config->policy.auto_provision)
    return fail(ec::not_found, "agent_id: agent " + request.agent_id
                                   + " has no session, and auto_provision is off");
  open_session open;
  open.agent_id = request.agent_id;
  open.vm_type = request.vm_type;
  open.kind = request.kind;
  open.isolation = request.isolation;
  std::string unnamed;
  auto make = admit_session(open, unnamed);
  if (!make)
    return make.error();
  if (error why = check_in_session(request, find_vm_type(*parts_.config, request.vm_type)))
    return why;
  return make_session(open, {}, std::move(*make)).info;
}

caf::result<session_info> supervisor_state::on_open(const open_session& request) {
  std::string title = request.name;
  auto make = admit_session(request, title);
  if (!make)
    return make.error();
  session_record& session = make_session(request, std::move(title), std::move(*make));
  if (session.info.state == session_state::ready)
    return session.info;
  session.opening.push_back(self_->make_response_promise<session_info>());
  return session.opening.back();
}

caf::result<session_closed> supervisor_state::on_close(const close_session& request) {
  session_record* session = find_by(request.session);
  if (session == nullptr)
    return fail(ec::not_found, "session: there is no session " + request.session);
  auto promise = self_->make_response_promise<session_closed>();
  session->closing.push_back(promise);
  begin_close(*session);
  return promise;
}

void supervisor_state::begin_close(session_record& session) {
  if (session.closed)
    return;
  session.closed = true;
  session.info.state = session_state::closed;
  auto queue = std::move(session.queue);
  session.queue.clear();
  for (const auto& id : queue)
    if (state_desk::is_step(id))
      desk_->cancel_step(id);
    else
      end_unplaced(id, job_state::cancelled, "the session was closed");
  std::string id = session.info.session;
  if (!session.slot) {
    end_close(id);
    return;
  }
  for (const auto& [job, placed] : jobs_)
    if (placed.slot == session.slot)
      self_->send(slots_[*session.slot].actor,
                  stop_job{.job = job, .reason = end_reason::cancelled});
  release(*session.slot);
}

void supervisor_state::end_close(const std::string& id) {
  auto node = sessions_.extract(id);
  if (node.empty())
    return;
  session_record& session = node.mapped();
  unseated_.erase(id);
  // First of all it cannot be found any more, by those who are told now that it is closed.
  by_name_.erase(session.info.name);
  if (auto found = by_agent_.find(session.info.agent_id);
      found != by_agent_.end() && found->second == id)
    by_agent_.erase(found);
  for (const auto& step : session.queue) // they came while it was being closed
    desk_->cancel_step(step);
  desk_->closed(id);
  for (auto& each : std::exchange(session.when_ready, {}))
    each();
  for (auto& promise : session.opening)
    promise.deliver(fail(ec::conflict, "the session was closed before its machine was up"));
  for (auto& promise : session.closing)
    promise.deliver(session_closed{.session = id});
  caf::anon_send(parts_.history, record_session{.session = session.info});
  tell("session." + id, id, "closed");
}

session_list supervisor_state::on_list(const list_sessions& request) const {
  session_list all;
  for (const auto& [id, session] : sessions_) {
    const session_info& info = session.info;
    bool wanted = request.session.empty() || request.session == id || request.session == info.name
                  || request.session == info.machine;
    if (wanted && !session.closed
        && (request.agent_id.empty() || request.agent_id == info.agent_id))
      all.sessions.push_back(info);
  }
  std::ranges::sort(all.sessions, {}, &session_info::created_at_ms);
  return all;
}

template <class Reply, class Request>
caf::result<Reply> supervisor_state::delegate_to(const std::string& any, const Request& request) {
  session_record* session = find_by(any);
  if (session == nullptr || session->closed)
    return fail(ec::not_found, "session: there is no session " + any);
  touch(*session);
  std::string id = session->info.session;
  // What a machine is not asked while its state is saved or taken back.
  constexpr bool waits =
      !is_one_of<Request, get_usage, list_contexts, interrupt, read_watch, unwatch_files>;
  bool is_over = !desk_->asleep(id) && !(waits && desk_->holds(id));
  if (is_over && !session->slot)
    return fail(ec::machine_failed, "session: its machine is not up");
  // From here on only the promise answers.
  auto promise = self_->make_response_promise<Reply>();
  if (!is_over) { // asked again when it is
    session->when_ready.push_back([this, promise, request, id]() mutable {
      session_record* awake = find_by(id);
      if (awake != nullptr && source_of(awake->make) == nullptr)
        promise.deliver(fail(ec::isolation_unavailable, why_homeless(*awake)));
      else if (awake == nullptr || !awake->slot)
        promise.deliver(fail(ec::conflict, "session: it was closed"));
      else
        ask_slot<Reply>(*awake, request, promise);
    });
    wake(*session);
    return promise;
  }
  ask_slot<Reply>(*session, request, promise);
  return promise;
}

template <class Reply, class Request>
void supervisor_state::ask_slot(session_record& session, const Request& request,
                                caf::typed_response_promise<Reply> promise) {
  constexpr bool changes = !is_one_of<Request, read_file, list_files, stat_file, get_usage,
                                      list_contexts, watch_files, read_watch, unwatch_files>;
  if (changes)
    desk_->touched(session.info.session);
  std::string id = session.info.session;
  self_->request(slots_[*session.slot].actor, caf::infinite, request)
      .then(
          [promise, id](Reply& reply) mutable {
            if constexpr (std::is_same_v<Reply, context_list>)
              for (context_info& each : reply.contexts)
                each.session = id;
            if constexpr (requires { reply.session = id; })
              reply.session = id;
            promise.deliver(std::move(reply));
          },
          [promise](error& why) mutable { promise.deliver(std::move(why)); });
}

caf::result<files_put> supervisor_state::on_put_files(const put_files& request) {
  return delegate_to<files_put>(request.session, request);
}

/// The events of a watch go out under the session's id, whatever the client called it.
caf::result<files_watched> supervisor_state::on_watch_files(watch_files& request) {
  if (session_record* session = find_by(request.session))
    request.session = session->info.session;
  return delegate_to<files_watched>(request.session, request);
}

caf::result<session_usage> supervisor_state::on_usage(const get_usage& request) {
  return delegate_to<session_usage>(request.session, request);
}

caf::result<stdin_written> supervisor_state::on_write_stdin(const write_stdin& request) {
  auto found = jobs_.find(request.job);
  if (found == jobs_.end())
    return fail(ec::not_found, "job: " + request.job + " is not alive");
  if (!found->second.slot)
    return fail(ec::conflict, "job: " + request.job + " has not started yet");
  auto promise = self_->make_response_promise<stdin_written>();
  self_->request(slots_[*found->second.slot].actor, caf::infinite, request)
      .then([promise](stdin_written& reply) mutable { promise.deliver(std::move(reply)); },
            [promise](error& why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

// --- saved states --------------------------------------------------------------------------------

/// Sessions of a former server: asleep, with what the desk has of them on disk.
void supervisor_state::adopt_past() {
  desk_->know(std::move(parts_.saved));
  for (session_info& past : parts_.past_sessions) {
    session_record& session = sessions_[past.session];
    session.info = std::move(past);
    if (session.info.machine_kind.empty()) // written before there were several kinds in one server
      session.info.machine_kind = kind_of(makes_.front());
    session.make = make_of_past(session.info);
    session.last_used = now();
    by_name_[session.info.name] = session.info.session;
    if (!session.info.agent_id.empty())
      by_agent_.try_emplace(session.info.agent_id, session.info.session);
    desk_->adopt(session.info);
    record(session.info.session);
  }
  parts_.past_sessions.clear();
}

/// The make of its type, if that still has its kind; else the plain one of its kind.
std::string supervisor_state::make_of_past(const session_info& past) const {
  std::string make = make_of(find_vm_type(*parts_.config, past.vm_type), *parts_.config);
  return kind_of(make) == past.machine_kind ? make : past.machine_kind;
}

/// Asks the desk something about a session that a client named.
template <class Reply, class F>
caf::result<Reply> supervisor_state::in_session(const std::string& any, F ask) {
  session_record* session = find_by(any);
  if (session == nullptr || session->closed)
    return fail(ec::not_found, "session: there is no session " + any);
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains");
  if (source_of(session->make) == nullptr)
    return fail(ec::isolation_unavailable, why_homeless(*session));
  touch(*session);
  return ask(session->info.session);
}

caf::result<session_info> supervisor_state::on_pause(const pause_session& request) {
  session_record* session = find_by(request.session);
  if (session != nullptr && !session->closed && desk_->asleep(session->info.session))
    return session->info;
  return in_session<session_info>(request.session,
                                  [&](const std::string& id) { return desk_->pause(id); });
}

caf::result<session_info> supervisor_state::on_resume(const resume_session& request) {
  return in_session<session_info>(
      request.session, [&](const std::string& id) -> caf::result<session_info> {
        session_record& session = sessions_.at(id);
        bool up = slot_of(id) != nullptr;
        if (up)
          return session.info;
        session.opening.push_back(self_->make_response_promise<session_info>());
        auto promise = session.opening.back();
        wake(session);
        return promise;
      });
}

session_info* supervisor_state::info_of(const std::string& session) {
  auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : &found->second.info;
}

const slot_actor* supervisor_state::slot_of(const std::string& session) {
  auto found = sessions_.find(session);
  if (found == sessions_.end() || !found->second.slot)
    return nullptr;
  const slot_record& slot = slots_[*found->second.slot];
  bool up = slot.state == slot_state::leased || slot.state == slot_state::busy;
  return up ? &slot.actor : nullptr;
}

std::uint32_t supervisor_state::running(const std::string& session) {
  auto found = sessions_.find(session);
  bool seated = found != sessions_.end() && found->second.slot;
  return seated ? slots_[*found->second.slot].jobs : 0;
}

void supervisor_state::queue_step(const std::string& session, const std::string& step,
                                  bool in_front) {
  session_record& record = sessions_.at(session);
  if (in_front)
    record.queue.push_front(step);
  else
    record.queue.push_back(step);
  wake(record);
  run_queue(record);
}

void supervisor_state::end_jobs(const std::string& session, const std::string& why) {
  auto found = sessions_.find(session);
  if (found == sessions_.end())
    return;
  auto reason = is_draining_ ? end_reason::interrupted : end_reason::cancelled;
  auto waiting = std::exchange(found->second.queue, {});
  for (const auto& id : waiting)
    if (state_desk::is_step(id))
      found->second.queue.push_back(id);
  for (const auto& id : waiting)
    if (!state_desk::is_step(id))
      end_unplaced(id, state_of(reason), why);
  for (const auto& [job, placed] : jobs_)
    if (placed.slot && placed.slot == found->second.slot)
      self_->send(slots_[*placed.slot].actor, stop_job{.job = job, .reason = reason});
}

void supervisor_state::go_on(const std::string& session) {
  if (auto found = sessions_.find(session); found != sessions_.end())
    run_queue(found->second);
}

void supervisor_state::leave_machine(const std::string& session) {
  auto found = sessions_.find(session);
  if (found != sessions_.end() && found->second.slot)
    release(*found->second.slot);
  else
    desk_->machine_gone(session);
}

void supervisor_state::seat(const std::string& session) {
  if (auto found = sessions_.find(session); found != sessions_.end())
    seat(found->second);
}

error supervisor_state::room_for(std::uint32_t sessions) {
  auto no = [](const std::string& why) -> error {
    return caf::make_error(ec::no_capacity, why,
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  };
  if (sessions_.size() + sessions > limits::sessions_max)
    return no(std::to_string(sessions_.size()) + " sessions are open already");
  auto taken = static_cast<std::size_t>(std::ranges::count_if(
      sessions_, [&](const auto& item) { return !desk_->asleep(item.first); }));
  if (taken + sessions > slots_.size())
    return no("all " + std::to_string(slots_.size()) + " machines are held by sessions");
  return {};
}

std::string supervisor_state::open_fork(const session_info& parent) {
  std::string id = "s-" + new_hex_id();
  session_record& session = sessions_[id];
  session.make = sessions_.at(parent.session).make;
  session_info& info = session.info;
  info = parent;
  info.session = info.name = id;
  info.machine = machine_of_session(id);
  info.state = session_state::starting;
  info.parent = parent.session;
  info.created_at_ms = unix_ms();
  info.jobs_run = 0;
  info.jobs_alive = 0;
  info.detail.clear();
  touch(session);
  by_name_[id] = id;
  desk_->opened(id);
  tell("session." + id, id, "opened");
  record(id);
  return id;
}

void supervisor_state::close(const std::string& session) {
  if (auto found = sessions_.find(session); found != sessions_.end())
    begin_close(found->second);
}

void supervisor_state::publish(const std::string& session, std::string state, std::string detail) {
  tell("session." + session, session, std::move(state), std::move(detail));
}

void supervisor_state::record(const std::string& session) {
  if (const session_info* info = info_of(session))
    caf::anon_send(parts_.history, record_session{.session = *info});
}

// --- the whole -----------------------------------------------------------------------------------

pool_info supervisor_state::on_pool() const {
  pool_info info = totals_;
  info.slots_max = static_cast<std::uint32_t>(slots_.size());
  info.sessions = static_cast<std::uint32_t>(sessions_.size());
  info.waiting = static_cast<std::uint32_t>(waiting_.size());
  info.waiting_max = parts_.config->pool.waiting_max;
  info.breaker_open = std::ranges::any_of(
      restarts_, [&](const auto& each) { return each.second.breaker_open(now()); });
  info.machine_kind = list_kinds(makes_);
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    const slot_record& slot = slots_[i];
    if (slot.state == slot_state::empty)
      continue;
    ++info.machines;
    info.idle += slot.state == slot_state::idle ? 1 : 0;
    info.leased += slot.state == slot_state::leased || slot.state == slot_state::busy ? 1 : 0;
    info.slots.push_back({.slot = i,
                          .state = slot.state,
                          .machine = slot.machine,
                          .session = slot.session,
                          .warm = name_of(slot.flavour)});
  }
  return info;
}

void supervisor_state::on_tick() {
  auto time = now();
  if (is_draining_) {
    bool wait = !desk_->all_parked() && time < parked_by_;
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].state != slot_state::empty && (slots_[i].session.empty() || !wait))
        release(i);
    if (wait && next_look_ <= time) {
      next_look_ = time + std::chrono::milliseconds{100};
      self_->delayed_send(self_, std::chrono::milliseconds{100}, caf::tick_atom_v);
    }
    bool left = std::ranges::any_of(
        slots_, [](const slot_record& slot) { return slot.state != slot_state::empty; });
    if (!left && draining_.pending()) {
      for (auto& slot : slots_)
        if (slot.actor)
          self_->send_exit(slot.actor, caf::exit_reason::user_shutdown);
      draining_.deliver(drained{});
    }
    return;
  }
  plan_.fade();
  shrink();
  std::vector<std::string> late;
  for (const auto& id : waiting_)
    if (jobs_.at(id).since + std::chrono::milliseconds{parts_.config->pool.queue_timeout_ms} < time)
      late.push_back(id);
  for (const auto& id : late)
    end_unplaced(id, job_state::machine_lost,
                 restarts_.at(jobs_.at(id).flavour.make).breaker_open(time)
                     ? "machines fail to start; see `berth doctor`"
                     : "no machine came free in time");
  std::vector<std::string> idle;
  std::chrono::milliseconds idle_time{parts_.config->pool.session_idle_ms};
  std::chrono::milliseconds pause_time{parts_.config->pool.session_pause_ms};
  std::vector<std::string> sleepy;
  std::vector<std::string> homeless;
  for (auto& [id, session] : sessions_) {
    bool unused = session.info.jobs_alive == 0;
    if (unused && session.last_used + idle_time < time)
      idle.push_back(id);
    else if (!session.slot && !desk_->asleep(id))
      homeless.push_back(id);
    else if (session.slot && unused && pause_time.count() > 0
             && session.last_used + pause_time < time && !desk_->holds(id))
      sleepy.push_back(id);
  }
  for (const auto& id : homeless)
    seat(id);
  for (const auto& id : sleepy)
    desk_->pause_unused(id);
  for (const auto& id : idle)
    if (session_record* session = find_by(id))
      begin_close(*session);
  desk_->tick();
  serve_waiting();
  refill_soon(true);
  self_->delayed_send(self_, std::chrono::seconds{1}, caf::tick_atom_v);
}

caf::result<drained> supervisor_state::on_drain() {
  is_draining_ = true;
  draining_ = self_->make_response_promise<drained>();
  auto promise = draining_;
  while (!waiting_.empty())
    end_unplaced(waiting_.front(), job_state::interrupted, "the server drains");
  std::vector<std::string> all;
  for (const auto& [id, session] : sessions_)
    all.push_back(id);
  for (const auto& id : all) {
    end_jobs(id, "the server drains");
    for (const auto& step : std::exchange(sessions_.at(id).queue, {}))
      desk_->cancel_step(step);
  }
  parked_by_ = now() + limits::park_time_max;
  desk_->park_all();
  on_tick();
  return promise;
}

void supervisor_state::tell(const std::string& topic, const std::string& id, std::string state,
                            std::string detail) {
  if (!parts_.sink || !parts_.sink->wanted())
    return;
  self_->send(parts_.hub, announce{.topic = topic,
                                   .event = {.id = id,
                                             .state = std::move(state),
                                             .detail = std::move(detail),
                                             .at_ms = unix_ms()}});
}

supervisor_actor::behavior_type
supervisor(supervisor_actor::stateful_pointer<supervisor_state> self, supervisor_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

supervisor_actor spawn_supervisor(caf::actor_system& system, supervisor_parts parts) {
  return system.spawn(supervisor, std::move(parts));
}

} // namespace berth
