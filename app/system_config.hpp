// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"

#include <caf/actor_system_config.hpp>

#include <algorithm>
#include <cstddef>
#include <thread>

namespace berth {

/// CAF as Berth uses it: workers that sleep when idle, and fair shares of them.
class system_config : public caf::actor_system_config {
public:
  system_config() {
    add_message_types<caf::id_block::berth_errors>();
    add_message_types<caf::id_block::berth_messages>();
    add_message_types<caf::id_block::berth_actors>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::max<std::size_t>(2, std::thread::hardware_concurrency()));
    set("scheduler.max-throughput", std::size_t{100});
  }
};

} // namespace berth
