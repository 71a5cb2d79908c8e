// SPDX-License-Identifier: Apache-2.0
#include "actors/slot_job.hpp"

#include "actors/ids.hpp"

namespace berth {

namespace {

outcome outcome_of(const slot_job& job) {
  outcome result;
  result.job = job.order.job;
  result.language = job.order.request.language;
  result.path = job.path;
  result.agent_id = job.order.request.agent_id;
  result.session = job.order.request.session;
  result.context = job.order.request.context;
  result.verdict = job.order.verdict;
  result.submitted_at_ms = job.order.submitted_at_ms;
  result.started_at_ms = job.started_at_ms;
  result.ended_at_ms = unix_ms();
  return result;
}

std::uint64_t wall_us(const slot_job& job) {
  if (!job.sent)
    return 0;
  auto age = std::chrono::steady_clock::now() - job.started;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(age).count());
}

constexpr std::uint32_t sigkill = 9;

} // namespace

job_state state_of(end_reason reason) {
  switch (reason) {
  case end_reason::cancelled:
    return job_state::cancelled;
  case end_reason::timed_out:
    return job_state::timed_out;
  case end_reason::interrupted:
    return job_state::interrupted;
  }
  return job_state::machine_lost;
}

outcome ended_by_guest(const slot_job& job, const guest::job_ended& message,
                       const machines::machine_usage& usage) {
  outcome result = outcome_of(job);
  result.wall_us = wall_us(job);
  result.cpu_us = message.cpu_us;
  bool counted = job.exclusive && usage.memory_peak_bytes > 0;
  result.memory_peak_bytes = counted ? usage.memory_peak_bytes : message.memory_peak_bytes;
  // What was lost in the guest already; the hub adds what it had to drop itself.
  result.stdout_bytes = message.stdout_lost;
  result.stderr_bytes = message.stderr_lost;
  bool out_of_memory = usage.oom_kills > job.oom_kills_before;
  bool failed = !message.exit_code || *message.exit_code != 0;
  if (job.stop && message.signal && *message.signal == sigkill) {
    result.state = state_of(*job.stop);
  } else if (out_of_memory && failed) {
    result.state = job_state::out_of_memory;
    result.detail = "the machine's memory limit was reached";
  } else if (message.exit_code) {
    result.state = job_state::exited;
  } else {
    result.state = job_state::signalled;
  }
  if (result.state == job_state::exited || result.state == job_state::out_of_memory)
    result.exit_code = message.exit_code;
  if (result.state == job_state::signalled || result.state == job_state::out_of_memory)
    result.signal = message.signal;
  if (result.state == job_state::timed_out)
    result.detail =
        "the time limit of " + std::to_string(job.order.limits.timeout_ms) + " ms was reached";
  return result;
}

outcome ended_cell(const slot_job& job, guest::cell_ended& message, bool out_of_memory) {
  outcome result = outcome_of(job);
  const guest::job_ended& ended = message.ended;
  result.wall_us = wall_us(job);
  result.cpu_us = ended.cpu_us;
  result.memory_peak_bytes = ended.memory_peak_bytes;
  result.stdout_bytes = ended.stdout_lost;
  result.stderr_bytes = ended.stderr_lost;
  bool alive = message.report.kernel_alive;
  if (job.stop)
    result.state = state_of(*job.stop);
  else if (!alive && out_of_memory)
    result.state = job_state::out_of_memory;
  else
    result.state = ended.exit_code ? job_state::exited : job_state::signalled;
  if (!job.stop) {
    result.exit_code = ended.exit_code;
    result.signal = ended.signal;
  }
  auto say = [&](const std::string& text) {
    result.detail += (result.detail.empty() ? "" : "; ") + text;
  };
  if (result.state == job_state::timed_out)
    say("the time limit of " + std::to_string(job.order.limits.timeout_ms) + " ms was reached");
  if (result.state == job_state::out_of_memory)
    say("the machine's memory limit was reached");
  if (!alive)
    say("the interpreter ended with this cell, and its variables with it");
  if (!message.reason.empty())
    say(message.reason);
  if (message.results_lost > 0)
    say(std::to_string(message.results_lost) + " results of "
        + std::to_string(message.results_lost_bytes) + " bytes were more than a cell may show");
  if (message.late_bytes > 0)
    say(std::to_string(message.late_bytes)
        + " bytes that processes of earlier cells wrote were dropped");
  result.cell = std::move(message.report);
  return result;
}

outcome ended_without_run(const slot_job& job, job_state state, std::string detail) {
  outcome result = outcome_of(job);
  result.wall_us = wall_us(job);
  result.state = state;
  result.detail = std::move(detail);
  return result;
}

} // namespace berth
