// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/workflow_run.hpp"

#include "actors/agents/turn.hpp"
#include "actors/workflows/bounds.hpp"
#include "actors/workflows/reading.hpp"
#include "actors/workflows/stand_in.hpp"

#include <algorithm>

namespace berth {

namespace {

/// A program's output as a step's record shows it.
void shorten(bytes& output) {
  if (output.size() <= limits::act_text_bytes_max)
    return;
  std::string kept = reading::shortened({output.data(), output.size()}, limits::act_text_bytes_max);
  output.assign(kept.begin(), kept.end());
}

/// What an agent did, within bounds; all of it is in its conversation and in the history of jobs.
std::vector<agent_act> shown(std::vector<agent_act> acts) {
  if (acts.size() > limits::step_acts_max)
    acts.erase(acts.begin(), acts.end() - static_cast<std::ptrdiff_t>(limits::step_acts_max));
  for (agent_act& each : acts) {
    each.code = reading::shortened(each.code, limits::act_text_bytes_max);
    each.told = reading::shortened(each.told, limits::act_text_bytes_max);
    if (each.ended) {
      shorten(each.ended->stdout_data);
      shorten(each.ended->stderr_data);
    }
  }
  return acts;
}

/// A step id as a part of a conversation's: letters, digits, - and _.
std::string as_name(std::string_view id, std::size_t place) {
  std::string made;
  bool changed = id.size() > 32;
  for (char c : id.substr(0, 32)) {
    bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
                || c == '-' || c == '_' || c == '.';
    made += fits ? c : '-';
    changed = changed || !fits;
  }
  return changed ? made + "." + std::to_string(place) : made;
}

/// The work of a step that a former server began is lost.
bool is_lost(const step_info& step) {
  return !is_terminal(step.status) || step.status == workflow_status::interrupted;
}

} // namespace

workflow_run::workflow_run(workflow_head head, std::vector<step_info> steps,
                           std::size_t at_once_max)
  : request_(std::move(head.request))
  , info_(std::move(head.info))
  , pattern_(&pattern_of(request_.pattern))
  , at_once_max_(at_once_max) {
  info_.steps = std::move(steps);
  refresh(info_.steps.size() + 1);
}

workflow_head workflow_run::head() const {
  workflow_head made;
  made.request = request_;
  const workflow_info& from = info_;
  made.info = {.workflow = from.workflow,
               .pattern = from.pattern,
               .status = from.status,
               .progress = from.progress,
               .current_step = from.current_step,
               .prompt = from.prompt,
               .role = from.role,
               .overall_role = from.overall_role,
               .steps = {},
               .result = from.result,
               .chosen = from.chosen,
               .error = from.error,
               .usage = from.usage,
               .started_at_ms = from.started_at_ms,
               .ended_at_ms = from.ended_at_ms,
               .resumed = from.resumed,
               .steps_total = from.steps_total};
  return made;
}

workflow_run workflow_run::taken_over() const {
  workflow_run made = *this;
  made.info_.resumed += 1;
  made.info_.ended_at_ms = 0;
  made.info_.error.clear();
  if (made.info_.status == workflow_status::interrupted)
    made.info_.status = workflow_status::running;
  return made;
}

std::vector<std::size_t> workflow_run::under_way() const {
  std::vector<std::size_t> places;
  for (const auto& [place, order] : orders_)
    places.push_back(place);
  return places;
}

workflow_run::effects workflow_run::start(role_list roles, std::int64_t now_ms) {
  effects done;
  roles_ = std::move(roles);
  for (step_info& each : info_.steps)
    if (is_lost(each))
      each.status = workflow_status::pending;
  if (info_.status == workflow_status::paused)
    tell(done, progress_kind::paused, "", "", "", info_.resumed);
  else if (info_.resumed > 0)
    tell(done, progress_kind::resumed, "", "", "goes on from its last finished step",
         info_.resumed);
  else
    tell(done, progress_kind::started, "", std::string{name_of(info_.pattern)}, info_.prompt);
  if (info_.status != workflow_status::paused)
    info_.status = workflow_status::running;
  done.head = true;
  advance(done, now_ms);
  return done;
}

workflow_run::effects workflow_run::finish(std::size_t place, step_answer answer,
                                           std::int64_t now_ms) {
  effects done;
  if (ended() || !orders_.contains(place))
    return done;
  step_info& step = info_.steps[place];
  step.output = reading::shortened(answer.output, limits::step_output_bytes_max);
  step.error = reading::shortened(answer.error, limits::reason_bytes_max);
  step.model = std::move(answer.model);
  step.session = std::move(answer.session);
  step.usage = answer.usage;
  step.acts = shown(std::move(answer.acts));
  // What a cancelled agent had said until then is no output.
  bool gave_nothing = !step.error.empty() && (step.output.empty() || cancelling_);
  if (gave_nothing)
    step.status = cancelling_ ? workflow_status::cancelled : workflow_status::failed;
  else
    step.status = workflow_status::completed;
  if (!gave_nothing && !step.error.empty())
    tell(done, progress_kind::warning, step.id, step.name, step.error);
  close_step(done, place, now_ms);
  advance(done, now_ms);
  return done;
}

workflow_run::effects workflow_run::pause(std::int64_t) {
  effects done;
  if (info_.status != workflow_status::running || cancelling_)
    return done;
  info_.status = workflow_status::paused;
  done.head = true;
  tell(done, progress_kind::paused, "", "", "");
  return done;
}

workflow_run::effects workflow_run::resume(std::int64_t now_ms) {
  effects done;
  if (info_.status != workflow_status::paused || cancelling_)
    return done;
  info_.status = workflow_status::running;
  done.head = true;
  tell(done, progress_kind::resumed, "", "", "");
  advance(done, now_ms);
  return done;
}

workflow_run::effects workflow_run::cancel(std::int64_t now_ms) {
  effects done;
  if (ended())
    return done;
  cancelling_ = true;
  advance(done, now_ms);
  return done;
}

workflow_run::effects workflow_run::end_now(std::int64_t now_ms) {
  effects done;
  if (ended())
    return done;
  for (std::size_t place : under_way()) {
    info_.steps[place].status = workflow_status::cancelled;
    info_.steps[place].error = "the workflow was cancelled";
    close_step(done, place, now_ms);
  }
  cancelling_ = true;
  advance(done, now_ms);
  return done;
}

workflow_run::effects workflow_run::give_up(const std::string& why, std::int64_t now_ms) {
  effects done;
  if (ended())
    return done;
  for (std::size_t place : under_way()) {
    info_.steps[place].status = workflow_status::failed;
    info_.steps[place].error = why;
    close_step(done, place, now_ms);
  }
  end(done, {.status = workflow_status::failed, .error = why}, now_ms);
  return done;
}

workflow_run::effects workflow_run::interrupt(std::int64_t now_ms) {
  effects done;
  if (ended())
    return done;
  for (std::size_t i = 0; i < info_.steps.size(); ++i) {
    step_info& each = info_.steps[i];
    if (is_terminal(each.status))
      continue;
    each.status = workflow_status::interrupted;
    each.ended_at_ms = now_ms;
    done.steps.insert(i);
  }
  orders_.clear();
  info_.status = workflow_status::interrupted;
  info_.error = "the server ended while it ran";
  info_.ended_at_ms = now_ms;
  info_.current_step.clear();
  done.head = true;
  tell(done, progress_kind::ended, "", std::string{name_of(info_.status)}, info_.error);
  return done;
}

/// Begins what may begin, takes what is given, and ends what is at its end.
void workflow_run::advance(effects& done, std::int64_t now_ms) {
  if (ended())
    return;
  if (cancelling_) {
    if (orders_.empty())
      end(done, {.status = workflow_status::cancelled, .error = "the workflow was cancelled"},
          now_ms);
    return;
  }
  for (bool moved = true; moved;) {
    std::vector<const step_info*> seen;
    for (const step_info& each : info_.steps)
      if (each.status != workflow_status::pending)
        seen.push_back(&each);
    outlook ahead = pattern_->look({request_, seen, roles_.roles});
    refresh(ahead.steps_expected);
    info_.steps_total = ahead.is_exact ? static_cast<std::uint32_t>(ahead.steps_expected) : 0;
    if (ahead.end && orders_.empty())
      return end(done, *ahead.end, now_ms);
    bool stuck = ahead.start.empty() && orders_.empty();
    if (stuck || info_.steps.size() > limits::workflow_steps_max)
      return end(done,
                 {.status = workflow_status::failed,
                  .error = stuck ? "nothing is left to do and there is no result"
                                 : "more steps than a workflow may have"},
                 now_ms);
    if (info_.status == workflow_status::paused)
      return;
    moved = begin_what_may(done, ahead.start, now_ms);
  }
}

/// True: a step was given, so the pattern has to look again.
bool workflow_run::begin_what_may(effects& done, const std::vector<step_order>& orders,
                                  std::int64_t now_ms) {
  bool given = false;
  for (const step_order& each : orders) {
    bool is_given = each.how == asking::given;
    if (!is_given && orders_.size() >= at_once_max_)
      continue;
    given = given || is_given;
    begin(done, each, now_ms);
  }
  refresh(info_.steps_total);
  return given;
}

void workflow_run::begin(effects& done, step_order order, std::int64_t now_ms) {
  auto lost = std::ranges::find_if(info_.steps, [&](const step_info& each) {
    return each.id == order.id && each.status == workflow_status::pending;
  });
  if (lost == info_.steps.end())
    lost = info_.steps.insert(lost, step_info{});
  auto place = static_cast<std::size_t>(lost - info_.steps.begin());
  step_info& step = *lost;
  step.id = order.id;
  step.name = order.name.empty() ? order.id : order.name;
  step.kind = order.kind;
  step.role = order.role.empty() ? "" : cast(done, order);
  order.role = step.role;
  step.status = workflow_status::running;
  step.prompt = reading::shortened(order.prompt, limits::step_prompt_shown_bytes_max);
  step.depends_on = order.depends_on;
  step.reason = reading::shortened(order.reason, limits::reason_bytes_max);
  step.attempt += 1;
  step.started_at_ms = now_ms;
  step.ended_at_ms = 0;
  if (!step.conversation.empty())
    done.abandoned.push_back(step.conversation);
  bool talks = order.how == asking::agent || order.how == asking::program;
  step.conversation = talks ? conversation_of(step) : "";
  done.steps.insert(place);
  tell(done, progress_kind::step_started, step.id, step.name, step.role, step.attempt);
  if (order.how == asking::given) {
    take_given(done, place, order, now_ms);
    return;
  }
  done.begun.push_back(place);
  orders_[place] = std::move(order);
}

void workflow_run::take_given(effects& done, std::size_t place, const step_order& order,
                              std::int64_t now_ms) {
  step_info& step = info_.steps[place];
  step.output = order.output;
  step.error = order.error;
  step.status = order.status;
  close_step(done, place, now_ms);
}

void workflow_run::close_step(effects& done, std::size_t place, std::int64_t now_ms) {
  orders_.erase(place);
  step_info& step = info_.steps[place];
  step.ended_at_ms = now_ms;
  std::vector<remark> remarks;
  if (step.status == workflow_status::completed || step.status == workflow_status::failed) {
    std::vector<const step_info*> others;
    for (const step_info& each : info_.steps)
      if (&each != &step && each.status != workflow_status::pending)
        others.push_back(&each);
    remarks = pattern_->read({request_, others, roles_.roles}, step);
  }
  refresh(info_.steps_total);
  done.steps.insert(place);
  std::string text = step.output.empty() ? step.error : step.output;
  tell(done, progress_kind::step_ended, step.id, std::string{name_of(step.status)}, text,
       step.attempt);
  for (const remark& each : remarks)
    tell(done, each.kind, each.step, step.name, each.text);
}

void workflow_run::end(effects& done, const ending& how, std::int64_t now_ms) {
  // What a former server began and no pattern asked for again is not needed.
  for (std::size_t i = 0; i < info_.steps.size(); ++i) {
    step_info& each = info_.steps[i];
    if (is_terminal(each.status))
      continue;
    each.status = workflow_status::skipped;
    each.ended_at_ms = now_ms;
    done.steps.insert(i);
  }
  if (!how.decision.empty())
    tell(done, progress_kind::decision, how.chosen, "", how.decision);
  info_.status = how.status;
  info_.result = how.result;
  info_.chosen = how.chosen;
  info_.error = how.error;
  info_.ended_at_ms = now_ms;
  info_.current_step.clear();
  info_.steps_total = static_cast<std::uint32_t>(info_.steps.size());
  if (how.status == workflow_status::completed)
    info_.progress = 100;
  done.head = true;
  tell(done, progress_kind::ended, "", std::string{name_of(how.status)},
       how.error.empty() ? how.result : how.error);
}

/// What is summed up of the steps. 0: nobody knows how many are expected.
void workflow_run::refresh(std::size_t steps_expected) {
  std::size_t ended_steps = 0;
  info_.usage = {};
  info_.current_step.clear();
  for (const step_info& each : info_.steps) {
    add(info_.usage, each.usage);
    ended_steps += is_terminal(each.status) ? 1 : 0;
    if (each.status == workflow_status::running && info_.current_step.empty())
      info_.current_step = each.name;
  }
  if (steps_expected == 0)
    return;
  double share = static_cast<double>(ended_steps)
                 / static_cast<double>(std::max(steps_expected, ended_steps + 1));
  info_.progress = std::max(info_.progress, 100.0 * share);
}

/// The role that really does a step; that another one was wanted is told once.
std::string workflow_run::cast(effects& done, const step_order& order) {
  bool is_overall = order.role == overall_role_of(request_);
  found_role found = find_or_stand_in(roles_, order.role,
                                      is_overall ? pattern_->overall_role() : pattern_->role());
  if (!found.itself && stand_ins_told_.insert(order.role).second)
    tell(done, progress_kind::warning, order.id, order.name,
         "the role " + order.role + " is not configured; " + found.name + " stands in for it");
  return found.name;
}

/// A repeated step begins anew, in a conversation and on a machine of its own: what the lost
/// attempt left there is half done.
std::string workflow_run::conversation_of(const step_info& step) const {
  auto place = static_cast<std::size_t>(&step - info_.steps.data());
  std::string made = info_.workflow + "." + as_name(step.id, place);
  return step.attempt > 1 ? made + ".r" + std::to_string(step.attempt) : made;
}

void workflow_run::tell(effects& done, progress_kind kind, const std::string& step,
                        std::string name, const std::string& text, std::uint32_t number) const {
  progress_event event;
  event.id = info_.workflow;
  event.kind = kind;
  event.step = step;
  event.name = std::move(name);
  event.text = reading::shortened(text, limits::event_text_bytes_max);
  event.number = number;
  event.progress = info_.progress;
  event.steps_total = info_.steps_total;
  event.usage = info_.usage;
  done.events.push_back(std::move(event));
}

} // namespace berth
