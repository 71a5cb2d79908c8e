// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/workflow.hpp"

#include "actors/agents/turn.hpp"
#include "actors/ids.hpp"
#include "actors/workflows/bounds.hpp"
#include "config/log.hpp"
#include "messages/codec.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace berth {

namespace {

/// Whether an agent does it, and not a model alone.
bool is_of_agent(const step_order& order) {
  return order.how == asking::agent || order.how == asking::program;
}

/// WORKFLOW: one run.
class workflow_state {
public:
  static constexpr const char* name = "berth.workflow";

  workflow_actor::behavior_type make_behavior(workflow_actor::pointer self, workflows_parts parts,
                                              workflows_actor owner, workflow_run run);

private:
  using effects = workflow_run::effects;
  using promise = caf::typed_response_promise<workflow_info>;

  void start();
  void carry_out(effects done, std::vector<promise> waiting = {});
  void act(const effects& done, std::vector<promise>& waiting);
  void put(put_record record, const std::shared_ptr<std::size_t>& left,
           const std::function<void()>& then);
  void on_store_failed(const error& why);
  void tell_owner();

  void ask(std::size_t step);
  void ask_agent(std::size_t step, const step_order& order);
  void ask_role(std::size_t step, const step_order& order);
  void ask_for_text(std::size_t step, const step_order& order, const role_info& role);
  void on_answer(std::size_t step, step_answer answer);
  void on_refusal(std::size_t step, const error& why);
  void close_all();
  void close_calls();
  std::string call_of(std::size_t step) const;

  caf::result<workflow_info> on_cancel();
  caf::result<workflow_info> on_change(effects (workflow_run::*change)(std::int64_t));
  caf::result<drained> on_drain();

  workflow_actor::pointer self_ = nullptr;
  workflows_parts parts_;
  workflows_actor owner_;
  std::unique_ptr<workflow_run> run_;
  std::vector<promise> cancels_;
  std::map<std::size_t, std::uint32_t> tries_; // of steps for which there was no place
  std::vector<std::function<void()>> early_;   // what was asked before it started
  std::size_t recording_ = 0;                  // effects whose records are not all on disk
  bool closing_ = false;                       // steps under way are being ended
  bool started_ = false;
  bool unrecorded_ = false; // the store failed: nothing more is recorded
};

workflow_actor::behavior_type workflow_state::make_behavior(workflow_actor::pointer self,
                                                            workflows_parts parts,
                                                            workflows_actor owner,
                                                            workflow_run run) {
  self_ = self;
  parts_ = std::move(parts);
  owner_ = std::move(owner);
  run_ = std::make_unique<workflow_run>(std::move(run));
  // Nobody could reach it without WORKFLOWS.
  self_->monitor(owner_);
  self_->set_down_handler([this](const caf::down_msg&) { self_->quit(); });
  start();
  return {
      [this](const get_workflow&) { return run_->info(); },
      [this](const cancel_workflow&) { return on_cancel(); },
      [this](const pause_workflow&) { return on_change(&workflow_run::pause); },
      [this](const resume_workflow&) { return on_change(&workflow_run::resume); },
      [this](const drain&) { return on_drain(); },
      [this](caf::timeout_atom) { carry_out(run_->end_now(unix_ms())); },
      [this](caf::tick_atom, std::uint64_t step) { ask(step); },
  };
}

/// Without roles the names of the steps' roles are taken at their word.
void workflow_state::start() {
  auto begin = [this](role_list roles) {
    started_ = true;
    if (!run_->ended())
      carry_out(run_->start(std::move(roles), unix_ms()));
    for (const auto& each : std::exchange(early_, {}))
      each();
  };
  self_->request(parts_.roles, caf::infinite, list_roles{})
      .then([begin](role_list& roles) { begin(std::move(roles)); },
            [begin](const error&) { begin({}); });
}

// --- records first, then what follows ------------------------------------------------------------

void workflow_state::put(put_record record, const std::shared_ptr<std::size_t>& left,
                         const std::function<void()>& then) {
  self_->request(parts_.records, caf::infinite, std::move(record))
      .then(
          [left, then](const recorded&) {
            if (--*left == 0)
              then();
          },
          [this, left, then](const error& why) {
            on_store_failed(why);
            if (--*left == 0)
              then();
          });
}

/// Records what changed; when that is on disk, tells it, begins what begins, and answers who waits.
void workflow_state::carry_out(effects done, std::vector<promise> waiting) {
  auto kept = std::make_shared<effects>(std::move(done));
  auto left = std::make_shared<std::size_t>(kept->steps.size() + (kept->head ? 1 : 0));
  if (unrecorded_ || *left == 0) {
    act(*kept, waiting);
    return;
  }
  ++recording_;
  auto then = [this, kept, waiting]() mutable {
    --recording_;
    act(*kept, waiting);
  };
  // The head says how it ended: it comes last.
  for (std::size_t step : kept->steps)
    put(step_record(*run_, step), left, then);
  if (kept->head)
    put(head_record(*run_), left, then);
}

/// What cannot be recorded does not go on.
void workflow_state::on_store_failed(const error& why) {
  if (unrecorded_)
    return;
  unrecorded_ = true;
  log::error("workflow", "cannot be recorded",
             {{"workflow", run_->info().workflow}, {"why", describe_error(why)}});
  close_all();
  carry_out(run_->give_up("it cannot be recorded: " + describe_error(why), unix_ms()));
}

void workflow_state::act(const effects& done, std::vector<promise>& waiting) {
  for (const progress_event& each : done.events)
    self_->send(parts_.progress, note_progress{each});
  for (const std::string& each : done.abandoned)
    self_->request(parts_.agents, caf::infinite, close_conversation{each})
        .then([](const conversation_closed&) {}, [](const error&) {});
  for (std::size_t step : done.begun)
    ask(step);
  for (promise& each : waiting)
    each.deliver(run_->info());
  tell_owner();
  if (!run_->ended() || recording_ > 0)
    return;
  for (promise& each : cancels_)
    each.deliver(run_->info());
  cancels_.clear();
  self_->quit();
}

void workflow_state::tell_owner() {
  bool is_over = run_->ended() && recording_ == 0;
  if (is_over || !run_->ended())
    self_->send(owner_, is_over ? run_->info() : run_->head().info);
}

// --- steps ---------------------------------------------------------------------------------------

std::string workflow_state::call_of(std::size_t step) const {
  const step_info& of = run_->info().steps[step];
  return run_->info().workflow + "." + std::to_string(step) + "." + std::to_string(of.attempt);
}

void workflow_state::ask(std::size_t step) {
  auto places = run_->under_way();
  if (std::ranges::find(places, step) == places.end())
    return; // it ended while it was recorded
  const step_order& order = run_->order(step);
  if (closing_)
    on_answer(step, {.error = "the workflow was cancelled"});
  else if (is_of_agent(order))
    ask_agent(step, order);
  else
    ask_role(step, order);
}

void workflow_state::ask_agent(std::size_t step, const step_order& order) {
  const step_info& of = run_->info().steps[step];
  bool runs_program = order.how == asking::program;
  chat request{.conversation = of.conversation,
               .role = order.role,
               .messages = {{.role = speaker::user, .content = order.prompt}},
               .model = order.model,
               .system_prompt = order.system_prompt,
               .execute = runs_program,
               .progress = run_->info().workflow,
               .step = of.id};
  self_->request(parts_.agents, caf::infinite, std::move(request))
      .then(
          [this, step, runs_program](chat_reply& reply) {
            bool results = !reply.results.empty() && (runs_program || reply.text.empty());
            step_answer answer{.output = std::move(results ? reply.results : reply.text),
                               .error = std::move(reply.error),
                               .model = std::move(reply.model),
                               .session = std::move(reply.session),
                               .usage = reply.usage,
                               .acts = std::move(reply.acts)};
            if (answer.output.empty() && answer.error.empty())
              answer.error = runs_program ? "no program was found to run" : "the answer is empty";
            on_answer(step, std::move(answer));
          },
          [this, step](const error& why) { on_refusal(step, why); });
}

/// Who plans, judges and joins has no machine: its model is asked directly.
void workflow_state::ask_role(std::size_t step, const step_order& order) {
  self_->request(parts_.roles, caf::infinite, find_role{order.role})
      .then(
          [this, step](const role_info& role) {
            auto places = run_->under_way();
            if (std::ranges::find(places, step) != places.end() && !closing_)
              ask_for_text(step, run_->order(step), role);
            else
              on_answer(step, {.error = "the workflow was cancelled"});
          },
          [this, step](const error& why) { on_refusal(step, why); });
}

void workflow_state::ask_for_text(std::size_t step, const step_order& order,
                                  const role_info& role) {
  ask_model request{.call = call_of(step),
                    .model = chosen_model(role, order.model),
                    .json = order.how == asking::json_value,
                    .context_window = role.context_window,
                    .progress = run_->info().workflow,
                    .step = run_->info().steps[step].id};
  const std::string& system =
      order.system_prompt.empty() ? role.system_prompt : order.system_prompt;
  if (!system.empty())
    request.messages.push_back({.role = speaker::system, .content = system});
  request.messages.push_back({.role = speaker::user, .content = order.prompt});
  self_->request(parts_.models, caf::infinite, std::move(request))
      .then(
          [this, step](model_answer& answer) {
            std::string fault = answer.text.empty() ? "the model's answer is empty" : "";
            on_answer(step, {.output = std::move(answer.text),
                             .error = std::move(fault),
                             .model = std::move(answer.model),
                             .usage = answer.usage});
          },
          [this, step](const error& why) { on_refusal(step, why); });
}

void workflow_state::on_answer(std::size_t step, step_answer answer) {
  tries_.erase(step);
  carry_out(run_->finish(step, std::move(answer), unix_ms()));
}

/// Where there is no place now the step waits for one, for some minutes.
void workflow_state::on_refusal(std::size_t step, const error& why) {
  std::uint32_t tries = ++tries_[step];
  if (why != ec::no_capacity || closing_ || tries >= limits::step_tries_max) {
    on_answer(step, {.error = describe_error(why)});
    return;
  }
  auto pause =
      std::min(limits::step_pause_min * (1 << std::min(tries - 1, 10U)), limits::step_pause_max);
  self_->delayed_send(self_, pause, caf::tick_atom_v, static_cast<std::uint64_t>(step));
}

/// Closes calls of models and ends programs; what was asked is answered all the same.
void workflow_state::close_all() {
  close_calls();
  for (std::size_t step : run_->under_way())
    if (is_of_agent(run_->order(step)))
      self_
          ->request(parts_.agents, caf::infinite,
                    cancel_chat{.conversation = run_->info().steps[step].conversation})
          .then([](const chat_cancelled&) {}, [](const error&) {});
}

void workflow_state::close_calls() {
  closing_ = true;
  for (std::size_t step : run_->under_way())
    if (!is_of_agent(run_->order(step)))
      self_->send(parts_.models, cancel_model{.call = call_of(step)});
}

// --- what clients may ask ------------------------------------------------------------------------

caf::result<workflow_info> workflow_state::on_cancel() {
  auto waits = self_->make_response_promise<workflow_info>();
  cancels_.push_back(waits);
  if (!closing_) {
    close_all();
    self_->delayed_send(self_, limits::cancel_wait_max, caf::timeout_atom_v);
    carry_out(run_->cancel(unix_ms()));
  }
  return waits;
}

/// Pauses or resumes.
caf::result<workflow_info>
workflow_state::on_change(effects (workflow_run::*change)(std::int64_t)) {
  if (run_->ended() || closing_)
    return fail(ec::conflict, "workflow: it is at its end");
  auto waits = self_->make_response_promise<workflow_info>();
  auto act_now = [this, change, waits] { carry_out((*run_.*change)(unix_ms()), {waits}); };
  if (started_)
    act_now();
  else
    early_.push_back(act_now);
  return waits;
}

/// Nothing more is recorded, so that the next server repeats what is cut short here. Its agents end
/// as interrupted, with all others.
caf::result<drained> workflow_state::on_drain() {
  close_calls();
  for (promise& each : cancels_)
    each.deliver(fail(ec::shutting_down, "the server ends before the workflow is cancelled"));
  cancels_.clear();
  self_->quit();
  return drained{};
}

workflow_actor::behavior_type
workflow_behavior(workflow_actor::stateful_pointer<workflow_state> self, workflows_parts parts,
                  workflows_actor owner, std::shared_ptr<workflow_run> run) {
  return state_of(self).make_behavior(self, std::move(parts), std::move(owner), std::move(*run));
}

} // namespace

workflow_actor spawn_workflow(caf::actor_system& system, workflows_parts parts,
                              workflows_actor owner, workflow_run run) {
  return system.spawn(workflow_behavior, std::move(parts), std::move(owner),
                      std::make_shared<workflow_run>(std::move(run)));
}

put_record head_record(const workflow_run& run) {
  return {
      .kind = workflow_records, .id = run.info().workflow, .seq = 0, .body = encode(run.head())};
}

put_record step_record(const workflow_run& run, std::size_t step) {
  return {.kind = workflow_records,
          .id = run.info().workflow,
          .seq = step + 1,
          .body = encode(run.info().steps[step])};
}

expected<workflow_run> read_run(const std::vector<put_record>& records, std::size_t at_once_max) {
  if (records.empty() || records.front().seq != 0)
    return fail(ec::not_found, "workflow: its first record is missing");
  auto head = decode<workflow_head>(records.front().body);
  if (!head)
    return fail(ec::store_failed, "workflow: its first record " + head.why().text());
  std::vector<step_info> steps;
  for (std::size_t i = 1; i < records.size() && records[i].seq == i; ++i) {
    auto step = decode<step_info>(records[i].body);
    if (!step)
      break;
    steps.push_back(std::move(*step));
  }
  return workflow_run{std::move(*head), std::move(steps), at_once_max};
}

} // namespace berth
