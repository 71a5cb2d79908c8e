// SPDX-License-Identifier: Apache-2.0
#include "actors/validator.hpp"

#include "actors/code_rules.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

namespace berth {

namespace {

class validator_state {
public:
  static constexpr const char* name = "berth.validator";

  validator_actor::behavior_type make_behavior(std::shared_ptr<const code_rules> rules) {
    rules_ = std::move(rules);
    return {
        [this](const berth::judge& request) {
          return rules_->judge(request.code, request.language);
        },
    };
  }

private:
  std::shared_ptr<const code_rules> rules_;
};

validator_actor::behavior_type validator(validator_actor::stateful_pointer<validator_state> self,
                                         std::shared_ptr<const code_rules> rules) {
  return state_of(self).make_behavior(std::move(rules));
}

} // namespace

validator_actor spawn_validator(caf::actor_system& system, const settings& values) {
  return system.spawn(validator, std::make_shared<const code_rules>(values.policy));
}

} // namespace berth
