// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"

/// Bounds of what a workflow keeps and asks. All steps together fit into one answer.
namespace berth::limits {

/// Bytes of a step's output that are kept and handed on; of a longer one the middle is left out.
inline constexpr std::size_t step_output_bytes_max = 256 * kib;
/// Bytes of what a step was asked, as its record shows it.
inline constexpr std::size_t step_prompt_shown_bytes_max = 32 * kib;
/// Bytes of each text of what an agent did in a step: a program, its output.
inline constexpr std::size_t act_text_bytes_max = 8 * kib;
/// What agents did in one step, as its record shows it.
inline constexpr std::size_t step_acts_max = 16;
/// Bytes of a question to a model, with all that it is given of other steps.
inline constexpr std::size_t step_prompt_bytes_max = prompt_bytes_max - 64 * kib;
/// Bytes of a request's prompts, of all its steps together.
inline constexpr std::size_t workflow_request_bytes_max = prompt_bytes_max / 2;
/// Bytes of a decision's text: a reason, a feedback.
inline constexpr std::size_t reason_bytes_max = 16 * kib;
/// Bytes of an event's text.
inline constexpr std::size_t event_text_bytes_max = 64 * kib;
/// Workers of one plan.
inline constexpr std::size_t workers_max = 32;
/// Routes that are offered to a model.
inline constexpr std::size_t routes_max = 64;
/// Repeats of a step that its gate may ask for.
inline constexpr std::uint32_t gate_repeats_max = 10;
/// Rounds of optimization.
inline constexpr std::uint32_t optimization_rounds_max = 20;
/// How long a cancelled workflow waits for its steps to end before it ends without them.
inline constexpr milliseconds cancel_wait_max{10'000};
/// How often a step asks again where there is no place for it.
inline constexpr std::uint32_t step_tries_max = 60;
/// First pause before it does; doubles with each try.
inline constexpr milliseconds step_pause_min{250};
/// The longest such pause.
inline constexpr milliseconds step_pause_max{5'000};

static_assert(step_pause_min < step_pause_max);
static_assert(workflow_steps_max
                  * (step_output_bytes_max + step_prompt_shown_bytes_max + reason_bytes_max
                     + step_acts_max * 3 * act_text_bytes_max / 2)
              < 2 * request_bytes_max);
static_assert(workers_max + 4 <= workflow_steps_max);
static_assert(2 * optimization_rounds_max <= workflow_steps_max);

} // namespace berth::limits
