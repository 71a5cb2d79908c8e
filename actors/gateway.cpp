// SPDX-License-Identifier: Apache-2.0
#include "actors/gateway.hpp"

#include "actors/code_rules.hpp"
#include "actors/ids.hpp"
#include "actors/job_end.hpp"
#include "actors/rush_meter.hpp"
#include "config/kinds.hpp"
#include "config/languages.hpp"
#include "config/limits.hpp"
#include "config/log.hpp"
#include "config/version.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_map>

namespace berth {

namespace {

/// A job between its admission and its reply.
struct alive_job {
  job_order order;
  error refusal; // it is not served after all: what the client is told instead of the outcome
  caf::typed_response_promise<outcome> runner;     // a `run` waits for the end
  caf::typed_response_promise<accepted> submitter; // a `submit` waits for the record
  /// Who cancels it after its machine ended it, and before it is recorded.
  std::vector<caf::typed_response_promise<cancelled>> late_cancels;
};

/// GATEWAY: where every door leads.
class gateway_state {
public:
  static constexpr const char* name = "berth.gateway";

  gateway_actor::behavior_type make_behavior(gateway_actor::pointer self, gateway_parts parts);

private:
  /// What names a job in here: it costs no memory of its own, as the job's id does.
  using ticket = std::uint64_t;

  caf::result<outcome> on_run(run& request);
  caf::result<accepted> on_submit(submit& request);
  caf::result<cancelled> on_cancel(const cancel& request);
  void tell_ended(const std::string& id, caf::typed_response_promise<cancelled> promise);
  caf::result<output_slice> on_read(const read& request);
  caf::result<verdict> on_validate(const validate& request);
  caf::result<session_info> on_open(const open_session& request);
  caf::result<files_put> on_put_files(const put_files& request);
  template <class Reply, class Request>
  caf::result<Reply> on_files(const Request& request);
  caf::result<context_info> on_open_context(const open_context& request);
  template <class Reply, class Who, class Request>
  caf::result<Reply> pass_on(Who office::*who, Request& request);
  caf::result<health_info> on_health();
  caf::result<drained> on_drain(const drain& request);

  // The life of a job, step by step.
  expected<job_order> admit(run& request) const;
  void note_request();
  void look_at_rush();
  void begin(alive_job job);
  void find_its_session(ticket id);
  void judge_it(ticket id);
  void on_judged(ticket id, verdict answer);
  void record(ticket id);
  void start(ticket id);
  void block(ticket id);
  void on_recorded(ticket id);
  void end_unplaced(ticket id, outcome result);
  void close(ticket id, outcome result);
  void answer(ticket id, outcome result);
  void refuse(ticket id, const error& why);
  void announce_end(const outcome& result);
  void publish(const std::string& job, std::string state, std::string detail, std::int64_t at_ms);
  void on_grace_over();
  void check_drained();

  gateway_actor::pointer self_ = nullptr;
  gateway_parts parts_;
  office office_;
  std::unique_ptr<const code_rules> rules_;
  std::unordered_map<ticket, alive_job> jobs_;
  ticket next_ticket_ = 0;
  std::int64_t started_at_ms_ = unix_ms();
  bool is_draining_ = false;
  rush_meter rush_;
  std::uint32_t ended_in_drain_ = 0;
  std::uint32_t interrupted_in_drain_ = 0;
  caf::typed_response_promise<drained> draining_;
};

gateway_actor::behavior_type gateway_state::make_behavior(gateway_actor::pointer self,
                                                          gateway_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  rules_ = std::make_unique<const code_rules>(parts_.config->policy);
  if (parts_.open_office)
    office_ = parts_.open_office(self_);
  return {
      [this](run& x) { return on_run(x); },
      [this](submit& x) { return on_submit(x); },
      [this](const read& x) { return on_read(x); },
      [this](const cancel& x) { return on_cancel(x); },
      [this](const write_stdin& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const validate& x) { return on_validate(x); },
      [this](const list_jobs& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const open_session& x) { return on_open(x); },
      [this](const close_session& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const list_sessions& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const get_usage& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const put_files& x) { return on_put_files(x); },
      [this](const read_file& x) { return on_files<file_content>(x); },
      [this](const write_file& x) { return on_files<file_info>(x); },
      [this](const list_files& x) { return on_files<file_list>(x); },
      [this](const stat_file& x) { return on_files<file_info>(x); },
      [this](const make_dir& x) { return on_files<file_info>(x); },
      [this](const move_file& x) { return on_files<file_info>(x); },
      [this](const remove_file& x) { return on_files<file_removed>(x); },
      [this](const watch_files& x) { return on_files<files_watched>(x); },
      [this](const read_watch& x) { return on_files<file_events>(x); },
      [this](const unwatch_files& x) { return on_files<files_unwatched>(x); },
      [this](const open_context& x) { return on_open_context(x); },
      [this](const list_contexts& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const restart_context& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const close_context& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const interrupt& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const take_snapshot& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const list_snapshots& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const delete_snapshot& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const rollback& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const fork_session& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const pause_session& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const resume_session& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const query_history& x) { return self_->delegate(parts_.history, x); },
      [this](chat& x) { return pass_on<chat_reply>(&office::agents, x); },
      [this](cancel_chat& x) { return pass_on<chat_cancelled>(&office::agents, x); },
      [this](list_conversations& x) { return pass_on<conversation_list>(&office::agents, x); },
      [this](close_conversation& x) { return pass_on<conversation_closed>(&office::agents, x); },
      [this](run_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](submit_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](get_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](list_workflows& x) { return pass_on<workflow_list>(&office::workflows, x); },
      [this](cancel_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](pause_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](resume_workflow& x) { return pass_on<workflow_info>(&office::workflows, x); },
      [this](read_progress& x) { return pass_on<progress_page>(&office::progress, x); },
      [this](list_roles& x) { return pass_on<role_list>(&office::roles, x); },
      [this](get_config& x) { return pass_on<config_text>(&office::roles, x); },
      [this](set_config& x) { return pass_on<config_text>(&office::roles, x); },
      [this](select_role& x) { return pass_on<config_text>(&office::roles, x); },
      [this](list_models& x) { return pass_on<model_list>(&office::models, x); },
      [this](const get_pool& x) { return self_->delegate(parts_.supervisor, x); },
      [this](const get_health&) { return on_health(); },
      [](const describe&) { return make_description(); },
      [this](const drain& x) { return on_drain(x); },
      [this](caf::timeout_atom) { on_grace_over(); },
      [this](caf::tick_atom) { look_at_rush(); },
  };
}

/// Agents, workflows, roles and models have actors of their own.
template <class Reply, class Who, class Request>
caf::result<Reply> gateway_state::pass_on(Who office::*who, Request& request) {
  if (!(office_.*who))
    return fail(ec::unsupported, "this server has no agents");
  return self_->delegate(office_.*who, std::move(request));
}

// --- admission -----------------------------------------------------------------------------------

/// The order of a request, which it takes over, or why it is refused at once.
expected<job_order> gateway_state::admit(run& request) const {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains and takes nothing new");
  if (jobs_.size() >= parts_.config->pool.jobs_alive_max)
    return caf::make_error(ec::no_capacity,
                           std::to_string(jobs_.size()) + " jobs wait or run already",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  if (!parts_.config->policy.enabled)
    return fail(ec::rejected, "vm_execution is not enabled on this server");
  if (error why = check_request(request))
    return why;
  auto language = canonical_language(request.language);
  if (!language)
    return fail(ec::unsupported, "language: " + request.language
                                     + " is not one of python, javascript, bash, rust, go");
  if (auto make = choose_make(parts_.makes, request.kind, request.isolation,
                              find_vm_type(*parts_.config, request.vm_type), *parts_.config);
      !make)
    return make.error();
  auto limits = resolve_limits(request, *parts_.config);
  if (!limits)
    return limits.error();
  job_order order{.job = new_job_id(),
                  .request = std::move(request),
                  .limits = *limits,
                  .verdict = {},
                  .submitted_at_ms = unix_ms()};
  order.request.language = *language;
  // A named context is a live interpreter; without a name it is the language's own.
  run& job = order.request;
  job.kernel = job.kernel || !job.context.empty();
  if (job.kernel && job.context.empty())
    job.context = *language;
  return order;
}

caf::result<outcome> gateway_state::on_run(run& request) {
  auto order = admit(request);
  if (!order)
    return order.error();
  alive_job job;
  job.order = std::move(*order);
  job.runner = self_->make_response_promise<outcome>();
  auto promise = job.runner;
  begin(std::move(job));
  return promise;
}

caf::result<accepted> gateway_state::on_submit(submit& request) {
  auto order = admit(request);
  if (!order)
    return order.error();
  alive_job job;
  job.order = std::move(*order);
  job.submitter = self_->make_response_promise<accepted>();
  auto promise = job.submitter;
  begin(std::move(job));
  return promise;
}

/// A rush is told of when it begins, and looked at until it is over.
void gateway_state::note_request() {
  if (rush_.note(std::chrono::steady_clock::now()) && parts_.on_rush) {
    parts_.on_rush(true);
    self_->delayed_send(self_, rush_meter::look_again, caf::tick_atom_v);
  }
}

void gateway_state::look_at_rush() {
  if (rush_.ends(std::chrono::steady_clock::now()))
    parts_.on_rush(false);
  else
    self_->delayed_send(self_, rush_meter::look_again, caf::tick_atom_v);
}

void gateway_state::begin(alive_job job) {
  note_request();
  const run& request = job.order.request;
  bool in_session = !request.session.empty() || (!request.agent_id.empty() && !request.one_shot);
  ticket id = ++next_ticket_;
  jobs_.emplace(id, std::move(job));
  if (in_session)
    find_its_session(id);
  else
    judge_it(id);
}

void gateway_state::find_its_session(ticket id) {
  const run& request = jobs_.at(id).order.request;
  find_session wanted{.session = request.session,
                      .agent_id = request.agent_id,
                      .vm_type = request.vm_type,
                      .kind = request.kind,
                      .isolation = request.isolation,
                      .memory_mib = request.memory_mib,
                      .processes = request.processes,
                      .disk_mib = request.disk_mib};
  self_->request(parts_.supervisor, caf::infinite, std::move(wanted))
      .then(
          [this, id](const session_info& session) {
            run& found = jobs_.at(id).order.request;
            found.session = session.session;
            if (found.agent_id.empty())
              found.agent_id = session.agent_id;
            judge_it(id);
          },
          [this, id](const error& why) { refuse(id, why); });
}

/// A short program is judged here and now, which costs less than asking; a long one by the
/// VALIDATOR, so that nobody waits for it.
void gateway_state::judge_it(ticket id) {
  const run& request = jobs_.at(id).order.request;
  if (request.code.size() <= limits::judged_at_once_bytes_max) {
    on_judged(id, rules_->judge(request.code, request.language));
    return;
  }
  self_
      ->request(parts_.validator, caf::infinite,
                judge{.code = request.code, .language = request.language})
      .then([this, id](verdict& answer) { on_judged(id, std::move(answer)); },
            [this, id](const error& why) { refuse(id, why); });
}

// --- a job's life --------------------------------------------------------------------------------

void gateway_state::on_judged(ticket id, verdict answer) {
  job_order& order = jobs_.at(id).order;
  order.verdict = std::move(answer);
  self_->send(parts_.hub, open_stream{.job = order.job, .output_bytes = order.limits.output_bytes});
  record(id);
  if (order.verdict.decision == decision::block)
    block(id);
  else
    start(id);
}

/// Has the acceptance recorded, beside the job itself. A `submit` waits for that; a `run` for the
/// record of the end, which is written behind it.
void gateway_state::record(ticket id) {
  alive_job& job = jobs_.at(id);
  if (!job.submitter.pending()) {
    caf::anon_send(parts_.history, record_accepted{.order = job.order});
    return;
  }
  self_->request(parts_.history, caf::infinite, record_accepted{.order = job.order})
      .then([this, id](const recorded&) { on_recorded(id); },
            [this, id](const error& why) { refuse(id, why); });
}

/// The SUPERVISOR sees the job to its end, and the STREAM HUB answers with what it put out.
void gateway_state::start(ticket id) {
  self_->request(parts_.supervisor, caf::infinite, place_job{.order = jobs_.at(id).order})
      .then([this, id](outcome& full) { close(id, std::move(full)); },
            [this, id](error& why) {
              outcome lost;
              lost.state = job_state::machine_lost;
              lost.detail = describe_error(why);
              if (auto found = jobs_.find(id); found != jobs_.end() && why == ec::no_capacity)
                found->second.refusal = std::move(why);
              end_unplaced(id, std::move(lost));
            });
}

void gateway_state::block(ticket id) {
  outcome result;
  result.state = job_state::blocked;
  result.detail = "the validator blocked it";
  end_unplaced(id, std::move(result));
}

void gateway_state::on_recorded(ticket id) {
  auto found = jobs_.find(id);
  if (found == jobs_.end())
    return;
  alive_job& job = found->second;
  if (job.submitter.pending() && !job.refusal)
    job.submitter.deliver(accepted{.job = job.order.job, .session = job.order.request.session});
}

/// The job never reached a machine: its stream is closed here.
void gateway_state::end_unplaced(ticket id, outcome result) {
  auto found = jobs_.find(id);
  if (found == jobs_.end())
    return;
  complete(result, found->second.order);
  self_->request(parts_.hub, caf::infinite, close_stream{.ended = std::move(result)})
      .then([this, id](outcome& full) { close(id, std::move(full)); },
            [this, id](const error& why) { refuse(id, why); });
}

/// Writes the end; the answer is given when it is on disk. HISTORY works in order, so the
/// acceptance is then on disk too. It gives a run its outcome itself, which saves the way through
/// here.
void gateway_state::close(ticket id, outcome result) {
  auto kept = std::make_shared<outcome>(std::move(result));
  self_->request(parts_.history, caf::infinite, record_ended{.ended = *kept})
      .then([this, id, kept](const recorded&) { answer(id, std::move(*kept)); },
            [this, id](const error& why) { refuse(id, why); });
  auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.refusal || !found->second.runner.pending())
    return;
  found->second.runner.delegate(parts_.history, answer_run{.ended = *kept});
}

void gateway_state::answer(ticket id, outcome result) {
  auto node = jobs_.extract(id);
  if (node.empty())
    return;
  announce_end(result);
  alive_job& job = node.mapped();
  for (auto& late : job.late_cancels)
    late.deliver(cancelled{.job = result.job, .state = result.state});
  if (job.submitter.pending()) {
    if (job.refusal)
      job.submitter.deliver(std::move(job.refusal));
    else
      job.submitter.deliver(accepted{.job = result.job, .session = job.order.request.session});
  }
  if (job.runner.pending()) {
    if (job.refusal)
      job.runner.deliver(std::move(job.refusal));
    else
      job.runner.deliver(std::move(result));
  }
  check_drained();
}

void gateway_state::announce_end(const outcome& result) {
  if (is_draining_)
    ++(result.state == job_state::interrupted ? interrupted_in_drain_ : ended_in_drain_);
  publish(result.job, std::string{name_of(result.state)}, result.detail, result.ended_at_ms);
}

/// Through the STREAM HUB, so that it comes behind the job's output.
void gateway_state::publish(const std::string& job, std::string state, std::string detail,
                            std::int64_t at_ms) {
  if (!parts_.sink || !parts_.sink->wanted())
    return;
  self_->send(parts_.hub, announce{.topic = "job." + job + ".state",
                                   .event = {.id = job,
                                             .state = std::move(state),
                                             .detail = std::move(detail),
                                             .at_ms = at_ms}});
}

/// Gives a job up: it is not recorded, so it does not go on.
void gateway_state::refuse(ticket id, const error& why) {
  auto node = jobs_.extract(id);
  if (node.empty())
    return;
  alive_job& job = node.mapped();
  const std::string& named = job.order.job;
  log::warn("gateway", "refused a job", {{"job", named}, {"why", describe_error(why)}});
  publish(named, "refused", describe_error(why), unix_ms());
  caf::anon_send(parts_.supervisor, stop_job{.job = named, .reason = end_reason::interrupted});
  for (auto& late : job.late_cancels)
    late.deliver(why);
  if (job.submitter.pending())
    job.submitter.deliver(why);
  if (job.runner.pending())
    job.runner.deliver(why);
  check_drained();
}

caf::result<cancelled> gateway_state::on_cancel(const cancel& request) {
  auto promise = self_->make_response_promise<cancelled>();
  stop_job stop{.job = request.job, .reason = end_reason::cancelled};
  self_->request(parts_.supervisor, caf::infinite, std::move(stop))
      .then([promise](const cancelled& answer) mutable { promise.deliver(answer); },
            [this, promise, id = request.job](const error&) {
              // Its end may be on its way to HISTORY.
              auto is_it = [&](const auto& job) { return job.second.order.job == id; };
              if (auto found = std::ranges::find_if(jobs_, is_it); found != jobs_.end())
                found->second.late_cancels.push_back(promise);
              else
                tell_ended(id, promise);
            });
  return promise;
}

/// Answers a cancel that came too late with the state the job ended in.
void gateway_state::tell_ended(const std::string& id,
                               caf::typed_response_promise<cancelled> promise) {
  query_history query;
  query.job = id;
  self_->request(parts_.history, caf::infinite, std::move(query))
      .then(
          [promise, id](const history_page& page) mutable {
            if (page.entries.empty())
              promise.deliver(fail(ec::not_found, "job: there is no job " + id));
            else
              promise.deliver(cancelled{.job = id, .state = page.entries.front().result.state});
          },
          [promise](error& why) mutable { promise.deliver(std::move(why)); });
}

caf::result<output_slice> gateway_state::on_read(const read& request) {
  if (request.job.empty())
    return fail(ec::malformed, "job: must not be empty");
  return self_->delegate(parts_.hub, request);
}

caf::result<verdict> gateway_state::on_validate(const validate& request) {
  auto language = canonical_language(request.language);
  judge wanted{.code = request.code, .language = language ? *language : request.language};
  return self_->delegate(parts_.validator, std::move(wanted));
}

caf::result<session_info> gateway_state::on_open(const open_session& request) {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains and takes nothing new");
  auto machine = resolve_machine(request, *parts_.config);
  if (!machine)
    return machine.error();
  return self_->delegate(parts_.supervisor, request);
}

caf::result<files_put> gateway_state::on_put_files(const put_files& request) {
  run files_only;
  files_only.code = "-";
  files_only.language = "bash";
  files_only.files = request.files;
  if (error why = check_request(files_only))
    return why;
  return self_->delegate(parts_.supervisor, request);
}

template <class Reply, class Request>
caf::result<Reply> gateway_state::on_files(const Request& request) {
  if (error why = check_file_request(request))
    return why;
  return self_->delegate(parts_.supervisor, request);
}

caf::result<context_info> gateway_state::on_open_context(const open_context& request) {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains and takes nothing new");
  if (error why = check_context(request))
    return why;
  open_context checked = request;
  checked.language = *canonical_language(request.language);
  if (checked.context.empty())
    checked.context = checked.language + "-" + new_hex_id();
  return self_->delegate(parts_.supervisor, std::move(checked));
}

caf::result<health_info> gateway_state::on_health() {
  auto promise = self_->make_response_promise<health_info>();
  self_->request(parts_.supervisor, caf::infinite, get_pool{})
      .then(
          [this, promise](const pool_info& pool) mutable {
            health_info info{.status = is_draining_        ? "draining"
                                       : pool.breaker_open ? "degraded"
                                                           : "healthy",
                             .version = version,
                             .uptime_ms = static_cast<std::uint64_t>(unix_ms() - started_at_ms_),
                             .machine_kind = list_kinds(parts_.makes),
                             .isolation = parts_.isolation,
                             .jobs_alive = static_cast<std::uint32_t>(jobs_.size()),
                             .machines = pool.machines,
                             .draining = is_draining_};
            promise.deliver(std::move(info));
          },
          [promise](error& why) mutable { promise.deliver(std::move(why)); });
  return promise;
}

// --- the end -------------------------------------------------------------------------------------

caf::result<drained> gateway_state::on_drain(const drain& request) {
  is_draining_ = true;
  draining_ = self_->make_response_promise<drained>();
  auto promise = draining_;
  // What is left after the grace time is ended and says so.
  self_->delayed_send(self_, std::chrono::milliseconds{request.grace_ms}, caf::timeout_atom_v);
  check_drained();
  return promise;
}

void gateway_state::on_grace_over() {
  for (const auto& [id, job] : jobs_)
    caf::anon_send(parts_.supervisor,
                   stop_job{.job = job.order.job, .reason = end_reason::interrupted});
}

void gateway_state::check_drained() {
  if (is_draining_ && jobs_.empty() && draining_.pending())
    draining_.deliver(drained{.ended = ended_in_drain_, .interrupted = interrupted_in_drain_});
}

gateway_actor::behavior_type gateway(gateway_actor::stateful_pointer<gateway_state> self,
                                     gateway_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

gateway_actor spawn_gateway(caf::actor_system& system, gateway_parts parts) {
  return system.spawn(gateway, std::move(parts));
}

} // namespace berth
