// SPDX-License-Identifier: Apache-2.0
#include "bridge/porter.hpp"

#include <caf/actor_system.hpp>
#include <caf/behavior.hpp>

namespace berth {

namespace {

caf::behavior porter_behavior(caf::event_based_actor* self) {
  return {[self](const porter_task& task) { task.work(self); }};
}

} // namespace

porter::porter(caf::actor_system& system, gateway_actor gateway)
  : gateway_(std::move(gateway))
  , actor_(system.spawn(porter_behavior)) {}

porter::~porter() {
  caf::anon_send_exit(actor_, caf::exit_reason::user_shutdown);
}

} // namespace berth
