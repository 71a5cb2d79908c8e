// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"

#include <algorithm>
#include <charconv>
#include <set>

namespace berth::http::fcctl {

namespace {

constexpr unsigned addresses_total = 253;
/// Clients give names that are not unique; after this many the refusal goes to the client.
constexpr int name_tries = 2;

json pool_stats(std::size_t sessions) {
  std::size_t used = std::min<std::size_t>(sessions, addresses_total);
  return {{"total_ips", addresses_total},
          {"allocated_ips", used},
          {"available_ips", addresses_total - used},
          {"utilization_percent", used * 100 / addresses_total}};
}

void list(const shared_context& c, list_sessions what, const responder& done,
          std::function<void(const session_list&)> go_on) {
  c->gateway.ask<session_list>(std::move(what),
                               [done, go_on = std::move(go_on)](expected<session_list> answer) {
                                 if (!answer)
                                   return done(error_reply(answer.error()));
                                 go_on(*answer);
                               });
}

reply created(const session_info& info, const json& warnings) {
  json made = vm_json(info);
  made["warnings"] = warnings;
  reply answer = json_reply(made, 201);
  answer.headers.emplace_back("Location", "/api/vms/" + info.machine);
  return answer;
}

void open(const shared_context& c, open_session wish, const responder& done, int tries,
          json warnings = json::array()) {
  if (std::string said = settle_vm_type(wish.vm_type, c->values); !said.empty())
    warnings.push_back(std::move(said));
  open_session asked = wish;
  c->gateway.ask<session_info>(
      std::move(asked), [c, wish = std::move(wish), done, tries,
                         warnings = std::move(warnings)](expected<session_info> answer) mutable {
        if (answer)
          return done(created(*answer, warnings));
        if (tries == 0 || answer.error() != ec::already_exists)
          return done(error_reply(answer.error()));
        wish.name += "-" + std::to_string(now_ms() % 100'000'000);
        open(c, std::move(wish), done, tries - 1, std::move(warnings));
      });
}

/// The agent that a client names its machine after: `agent-<id>-vm`.
std::string agent_of(const std::string& name) {
  constexpr std::string_view before = "agent-";
  constexpr std::string_view after = "-vm";
  bool fits = name.size() > before.size() + after.size()
              && std::string_view{name}.substr(0, before.size()) == before
              && std::string_view{name}.substr(name.size() - after.size()) == after;
  return fits ? name.substr(before.size(), name.size() - before.size() - after.size()) : "";
}

decoded<open_session> read_open(const json& body) {
  json native = body;
  if (!native.contains("name") || native["name"].is_null())
    native["name"] = body.value("vm_name", json(nullptr));
  if (!native.contains("memory_mib") && body.contains("memory_mb"))
    native["memory_mib"] = body["memory_mb"];
  auto wish = from_json<open_session>(native);
  if (wish && wish->agent_id.empty())
    wish->agent_id = agent_of(wish->name);
  return wish;
}

void create(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto wish = read_open(*body);
  if (!wish)
    return done(malformed_reply(wish.why()));
  open(c, std::move(*wish), done, name_tries);
}

/// Gives the agent's machine, made when there is none yet.
void provision(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto wish = read_open(*body);
  if (!wish)
    return done(malformed_reply(wish.why()));
  wish->agent_id = what.param("agent_id");
  list_sessions known{.agent_id = wish->agent_id, .session = {}};
  list(c, std::move(known), done, [c, wish = std::move(*wish), done](const session_list& found) {
    for (const auto& info : found.sessions)
      if (status_of_session(info.state) == "running")
        return done(json_reply(vm_json(info)));
    open(c, wish, done, name_tries);
  });
}

void list_all(const shared_context& c, const responder& done) {
  list(c, {}, done, [c, done](const session_list& found) {
    json vms = json::array();
    for (const auto& info : found.sessions)
      vms.push_back(vm_json(info));
    std::uint64_t most = c->values.pool.slots_max;
    std::uint64_t count = found.sessions.size();
    std::uint64_t percent = most == 0 ? 100 : std::min<std::uint64_t>(count * 100 / most, 100);
    json usage{{"at_capacity", count >= most},
               {"current_concurrent_sessions", count},
               {"current_vms", count},
               {"has_persistent_storage", true},
               {"max_concurrent_sessions", most},
               {"max_memory_mb", c->values.maxima.memory_mib},
               {"max_storage_gb", c->values.maxima.disk_mib / 1024},
               {"max_vms", most},
               {"session_usage_percent", percent},
               {"vm_usage_percent", percent}};
    done(json_reply({{"user", "local"},
                     {"vms", vms},
                     {"total", count},
                     {"tiers", {{"donation", "none"}, {"subscription", "none"}}},
                     {"usage", usage}}));
  });
}

void erase(const shared_context& c, const request& what, const responder& done) {
  c->gateway.ask<session_closed>(close_session{what.param("id")},
                                 [done, id = what.param("id")](expected<session_closed> answer) {
                                   if (!answer)
                                     return done(error_reply(answer.error()));
                                   done(json_reply({{"status", "success"},
                                                    {"message", "VM deleted"},
                                                    {"id", id},
                                                    {"vm_id", id},
                                                    {"session", answer->session}}));
                                 });
}

void vm_pool_of_agent(const shared_context& c, const request& what, const responder& done) {
  std::string agent = what.param("agent_id");
  list(c, {.agent_id = agent, .session = {}}, done, [c, agent, done](const session_list& found) {
    json available = json::array();
    json in_use = json::array();
    for (const auto& info : found.sessions) {
      if (info.state == session_state::ready)
        available.push_back(vm_json(info));
      else if (info.state == session_state::busy || info.state == session_state::starting)
        in_use.push_back(vm_json(info));
    }
    done(json_reply({{"agent_id", agent},
                     {"available_vms", available},
                     {"in_use_vms", in_use},
                     {"total_capacity", c->values.pool.slots_max},
                     {"auto_provision", c->values.policy.auto_provision},
                     {"pool_config", pool_config_json(c->values)}}));
  });
}

json task_json(const std::string& id, const std::string& vm, std::string_view status,
               std::int64_t created_ms, std::int64_t updated_ms) {
  return {{"id", id},
          {"vm_id", vm},
          {"status", status},
          {"created_at", to_rfc3339(created_ms)},
          {"updated_at", to_rfc3339(updated_ms)}};
}

std::string_view task_status(const outcome& ended) {
  if (ended.state == job_state::exited)
    return exit_code_of(ended) == 0 ? "completed" : "failed";
  return ended.state == job_state::cancelled ? "cancelled" : "failed";
}

void tasks(const shared_context& c, const request& what, const responder& done) {
  with_session(c, what.param("id"), done, [c, done](const session_info& info) {
    c->gateway.ask<job_list>(list_jobs{info.session}, [c, info, done](expected<job_list> alive) {
      if (!alive)
        return done(error_reply(alive.error()));
      query_history past;
      past.machine = info.machine;
      c->gateway.ask<history_page>(std::move(past), [info, alive = std::move(*alive),
                                                     done](expected<history_page> page) {
        if (!page)
          return done(error_reply(page.error()));
        json all = json::array();
        std::set<std::string> seen;
        for (const auto& job : alive.jobs) {
          seen.insert(job.job);
          all.push_back(task_json(job.job, info.machine, name_of(job.state), job.submitted_at_ms,
                                  job.submitted_at_ms));
        }
        for (const auto& one : page->entries)
          if (is_terminal(one.result.state) && seen.insert(one.result.job).second)
            all.push_back(task_json(one.result.job, info.machine, task_status(one.result),
                                    one.result.submitted_at_ms, one.result.ended_at_ms));
        std::size_t count = all.size();
        done(json_reply({{"tasks", std::move(all)}, {"vm_id", info.machine}, {"total", count}}));
      });
    });
  });
}

double percent(double part, double whole) {
  return whole > 0 ? part * 100.0 / whole : 0.0;
}

json metrics_json(context& c, const session_info& info, const session_usage& usage) {
  context::cpu_sample before;
  if (auto known = c.samples.find(info.machine); known != c.samples.end())
    before = known->second;
  if (usage.uptime_ms <= before.uptime_ms || usage.cpu_us < before.cpu_us)
    before = {};
  c.samples[info.machine] = {usage.cpu_us, usage.uptime_ms};
  double cpu = percent(static_cast<double>(usage.cpu_us - before.cpu_us) / 1000.0,
                       static_cast<double>(usage.uptime_ms - before.uptime_ms));
  return {{"vm_id", info.machine},
          {"name", info.name},
          {"status", status_of_session(info.state)},
          {"cpu_usage_percent", cpu},
          {"memory_usage_mb", usage.memory_bytes / limits::mib},
          {"memory_limit_mb", usage.memory_limit_bytes / limits::mib},
          {"disk_usage_percent", percent(static_cast<double>(usage.disk_bytes),
                                         static_cast<double>(usage.disk_limit_bytes))},
          {"network_io_mbps", 0.0},
          {"uptime_seconds", usage.uptime_ms / 1000},
          {"process_count", usage.processes},
          {"updated_at", to_rfc3339(now_ms())}};
}

void metrics(const shared_context& c, const request& what, const responder& done) {
  with_session(c, what.param("id"), done, [c, done](const session_info& info) {
    c->gateway.ask<session_usage>(get_usage{info.session},
                                  [c, info, done](expected<session_usage> usage) {
                                    if (!usage)
                                      return done(error_reply(usage.error()));
                                    done(json_reply(metrics_json(*c, info, *usage)));
                                  });
  });
}

void all_metrics(const shared_context& c, const responder& done) {
  list(c, {}, done, [c, done](const session_list& found) {
    struct gathering {
      std::vector<json> rows;
      std::size_t waiting = 0;
    };
    auto all = std::make_shared<gathering>();
    all->rows.resize(found.sessions.size());
    all->waiting = found.sessions.size();
    std::set<std::string> alive;
    for (const auto& info : found.sessions)
      alive.insert(info.machine);
    std::erase_if(c->samples, [&](const auto& one) { return alive.count(one.first) == 0; });
    if (all->waiting == 0)
      return done(json_reply(json::array()));
    for (std::size_t i = 0; i < found.sessions.size(); ++i) {
      const session_info& info = found.sessions[i];
      c->gateway.ask<session_usage>(
          get_usage{info.session}, [c, all, i, info, done](expected<session_usage> usage) {
            // A machine that went away meanwhile has no row's worth of numbers, but has a row.
            all->rows[i] = metrics_json(*c, info, usage ? *usage : session_usage{});
            if (--all->waiting == 0)
              done(json_reply(json(all->rows)));
          });
    }
  });
}

void pool_list(const shared_context& c, const responder& done) {
  list(c, {}, done, [done](const session_list& found) {
    json vms = json::array();
    for (const auto& info : found.sessions)
      vms.push_back({{"vm_id", info.machine}, {"ip_address", address_of(info.machine)}});
    done(json_reply({{"vms", vms}, {"stats", pool_stats(found.sessions.size())}}));
  });
}

void pool_numbers(const shared_context& c, const responder& done) {
  list(c, {}, done,
       [done](const session_list& found) { done(json_reply(pool_stats(found.sessions.size()))); });
}

void allocate(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto id = read_text_member(*body, "vm_id");
  if (!id)
    return done(malformed_reply(id.why()));
  if (id->empty())
    return done(malformed_reply({"vm_id", "is missing"}));
  with_session(c, *id, done, [done](const session_info& info) {
    done(json_reply({{"vm_id", info.machine}, {"ip_address", address_of(info.machine)}}));
  });
}

} // namespace

void with_session(const shared_context& c, const std::string& id, const responder& done,
                  std::function<void(const session_info&)> go_on) {
  list(c, {.agent_id = {}, .session = id}, done,
       [id, done, go_on = std::move(go_on)](const session_list& found) {
         if (found.sessions.empty())
           return done(error_reply(ec::not_found, "VM not available: " + id));
         go_on(found.sessions.front());
       });
}

decoded<query_history> read_history_query(const std::map<std::string, std::string>& members,
                                          const std::string& machine) {
  query_history wish;
  wish.machine = machine;
  auto text = [&](const char* name) {
    auto found = members.find(name);
    return found == members.end() ? std::string{} : found->second;
  };
  auto number = [&](const char* name, auto& to) {
    std::string value = text(name);
    if (value.empty())
      return true;
    auto [end, why] = std::from_chars(value.data(), value.data() + value.size(), to);
    return why == std::errc{} && end == value.data() + value.size();
  };
  if (!number("limit", wish.limit))
    return malformed{"limit", "must be a whole number"};
  if (!number("before", wish.before))
    return malformed{"before", "must be a whole number"};
  std::string failures = text("failures_only");
  if (!failures.empty() && failures != "true" && failures != "false" && failures != "1"
      && failures != "0")
    return malformed{"failures_only", "must be true or false"};
  wish.failures_only = failures == "true" || failures == "1";
  wish.agent_id = text("agent_id");
  for (auto [name, to] :
       {std::pair{"start_date", &wish.since_ms}, std::pair{"end_date", &wish.until_ms}}) {
    if (text(name).empty())
      continue;
    auto when = from_rfc3339(text(name));
    if (!when)
      return malformed{name, "must be an RFC 3339 time"};
    *to = *when;
  }
  return wish;
}

void add_machine_routes(router& routes, const shared_context& c) {
  auto with_request = [c](void (*serve)(const shared_context&, const request&, const responder&)) {
    return [c, serve](const request& what, const responder& done) { serve(c, what, done); };
  };
  auto without = [c](void (*serve)(const shared_context&, const responder&)) {
    return [c, serve](const request&, const responder& done) { serve(c, done); };
  };
  routes.get("/api/llm/vm-pool/{agent_id}", with_request(vm_pool_of_agent));
  routes.post("/api/llm/provision/{agent_id}", with_request(provision));
  routes.post("/api/vms", with_request(create));
  routes.get("/api/vms", without(list_all));
  routes.get("/api/vms/metrics", without(all_metrics));
  routes.get("/api/vms/{id}", [c](const request& what, const responder& done) {
    with_session(c, what.param("id"), done,
                 [done](const session_info& info) { done(json_reply(vm_json(info))); });
  });
  routes.erase("/api/vms/{id}", with_request(erase));
  routes.get("/api/vms/{id}/tasks", with_request(tasks));
  routes.get("/api/vms/{id}/metrics", with_request(metrics));
  routes.get("/api/vm-pool", without(pool_list));
  routes.get("/api/vm-pool/list", without(pool_list));
  routes.get("/api/vm-pool/stats", without(pool_numbers));
  routes.post("/api/vm-pool/allocate", with_request(allocate));
  routes.post("/api/vm-pool/release/{id}", with_request(erase));
}

} // namespace berth::http::fcctl
