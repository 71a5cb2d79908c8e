// SPDX-License-Identifier: Apache-2.0
#include "bridge/porter.hpp"

#include <caf/actor_system.hpp>
#include <caf/behavior.hpp>

namespace berth {

namespace {

/// A class rather than a function: CAF 0.17.6 binds a null reference when a function is spawned
/// without arguments.
class porter_actor : public caf::event_based_actor {
public:
  explicit porter_actor(caf::actor_config& config)
    : caf::event_based_actor(config) {}

  caf::behavior make_behavior() override {
    return {[this](const porter_task& task) { task.work(this); }};
  }
};

} // namespace

porter::porter(caf::actor_system& system, gateway_actor gateway)
  : gateway_(std::move(gateway))
  , actor_(system.spawn<porter_actor>()) {}

porter::~porter() {
  caf::anon_send_exit(actor_, caf::exit_reason::user_shutdown);
}

} // namespace berth
