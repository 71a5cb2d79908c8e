// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"
#include "messages/workflow.hpp"

#include <string_view>

/// What may be asked of workflows.
namespace berth {

/// The first fault of a request, as an error that names the member.
error check_workflow(const run_workflow& request);

/// Whether a text can be the id of a workflow: `workflow_` and letters, digits, - and _.
bool is_workflow_id(std::string_view text);

/// A new id: `workflow_` and a version 4 UUID.
std::string new_workflow_id();

} // namespace berth
