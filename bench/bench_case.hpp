// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bench/report.hpp"
#include "bench/server.hpp"

#include <string>

namespace berth::bench {

/// What every case is given.
class bench_context {
public:
  bench_context(std::string executable, std::string kind, bool short_runs, report& to)
    : results(to)
    , quick(short_runs)
    , executable_(std::move(executable))
    , kind_(std::move(kind)) {}

  /// Starts a server of the kind under test, with `config` over the shipped defaults.
  server start_server(json config = json::object());
  /// Stops a server and notes what it left.
  void stop_server(server& running);

  /// The one or the other, by --quick.
  template <class T>
  T choose(T full, T short_run) const {
    return quick ? short_run : full;
  }

  report& results;
  zmq::context_t sockets{1};
  const bool quick;
  /// Things that stopped servers left, over all cases.
  leftovers left;

private:
  std::string executable_;
  std::string kind_;
};

/// One line of the table of cases.
struct bench_case {
  const char* name;
  const char* meaning;
  void (*measure)(bench_context&);
};

// The cases; each in its own file below cases/.
void measure_oneshot_python(bench_context& context);
void measure_throughput(bench_context& context);
void measure_bash(bench_context& context);
void measure_javascript(bench_context& context);
void measure_rust(bench_context& context);
void measure_go(bench_context& context);
void measure_own_path(bench_context& context);
void measure_sessions(bench_context& context);
void measure_kernels(bench_context& context);
void measure_state(bench_context& context);
void measure_stream(bench_context& context);
void measure_durability(bench_context& context);
void measure_virtual_machines(bench_context& context);
void measure_model(bench_context& context);

} // namespace berth::bench
