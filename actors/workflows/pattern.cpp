// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/pattern.hpp"

#include <algorithm>

namespace berth {

const step_info* run_view::find(std::string_view id) const {
  auto found = std::ranges::find_if(steps, [&](const step_info* each) { return each->id == id; });
  return found == steps.end() ? nullptr : *found;
}

bool run_view::completed(std::string_view id) const {
  const step_info* step = find(id);
  return step != nullptr && step->status == workflow_status::completed;
}

bool run_view::ended(std::string_view id) const {
  const step_info* step = find(id);
  return step != nullptr && is_terminal(step->status);
}

std::vector<remark> pattern::read(const run_view&, step_info&) const {
  return {};
}

const pattern& pattern_of(workflow_pattern which) {
  switch (which) {
  case workflow_pattern::routing:
    return routing_pattern();
  case workflow_pattern::parallelization:
    return parallel_pattern();
  case workflow_pattern::orchestration:
    return orchestration_pattern();
  case workflow_pattern::optimization:
    return optimization_pattern();
  case workflow_pattern::vm_execution:
    return execution_pattern();
  case workflow_pattern::prompt_chaining:
    break;
  }
  return chain_pattern();
}

std::string role_of(const run_workflow& request) {
  return request.role.empty() ? std::string{pattern_of(request.pattern).role()} : request.role;
}

std::string overall_role_of(const run_workflow& request) {
  return request.overall_role.empty() ? std::string{pattern_of(request.pattern).overall_role()}
                                      : request.overall_role;
}

} // namespace berth
