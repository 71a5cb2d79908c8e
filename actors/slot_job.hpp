// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "messages/types.hpp"

#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <deque>
#include <optional>

namespace berth {

/// How long a job, or a machine that starts, waits for a warm interpreter before it goes on cold.
inline constexpr std::chrono::milliseconds warm_wait{250};
/// Input that the guest holds for a program that does not read.
inline constexpr std::uint64_t stdin_window = 256 * limits::kib;

/// One job in a slot, from the order to the outcome.
struct slot_job {
  job_order order;
  bool exclusive = false;
  caf::typed_response_promise<outcome> promise;

  bool waits_for_files = false;
  std::uint32_t upload = 0;
  bool waits_for_warm = false;
  bool sent = false;
  bool running = false;
  std::int64_t started_at_ms = 0;
  std::chrono::steady_clock::time_point started;
  std::optional<end_reason> stop;
  run_path path = run_path::cold;
  std::uint64_t oom_kills_before = 0;

  std::deque<char> stdin_waiting;
  std::uint64_t stdin_room = stdin_window;
  bool stdin_eof = false;
  bool stdin_closed = false;

  bytes binary;
  bool want_binary = false;
  bytes compiled;
};

/// The state of a job that was ended from outside.
job_state state_of(end_reason reason);

/// The outcome of a job that the guest saw to its end. The state is the kernel's word, made precise
/// by what the server knows: that it ended the job itself, or that memory ran out.
outcome ended_by_guest(const slot_job& job, const guest::job_ended& message,
                       const machines::machine_usage& usage);

/// The same of a cell.
outcome ended_cell(const slot_job& job, guest::cell_ended& message, bool out_of_memory);

/// The outcome of a job that no guest saw to its end.
outcome ended_without_run(const slot_job& job, job_state state, std::string detail);

} // namespace berth
