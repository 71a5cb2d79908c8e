// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "config/reader.hpp"
#include "config/settings.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// Starts the ROLES: what ships, as config::read_role_files() gave it, overlaid by what
/// `<data_dir>/roles_config.json` changes. What cannot be used is an error that names file and line
/// or member.
expected<roles_actor> spawn_roles(caf::actor_system& system, std::shared_ptr<const settings> values,
                                  std::shared_ptr<const config::ordered> shipped);

/// The same with what ships read from `agents.roles_dir`.
expected<roles_actor> spawn_roles(caf::actor_system& system, const settings& values);

} // namespace berth
