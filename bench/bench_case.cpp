// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

namespace berth::bench {

server bench_context::start_server(json config) {
  json all{{"kind", kind_}};
  all.merge_patch(config);
  return server{sockets, executable_, all};
}

void bench_context::stop_server(server& running) {
  if (!results.has_fact("isolation") && running.health().machine_kind != "instant") {
    results.fact("kind", running.health().machine_kind);
    results.fact("isolation", running.health().isolation);
  }
  for (auto& thing : running.stop())
    left.push_back(std::move(thing));
}

} // namespace berth::bench
