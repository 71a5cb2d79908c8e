// SPDX-License-Identifier: Apache-2.0
#define CATCH_CONFIG_ENABLE_BENCHMARKING
#define CATCH_CONFIG_MAIN
#include "messages/codec.hpp"
#include "messages/types.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <catch2/catch.hpp>

namespace {

berth::run small_program() {
  return {.code = "print(1)", .language = "python", .agent_id = "agent-1"};
}

berth::outcome small_outcome() {
  berth::outcome ended;
  ended.job = "job-000000000001";
  ended.exit_code = 0;
  ended.stdout_data = {'1', '\n'};
  ended.stdout_bytes = 2;
  ended.language = "python";
  ended.machine_kind = "namespace";
  return ended;
}

/// Answers at once.
using echo_actor = caf::typed_actor<berth::on<berth::run>::reply<berth::outcome>>;

echo_actor::behavior_type echo(echo_actor::pointer, const berth::outcome& ended) {
  return {[ended](const berth::run&) { return ended; }};
}

} // namespace

TEST_CASE("messages are written and read") {
  auto program = small_program();
  auto ended = small_outcome();
  auto program_bytes = berth::encode(program);
  auto ended_bytes = berth::encode(ended);
  BENCHMARK("encode run") {
    return berth::encode(program).size();
  };
  BENCHMARK("decode run") {
    return static_cast<bool>(berth::decode<berth::run>(program_bytes));
  };
  BENCHMARK("encode outcome") {
    return berth::encode(ended).size();
  };
  BENCHMARK("decode outcome") {
    return static_cast<bool>(berth::decode<berth::outcome>(ended_bytes));
  };
  ended.stdout_data.assign(berth::limits::mib, 'x');
  auto large = berth::encode(ended);
  BENCHMARK("encode outcome with 1 MiB") {
    return berth::encode(ended).size();
  };
  BENCHMARK("decode outcome with 1 MiB") {
    return static_cast<bool>(berth::decode<berth::outcome>(large));
  };
}

TEST_CASE("an actor is asked and answers") {
  caf::actor_system_config config;
  config.add_message_types<caf::id_block::berth_errors>();
  config.add_message_types<caf::id_block::berth_messages>();
  config.set("scheduler.policy", caf::atom("sharing"));
  caf::actor_system system{config};
  auto asked = system.spawn(echo, small_outcome());
  caf::scoped_actor self{system};
  const auto program = small_program();
  BENCHMARK("request and answer") {
    int exit_code = -1;
    self->request(asked, caf::infinite, program)
        .receive([&](const berth::outcome& ended) { exit_code = *ended.exit_code; },
                 [](const caf::error&) {});
    return exit_code;
  };
  caf::anon_send_exit(asked, caf::exit_reason::user_shutdown);
}
