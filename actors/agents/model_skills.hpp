// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/agent_limits.hpp"
#include "messages/model.hpp"

#include <chrono>
#include <map>
#include <mutex>
#include <string>

namespace berth {

/// Which models turned out to know no tools. Shared by all agents, each in its own thread, so that
/// one of them finds it out for all. Forgotten after a while: a model may be replaced under its
/// name.
class model_skills {
public:
  using clock = std::chrono::steady_clock;

  bool knows_tools(const model_choice& model, clock::time_point now = clock::now()) const {
    std::lock_guard guard{mutex_};
    auto found = toolless_.find(name_of_model(model));
    return found == toolless_.end() || found->second + limits::toolless_time < now;
  }

  void learn_toolless(const model_choice& model, clock::time_point now = clock::now()) {
    std::lock_guard guard{mutex_};
    std::erase_if(toolless_,
                  [&](const auto& each) { return each.second + limits::toolless_time < now; });
    if (toolless_.size() < limits::toolless_models_max)
      toolless_[name_of_model(model)] = now;
  }

private:
  static std::string name_of_model(const model_choice& model) {
    return model.provider + " " + model.base_url + " " + model.model;
  }

  mutable std::mutex mutex_;
  std::map<std::string, clock::time_point> toolless_;
};

} // namespace berth
