// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/office.hpp"

#include "actors/agents/agents.hpp"
#include "actors/agents/model.hpp"
#include "actors/agents/progress.hpp"
#include "actors/agents/records.hpp"
#include "actors/agents/roles.hpp"
#include "actors/workflows/workflows.hpp"

#include <caf/send.hpp>

namespace berth {

expected<front_office> open_front_office(caf::actor_system& system,
                                         std::shared_ptr<const settings> values,
                                         std::shared_ptr<const config::ordered> roles_shipped,
                                         std::shared_ptr<event_sink> sink) {
  bool kept = values->policy.history.persist_history;
  auto store = records::open(kept ? values->data_dir : "");
  if (!store)
    return store.error();
  auto roles = spawn_roles(system, values, std::move(roles_shipped));
  if (!roles)
    return roles.error();
  front_office all;
  all.records = spawn_records(system, std::move(*store));
  all.progress = spawn_progress(system, std::move(sink));
  all.roles = std::move(*roles);
  all.models = spawn_model(system, std::move(values), all.progress);
  return all;
}

office open_office(caf::actor_system& system, std::shared_ptr<const settings> values,
                   const front_office& front, const gateway_actor& gateway) {
  office all;
  all.records = front.records;
  all.progress = front.progress;
  all.roles = front.roles;
  all.models = front.models;
  all.agents = spawn_agents(system, {.config = values,
                                     .gateway = gateway,
                                     .roles = front.roles,
                                     .models = front.models,
                                     .progress = front.progress,
                                     .records = front.records});
  all.workflows = spawn_workflows(system, {.config = std::move(values),
                                           .agents = all.agents,
                                           .roles = front.roles,
                                           .models = front.models,
                                           .progress = front.progress,
                                           .records = front.records});
  return all;
}

void close_office(const office& all) {
  auto end = [](const auto& who) {
    if (who)
      caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  };
  end(all.workflows);
  end(all.agents);
  end(all.models);
  end(all.roles);
  end(all.progress);
  end(all.records);
}

} // namespace berth
