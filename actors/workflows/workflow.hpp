// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/workflow_run.hpp"
#include "actors/workflows/workflows.hpp"

#include <caf/actor_system.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace berth {

/// A WORKFLOW drives one run: asks who is to do its steps, records each before the next begins, and
/// tells WORKFLOWS whenever it changed. It ends with the run.
using workflow_actor = caf::typed_actor<
    // As it is now, with its steps.
    on<get_workflow>::reply<workflow_info>,
    // Answers when it ended.
    on<cancel_workflow>::reply<workflow_info>,
    // Answer when it is on disk.
    on<pause_workflow>::reply<workflow_info>, on<resume_workflow>::reply<workflow_info>,
    // Closes what is under way and ends; on disk it stays as far as it came.
    on<drain>::reply<drained>,
    // It was cancelled, and its steps have had time enough to end.
    caf::reacts_to<caf::timeout_atom>,
    // There was no place for a step; by now there may be one.
    caf::reacts_to<caf::tick_atom, std::uint64_t>>;

/// Starts a WORKFLOW. Its head is on disk already.
workflow_actor spawn_workflow(caf::actor_system& system, workflows_parts parts,
                              workflows_actor owner, workflow_run run);

/// Where the records of workflows are.
inline constexpr const char* workflow_records = "workflow";

/// The records of a run: its head has number 0, its steps follow.
put_record head_record(const workflow_run& run);
put_record step_record(const workflow_run& run, std::size_t step);

/// A run as its records say; steps after one that is missing are left out. An error says what is
/// wrong with the head.
expected<workflow_run> read_run(const std::vector<put_record>& records, std::size_t at_once_max);

} // namespace berth
