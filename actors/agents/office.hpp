// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/event_sink.hpp"
#include "actors/gateway.hpp"
#include "config/reader.hpp"
#include "store/records.hpp"

#include <caf/actor_system.hpp>

#include <memory>

namespace berth {

/// Who serves agents and workflows before the GATEWAY is there.
struct front_office {
  records_actor records;
  progress_actor progress;
  roles_actor roles;
  model_actor models;
};

/// Opens their records and starts those who do not need the GATEWAY. Roles that ship come from
/// config::read_role_files().
expected<front_office> open_front_office(caf::actor_system& system,
                                         std::shared_ptr<const settings> values,
                                         std::shared_ptr<const config::ordered> roles_shipped,
                                         std::shared_ptr<event_sink> sink);

/// Starts the rest, who do.
office open_office(caf::actor_system& system, std::shared_ptr<const settings> values,
                   const front_office& front, const gateway_actor& gateway);

/// Ends everybody in it.
void close_office(const office& all);

} // namespace berth
