// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/workflows.hpp"

#include "actors/ids.hpp"
#include "actors/workflows/bounds.hpp"
#include "actors/workflows/reading.hpp"
#include "actors/workflows/request.hpp"
#include "actors/workflows/workflow.hpp"
#include "config/log.hpp"
#include "messages/codec.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

namespace berth {

namespace {

/// Bytes of a prompt or result as lists show it; all of it comes with the workflow itself.
constexpr std::size_t listed_text_bytes_max = 8 * limits::kib;

using promise = caf::typed_response_promise<workflow_info>;

/// A run that has not ended.
struct alive_run {
  workflow_actor who; // null: it is being recorded
  workflow_info info; // without steps
  /// `run` requests, answered when it ended.
  std::vector<promise> runners;
  /// Other requests that WORKFLOW has not answered yet.
  std::map<std::uint64_t, promise> asked;
};

workflow_info listed(workflow_info from) {
  from.steps.clear();
  from.prompt = reading::shortened(from.prompt, listed_text_bytes_max);
  from.result = reading::shortened(from.result, listed_text_bytes_max);
  return from;
}

/// WORKFLOWS: all runs.
class workflows_state {
public:
  static constexpr const char* name = "berth.workflows";

  workflows_actor::behavior_type make_behavior(workflows_actor::pointer self,
                                               workflows_parts parts);

private:
  // What a former server left.
  void load();
  void on_heads(const record_page& page);
  void take_up(const std::string& id);
  void on_past(const std::string& id, const record_page& page);
  void interrupt(workflow_run& run);
  void past_done();

  caf::result<workflow_info> on_start(const run_workflow& request, bool until_end);
  void begin(const run_workflow& request, bool until_end, promise waits);
  void on_recorded(const std::string& id, workflow_run run, bool until_end, promise waits);
  void spawn(const std::string& id, workflow_run run);
  caf::result<workflow_info> on_get(const std::string& id);
  caf::result<workflow_list> on_list(const list_workflows& request);
  workflow_list list(const list_workflows& request) const;
  template <class Request>
  caf::result<workflow_info> on_change(const Request& request);
  caf::result<workflow_info> on_resume(const resume_workflow& request);
  void on_news(workflow_info& info);
  caf::result<drained> on_drain();
  void on_down(const caf::actor_addr& who);

  promise promise_when_loaded(std::function<void(promise)> act);
  void read_ended(const std::string& id, promise waits);
  template <class Request>
  void ask_alive(const std::string& id, const Request& request, promise waits);
  void revive(const std::string& id, promise waits);
  void end(const std::string& id, const workflow_info& info);
  void keep_ended(workflow_info info);
  void forget(const std::string& id);
  error not_found(const std::string& id) const;
  error refusal_now() const;

  workflows_actor::pointer self_ = nullptr;
  workflows_parts parts_;
  std::map<std::string, alive_run> alive_;
  std::map<std::string, workflow_info> ended_; // as lists show them
  std::vector<std::function<void()>> early_;   // what was asked before all was loaded
  std::size_t loading_ = 1;                    // questions about the past that are open
  std::uint64_t last_ticket_ = 0;
  bool is_draining_ = false;
};

workflows_actor::behavior_type workflows_state::make_behavior(workflows_actor::pointer self,
                                                              workflows_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down.source); });
  load();
  return {
      [this](const run_workflow& x) { return on_start(x, true); },
      [this](const submit_workflow& x) { return on_start(x, false); },
      [this](const get_workflow& x) { return on_get(x.workflow); },
      [this](const list_workflows& x) { return on_list(x); },
      [this](const cancel_workflow& x) { return on_change(x); },
      [this](const pause_workflow& x) { return on_change(x); },
      [this](const resume_workflow& x) { return on_resume(x); },
      [this](workflow_info& x) { on_news(x); },
      [this](const drain&) { return on_drain(); },
  };
}

error workflows_state::not_found(const std::string& id) const {
  return fail(ec::not_found, "workflow: there is no workflow " + id);
}

/// Why nothing can begin now; nothing: it can.
error workflows_state::refusal_now() const {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains and takes nothing new");
  if (alive_.size() >= parts_.config->workflows.alive_max)
    return caf::make_error(ec::no_capacity,
                           std::to_string(alive_.size()) + " workflows run already",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  return {};
}

// --- what a former server left -------------------------------------------------------------------

void workflows_state::load() {
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records})
      .then([this](const record_page& page) { on_heads(page); },
            [this](const error& why) {
              log::error("workflows", "cannot read what a former server left",
                         {{"why", describe_error(why)}});
              past_done();
            });
}

void workflows_state::on_heads(const record_page& page) {
  if (page.damaged > 0)
    log::error("workflows", "records are damaged on disk",
               {{"records", std::to_string(page.damaged)}});
  // Newest first: they are kept in the order in which they came.
  for (auto each = page.records.rbegin(); each != page.records.rend(); ++each) {
    auto head = decode<workflow_head>(each->body);
    if (!head) {
      log::error("workflows", "a record cannot be read",
                 {{"workflow", each->id}, {"why", head.why().text()}});
      continue;
    }
    if (is_terminal(head->info.status))
      keep_ended(std::move(head->info));
    else
      take_up(each->id);
  }
  past_done();
}

void workflows_state::take_up(const std::string& id) {
  ++loading_;
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records, .id = id})
      .then([this, id](const record_page& page) { on_past(id, page); },
            [this, id](const error& why) {
              log::error("workflows", "cannot go on",
                         {{"workflow", id}, {"why", describe_error(why)}});
              past_done();
            });
}

void workflows_state::on_past(const std::string& id, const record_page& page) {
  auto run = read_run(page.records, parts_.config->workflows.branches_max);
  if (!run) {
    log::error("workflows", "cannot go on",
               {{"workflow", id}, {"why", describe_error(run.error())}});
    past_done();
    return;
  }
  if (is_draining_) { // it stays as it is
    past_done();
    return;
  }
  bool goes_on = parts_.config->workflows.on_restart == "resume"
                 || run->info().status == workflow_status::paused;
  log::info("workflows", goes_on ? "goes on" : "was interrupted", {{"workflow", id}});
  if (goes_on) {
    spawn(id, run->taken_over());
    past_done();
    return;
  }
  interrupt(*run);
  keep_ended(run->info());
  past_done();
}

/// Marks, records and tells it.
void workflows_state::interrupt(workflow_run& run) {
  auto done = run.interrupt(unix_ms());
  for (const progress_event& each : done.events)
    self_->send(parts_.progress, note_progress{each});
  auto record = [&](put_record made) {
    self_->request(parts_.records, caf::infinite, std::move(made))
        .then([](const recorded&) {},
              [id = run.info().workflow](const error& why) {
                log::error("workflows", "cannot be recorded",
                           {{"workflow", id}, {"why", describe_error(why)}});
              });
  };
  for (std::size_t step : done.steps)
    record(step_record(run, step));
  if (done.head)
    record(head_record(run));
}

void workflows_state::past_done() {
  if (--loading_ > 0)
    return;
  for (const auto& each : std::exchange(early_, {}))
    each();
}

/// What is asked waits until all is known.
promise workflows_state::promise_when_loaded(std::function<void(promise)> act) {
  auto waits = self_->make_response_promise<workflow_info>();
  if (loading_ == 0)
    act(waits);
  else
    early_.push_back([act = std::move(act), waits] { act(waits); });
  return waits;
}

// --- beginning -----------------------------------------------------------------------------------

caf::result<workflow_info> workflows_state::on_start(const run_workflow& request, bool until_end) {
  if (error why = check_workflow(request))
    return why;
  return promise_when_loaded(
      [this, request, until_end](promise waits) { begin(request, until_end, std::move(waits)); });
}

void workflows_state::begin(const run_workflow& request, bool until_end, promise waits) {
  if (error why = refusal_now()) {
    waits.deliver(std::move(why));
    return;
  }
  std::string id = request.workflow.empty() ? new_workflow_id() : request.workflow;
  if (alive_.contains(id) || ended_.contains(id)) {
    waits.deliver(fail(ec::already_exists, "workflow: " + id + " exists"));
    return;
  }
  workflow_head head;
  head.request = request;
  head.info.workflow = id;
  head.info.pattern = request.pattern;
  head.info.prompt = request.prompt;
  head.info.role = role_of(request);
  head.info.overall_role = overall_role_of(request);
  head.info.started_at_ms = unix_ms();
  alive_[id].info = listed(head.info);
  auto run = std::make_shared<workflow_run>(std::move(head), std::vector<step_info>{},
                                            parts_.config->workflows.branches_max);
  self_->request(parts_.records, caf::infinite, head_record(*run))
      .then([this, id, run, until_end,
             waits](const recorded&) { on_recorded(id, std::move(*run), until_end, waits); },
            [this, id, waits](error& why) mutable {
              alive_.erase(id);
              waits.deliver(std::move(why));
            });
}

void workflows_state::on_recorded(const std::string& id, workflow_run run, bool until_end,
                                  promise waits) {
  if (is_draining_) { // it is on disk: the next server begins it
    alive_.erase(id);
    if (until_end)
      waits.deliver(fail(ec::shutting_down, "the server ends; " + id + " goes on with the next"));
    else
      waits.deliver(run.info());
    return;
  }
  if (until_end)
    alive_[id].runners.push_back(std::move(waits));
  else
    waits.deliver(run.info());
  spawn(id, std::move(run));
}

void workflows_state::spawn(const std::string& id, workflow_run run) {
  alive_run& entry = alive_[id];
  entry.info = listed(run.info());
  entry.who = spawn_workflow(self_->system(), parts_, self_, std::move(run));
  self_->monitor(entry.who);
}

// --- asking --------------------------------------------------------------------------------------

caf::result<workflow_info> workflows_state::on_get(const std::string& id) {
  return promise_when_loaded([this, id](promise waits) {
    auto found = alive_.find(id);
    if (found != alive_.end() && found->second.who)
      ask_alive(id, get_workflow{id}, std::move(waits));
    else if (found != alive_.end())
      waits.deliver(found->second.info);
    else if (ended_.contains(id))
      read_ended(id, std::move(waits));
    else
      waits.deliver(not_found(id));
  });
}

/// With its steps, from the records.
void workflows_state::read_ended(const std::string& id, promise waits) {
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records, .id = id})
      .then(
          [waits](const record_page& page) mutable {
            auto run = read_run(page.records, 1);
            if (run)
              waits.deliver(run->info());
            else
              waits.deliver(run.error());
          },
          [waits](error& why) mutable { waits.deliver(std::move(why)); });
}

/// Where its WORKFLOW ends meanwhile, end() answers.
template <class Request>
void workflows_state::ask_alive(const std::string& id, const Request& request, promise waits) {
  alive_run& entry = alive_.at(id);
  std::uint64_t ticket = ++last_ticket_;
  entry.asked.emplace(ticket, std::move(waits));
  auto take = [this, id, ticket]() -> std::optional<promise> {
    auto found = alive_.find(id);
    if (found == alive_.end())
      return std::nullopt;
    auto node = found->second.asked.extract(ticket);
    return node.empty() ? std::nullopt : std::optional{std::move(node.mapped())};
  };
  self_->request(entry.who, caf::infinite, request)
      .then(
          [take](workflow_info& info) {
            if (auto left = take())
              left->deliver(std::move(info));
          },
          [take](error& why) {
            // One that is down has told its end before, or on_down() tells it.
            if (why == caf::sec::request_receiver_down)
              return;
            if (auto left = take())
              left->deliver(std::move(why));
          });
}

caf::result<workflow_list> workflows_state::on_list(const list_workflows& request) {
  if (request.limit < 1 || request.limit > 1000)
    return fail(ec::malformed, "limit: must be from 1 to 1000");
  auto waits = self_->make_response_promise<workflow_list>();
  auto answer = [this, request, waits]() mutable { waits.deliver(list(request)); };
  if (loading_ == 0)
    answer();
  else
    early_.push_back(answer);
  return waits;
}

workflow_list workflows_state::list(const list_workflows& request) const {
  workflow_list all;
  for (const auto& [id, run] : alive_)
    all.workflows.push_back(run.info);
  if (!request.alive_only)
    for (const auto& [id, info] : ended_)
      all.workflows.push_back(info);
  std::ranges::sort(all.workflows, std::ranges::greater{}, [](const workflow_info& each) {
    return std::pair{each.started_at_ms, each.workflow};
  });
  if (all.workflows.size() > request.limit)
    all.workflows.resize(request.limit);
  return all;
}

/// Cancels or pauses.
template <class Request>
caf::result<workflow_info> workflows_state::on_change(const Request& request) {
  return promise_when_loaded([this, request](promise waits) {
    const std::string& id = request.workflow;
    auto found = alive_.find(id);
    if (found != alive_.end() && found->second.who)
      ask_alive(id, request, std::move(waits));
    else if (found != alive_.end())
      waits.deliver(fail(ec::conflict, "workflow: it is being recorded"));
    else if (!ended_.contains(id))
      waits.deliver(not_found(id));
    else if (std::is_same_v<Request, cancel_workflow>)
      read_ended(id, std::move(waits)); // too late, and it says how it ended
    else
      waits.deliver(
          fail(ec::conflict, "workflow: it is " + std::string{name_of(ended_.at(id).status)}));
  });
}

caf::result<workflow_info> workflows_state::on_resume(const resume_workflow& request) {
  return promise_when_loaded([this, request](promise waits) {
    const std::string& id = request.workflow;
    auto found = ended_.find(id);
    if (alive_.contains(id) && alive_.at(id).who)
      ask_alive(id, request, std::move(waits));
    else if (alive_.contains(id))
      waits.deliver(fail(ec::conflict, "workflow: it is being recorded"));
    else if (found == ended_.end())
      waits.deliver(not_found(id));
    else if (found->second.status != workflow_status::interrupted)
      waits.deliver(
          fail(ec::conflict, "workflow: it is " + std::string{name_of(found->second.status)}));
    else if (error why = refusal_now())
      waits.deliver(std::move(why));
    else
      revive(id, std::move(waits));
  });
}

/// Goes on with one that was interrupted.
void workflows_state::revive(const std::string& id, promise waits) {
  auto entry = ended_.extract(id);
  alive_[id].info = entry.mapped();
  auto give_back = [this, id, info = entry.mapped(), waits](error why) mutable {
    alive_.erase(id);
    ended_[id] = info;
    waits.deliver(std::move(why));
  };
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records, .id = id})
      .then(
          [this, id, waits, give_back](const record_page& page) mutable {
            auto run = read_run(page.records, parts_.config->workflows.branches_max);
            if (!run)
              return give_back(run.error());
            auto again = std::make_shared<workflow_run>(run->taken_over());
            self_->request(parts_.records, caf::infinite, head_record(*again))
                .then([this, id, again, waits](
                          const recorded&) { on_recorded(id, std::move(*again), false, waits); },
                      [give_back](error& wrong) mutable { give_back(std::move(wrong)); });
          },
          [give_back](error& why) mutable { give_back(std::move(why)); });
}

// --- news and ends -------------------------------------------------------------------------------

void workflows_state::on_news(workflow_info& info) {
  auto found = alive_.find(info.workflow);
  if (found == alive_.end())
    return;
  if (is_terminal(info.status))
    end(info.workflow, info);
  else
    found->second.info = listed(std::move(info));
}

void workflows_state::end(const std::string& id, const workflow_info& info) {
  auto node = alive_.extract(id);
  if (node.empty())
    return;
  for (promise& each : node.mapped().runners)
    each.deliver(info);
  for (auto& [ticket, each] : node.mapped().asked)
    each.deliver(info);
  if (node.mapped().who)
    self_->demonitor(node.mapped().who.address());
  keep_ended(info);
}

void workflows_state::keep_ended(workflow_info info) {
  std::string id = info.workflow;
  ended_.insert_or_assign(id, listed(std::move(info)));
  while (ended_.size() > parts_.config->workflows.kept_max) {
    auto oldest = std::ranges::min_element(ended_, {}, [](const auto& each) {
      return std::pair{each.second.ended_at_ms, each.first};
    });
    forget(std::string{oldest->first});
  }
}

/// With the conversations of its steps.
void workflows_state::forget(const std::string& id) {
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records, .id = id})
      .then(
          [this, id](const record_page& page) {
            if (auto run = read_run(page.records, 1))
              for (const step_info& step : run->info().steps)
                if (!step.conversation.empty())
                  self_
                      ->request(parts_.agents, caf::infinite, close_conversation{step.conversation})
                      .then([](const conversation_closed&) {}, [](const error&) {});
            self_->send(parts_.records, drop_records{.kind = workflow_records, .id = id});
          },
          [](const error& why) {
            log::warn("workflows", "cannot forget", {{"why", describe_error(why)}});
          });
  ended_.erase(id);
}

/// A WORKFLOW died of a fault of ours: its run is at its end, and who waits hears so.
void workflows_state::on_down(const caf::actor_addr& who) {
  auto found = std::ranges::find_if(alive_, [&](const auto& each) {
    return each.second.who && each.second.who.address() == who;
  });
  if (found == alive_.end())
    return;
  std::string id = found->first;
  log::error("workflows", "a workflow's actor died", {{"workflow", id}});
  auto end_as = [this, id](workflow_info info) {
    if (!is_terminal(info.status))
      info.status = workflow_status::interrupted;
    end(id, info);
  };
  workflow_info known = found->second.info;
  self_->request(parts_.records, caf::infinite, get_records{.kind = workflow_records, .id = id})
      .then(
          [this, known, end_as](const record_page& page) {
            auto run = read_run(page.records, 1);
            if (run)
              interrupt(*run);
            end_as(run ? run->info() : known);
          },
          [known, end_as](const error&) { end_as(known); });
}

/// What runs is on disk as far as it came; the next server goes on with it.
caf::result<drained> workflows_state::on_drain() {
  is_draining_ = true;
  auto waits = self_->make_response_promise<drained>();
  auto left = std::make_shared<std::size_t>(1);
  auto one_less = [left, waits]() mutable {
    if (--*left == 0)
      waits.deliver(drained{});
  };
  for (auto& [id, run] : std::exchange(alive_, {})) {
    error why = fail(ec::shutting_down, "the server ends; " + id + " goes on with the next");
    for (promise each : run.runners)
      each.deliver(why);
    for (auto [ticket, each] : run.asked)
      each.deliver(why);
    if (!run.who)
      continue;
    ++*left;
    self_->demonitor(run.who.address());
    self_->request(run.who, caf::infinite, drain{})
        .then([one_less](const drained&) mutable { one_less(); },
              [one_less](const error&) mutable { one_less(); });
  }
  one_less();
  return waits;
}

workflows_actor::behavior_type
workflows_behavior(workflows_actor::stateful_pointer<workflows_state> self, workflows_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

workflows_actor spawn_workflows(caf::actor_system& system, workflows_parts parts) {
  return system.spawn(workflows_behavior, std::move(parts));
}

} // namespace berth
