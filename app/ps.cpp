// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"

#include <algorithm>

namespace berth {

namespace {

using terminal::table;
using terminal::tint;

void line(const char* name, const std::string& value, tint how = tint::plain) {
  std::printf("%-12s %s\n", name, terminal::paint(how, value).c_str());
}

} // namespace

int command_ps(const common_options& common, const std::string& session) {
  list_jobs request;
  request.session = session;
  return ask_and_show<job_list>(common, request, [](const job_list& list) {
    table rows{{"JOB", "STATE", "LANGUAGE", "AGE", "AGENT", "SESSION", "MACHINE"}};
    for (const auto& job : list.jobs)
      rows.add({job.job, std::string{name_of(job.state)}, job.language,
                terminal::age(job.submitted_at_ms), job.agent_id, job.session, job.machine},
               {tint::plain, tint_of(name_of(job.state))});
    rows.print("no job waits or runs");
  });
}

int command_pool(const common_options& common) {
  return ask_and_show<pool_info>(common, get_pool{}, [](const pool_info& pool) {
    line("machines", std::to_string(pool.machines) + " of " + std::to_string(pool.slots_max) + " ("
                         + std::to_string(pool.idle) + " idle, " + std::to_string(pool.leased)
                         + " leased), kind " + pool.machine_kind);
    line("sessions", std::to_string(pool.sessions));
    line("waiting",
         std::to_string(pool.waiting) + " of at most " + std::to_string(pool.waiting_max));
    line("jobs", std::to_string(pool.jobs_total) + " (" + std::to_string(pool.warm_total)
                     + " warm, " + std::to_string(pool.cached_total) + " cached, "
                     + std::to_string(pool.cold_total) + " cold)");
    line("lost", std::to_string(pool.lost_total) + " of " + std::to_string(pool.started_total)
                     + " machines started");
    if (pool.breaker_open)
      line("breaker", "open: machines fail too often, none is started for a while", tint::red);
    std::printf("\n");
    table rows{{"SLOT", "STATE", "WARM", "MACHINE", "SESSION"}};
    for (const auto& slot : pool.slots)
      rows.add({std::to_string(slot.slot), std::string{name_of(slot.state)}, slot.warm,
                slot.machine, slot.session},
               {tint::plain, tint_of(name_of(slot.state))});
    rows.print("no machine exists");
  });
}

int command_health(const common_options& common) {
  return ask_and_show<health_info>(common, get_health{}, [](const health_info& health) {
    line("status", health.status, tint_of(health.status));
    line("version", health.version);
    line("up for", terminal::duration(health.uptime_ms * 1000));
    line("machines", std::to_string(health.machines) + ", kind " + health.machine_kind);
    line("jobs alive", std::to_string(health.jobs_alive));
    for (std::size_t i = 0; i < health.isolation.size(); ++i)
      line(i == 0 ? "isolation" : "", health.isolation[i]);
  });
}

int command_cancel(const common_options& common, const std::string& job) {
  cancel request;
  request.job = job;
  return ask_and_show<cancelled>(common, request, [](const cancelled& answer) {
    bool ending = answer.state == job_state::cancelled;
    std::printf("%s %s\n", answer.job.c_str(),
                ending ? "cancelled"
                       : ("had ended: " + std::string{name_of(answer.state)}).c_str());
  });
}

int command_describe(const common_options& common, const std::string& name) {
  return ask_and_show<description>(common, describe{}, [&](const description& all) {
    auto show_type = [&](const std::string& type) {
      auto found = std::ranges::find(all.types, type, &type_info::name);
      if (found == all.types.end())
        return;
      std::printf("\n%s\n", terminal::paint(tint::bold, type).c_str());
      table rows{{"MEMBER", "TYPE", "NEED", "MEANING"}};
      for (const auto& member : found->fields_of)
        rows.add(
            {member.name, member.type, member.required ? "required" : "optional", member.meaning});
      rows.print("has no members");
    };
    auto found = std::ranges::find(all.operations, name, &operation_info::op);
    if (found != all.operations.end()) {
      std::printf("%s  %s\n", terminal::paint(tint::bold, found->op).c_str(),
                  found->meaning.c_str());
      show_type(found->request);
      show_type(found->reply);
      return;
    }
    if (!name.empty())
      return show_type(name);
    table rows{{"OPERATION", "REQUEST", "ANSWER", "MEANING"}};
    for (const auto& one : all.operations)
      rows.add({one.op, one.request, one.reply, one.meaning});
    rows.print("");
    std::printf("\n%s: `berth describe NAME` shows an operation's members or a type's.\n",
                all.protocol.c_str());
  });
}

} // namespace berth
