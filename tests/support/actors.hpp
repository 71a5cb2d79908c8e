// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <caf/send.hpp>

#include <chrono>
#include <memory>
#include <optional>

namespace berth::test {

/// An actor system on simulated time, for tests that say what happens when.
class actors {
public:
  actors()
    : config_()
    , system_(config_.value) {}

  caf::actor_system& system() { return system_; }

  /// Delivers all messages that are under way.
  void settle() { scheduler().run(); }

  /// Lets time pass and delivers what became due.
  void pass(std::chrono::milliseconds time) {
    scheduler().advance_time(time);
    settle();
  }

  /// A question under way: asked now, answered when the system settled.
  template <class Reply>
  class question {
  public:
    bool answered() const { return state_->has_value(); }
    expected<Reply>& answer() { return **state_; }

  private:
    friend class actors;
    std::shared_ptr<std::optional<expected<Reply>>> state_ =
        std::make_shared<std::optional<expected<Reply>>>();
  };

  /// Asks an actor without waiting.
  template <class Reply, class Handle, class Request>
  question<Reply> ask(const Handle& handle, Request request) {
    question<Reply> asked;
    auto state = asked.state_;
    // CAF 0.17 wants an argument: without one it reads past an empty tuple.
    system_.spawn(
        [=](caf::event_based_actor* self, int) {
          self->request(handle, caf::infinite, request)
              .then([state](Reply& reply) { state->emplace(std::move(reply)); },
                    [state](error& why) { state->emplace(std::move(why)); });
        },
        0);
    settle();
    return asked;
  }

  /// Ends an actor.
  template <class Handle>
  void stop(const Handle& handle) {
    caf::anon_send_exit(handle, caf::exit_reason::user_shutdown);
    settle();
  }

private:
  struct testing_config {
    testing_config() {
      value.add_message_types<caf::id_block::berth_errors>();
      value.add_message_types<caf::id_block::berth_messages>();
      value.add_message_types<caf::id_block::berth_actors>();
      value.set("scheduler.policy", caf::atom("testing"));
    }
    caf::actor_system_config value;
  };

  caf::scheduler::test_coordinator& scheduler() {
    return static_cast<caf::scheduler::test_coordinator&>(system_.scheduler());
  }

  testing_config config_;
  caf::actor_system system_;
};

} // namespace berth::test
