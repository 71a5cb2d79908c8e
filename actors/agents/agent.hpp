// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/agents/agents.hpp"
#include "actors/agents/model_skills.hpp"

#include <caf/actor_system.hpp>

#include <memory>
#include <string>

namespace berth {

/// Starts the AGENT of a conversation, which wakes from its records when there are any.
agent_actor spawn_agent(caf::actor_system& system, const agents_parts& parts,
                        std::shared_ptr<model_skills> skills, std::string conversation);

} // namespace berth
