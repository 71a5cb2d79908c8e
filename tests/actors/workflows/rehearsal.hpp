// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/workflow_run.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

/// A run of a workflow without any actor: the test plays everybody who is asked.
namespace berth::test {

inline role_list known_roles() {
  role_list made;
  for (const char* name :
       {"Default", "DevelopmentAgent", "SimpleTaskAgent", "ComplexTaskAgent", "OrchestratorAgent",
        "GeneratorAgent", "EvaluatorAgent", "BusinessAnalyst", "BackendArchitect", "ProductManager",
        "QAEngineer", "DevOpsEngineer", "ResearchScientist", "RustSystemDeveloper"}) {
    role_info role;
    role.name = name;
    role.description = std::string{"what "} + name + " is good at";
    made.roles.push_back(std::move(role));
  }
  made.default_role = "Default";
  return made;
}

class rehearsal {
public:
  explicit rehearsal(run_workflow request, std::size_t at_once_max = 16)
    : run_(head_of(std::move(request)), {}, at_once_max) {
    take(run_.start(known_roles(), ++clock_));
  }

  /// Ids of the steps that are under way.
  std::vector<std::string> asked() const {
    std::vector<std::string> ids;
    for (std::size_t place : run_.under_way())
      ids.push_back(run_.info().steps[place].id);
    return ids;
  }
  bool ended() const { return run_.ended(); }
  const workflow_info& info() const { return run_.info(); }
  workflow_run& run() { return run_; }

  /// How a step that is under way is asked.
  const step_order& order(const std::string& id) const { return run_.order(*place_of(id)); }
  const std::string& prompt(const std::string& id) const { return order(id).prompt; }

  rehearsal& answer(const std::string& id, const std::string& output) {
    step_answer made;
    made.output = output;
    made.usage = {.input_tokens = 10, .output_tokens = 2, .cost_usd = 0.5, .calls = 1};
    take(run_.finish(place_of(id).value(), made, ++clock_));
    return *this;
  }
  rehearsal& fail(const std::string& id, const std::string& why = "the model is away") {
    step_answer made;
    made.error = why;
    take(run_.finish(place_of(id).value(), made, ++clock_));
    return *this;
  }
  rehearsal& pause() { return take(run_.pause(++clock_)), *this; }
  rehearsal& resume() { return take(run_.resume(++clock_)), *this; }
  rehearsal& cancel() { return take(run_.cancel(++clock_)), *this; }
  rehearsal& end_now() { return take(run_.end_now(++clock_)), *this; }

  /// The server dies: what is on disk is all there is.
  rehearsal& restart() {
    run_ = workflow_run{recorded_head_, recorded_, 16}.taken_over();
    take(run_.start(known_roles(), ++clock_));
    return *this;
  }

  const step_info* step(const std::string& id) const {
    for (const step_info& each : run_.info().steps)
      if (each.id == id)
        return &each;
    return nullptr;
  }
  /// Texts of what was told of a kind.
  std::vector<std::string> told(progress_kind kind) const {
    std::vector<std::string> texts;
    for (const progress_event& each : events_)
      if (each.kind == kind)
        texts.push_back(each.text);
    return texts;
  }
  const std::vector<progress_event>& events() const { return events_; }

private:
  static workflow_head head_of(run_workflow request) {
    workflow_head made;
    made.info.workflow = "workflow_1";
    made.info.pattern = request.pattern;
    made.info.prompt = request.prompt;
    made.info.role = role_of(request);
    made.info.overall_role = overall_role_of(request);
    made.request = std::move(request);
    return made;
  }

  std::optional<std::size_t> place_of(const std::string& id) const {
    for (std::size_t place : run_.under_way())
      if (run_.info().steps[place].id == id)
        return place;
    return std::nullopt;
  }

  void take(workflow_run::effects done) {
    for (std::size_t place : done.steps) {
      if (recorded_.size() <= place)
        recorded_.resize(place + 1);
      recorded_[place] = run_.info().steps[place];
    }
    if (done.head)
      recorded_head_ = run_.head();
    events_.insert(events_.end(), done.events.begin(), done.events.end());
  }

  workflow_run run_;
  std::int64_t clock_ = 0;
  workflow_head recorded_head_;
  std::vector<step_info> recorded_;
  std::vector<progress_event> events_;
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace berth::test
