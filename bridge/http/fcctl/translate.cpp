// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/translate.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace berth::http::fcctl {

namespace {

/// What is taken off a client's time limit, so that the answer arrives before it gives up.
std::uint64_t margin_ms(std::uint64_t timeout_ms) {
  return std::clamp<std::uint64_t>(timeout_ms / 50, 10, 500);
}

/// Beyond this a client's number is a mistake; what the policy allows is the GATEWAY's business.
constexpr double timeout_ms_max = 1e12;

std::string text_of(const bytes& data) {
  return to_utf8({data.data(), data.size()});
}

/// A lossy text and, when it is lossy, all its bytes beside it.
void put_output(json& to, const std::string& name, const bytes& data) {
  std::string_view raw{data.data(), data.size()};
  to[name] = to_utf8(raw);
  if (!is_utf8(raw))
    to[name + "_base64"] = to_base64(raw);
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const auto& part : parts)
    all += (all.empty() ? "" : "; ") + part;
  return all;
}

decoded<double> number_of(const json& value, const char* name) {
  if (!value.is_number())
    return malformed{name, "must be a number, is " + detail::kind_of(value)};
  auto number = value.get<double>();
  if (number < 0)
    return malformed{name, "must not be negative"};
  return number;
}

/// Members of the clients' body that mean what ours of the same name mean.
constexpr std::array native_members{
    "code",      "language",     "agent_id", "args",    "env",  "files",    "memory_mib",
    "processes", "output_bytes", "disk_mib", "vm_type", "kind", "one_shot", "stdin"};

std::map<std::string, std::string> flat_metadata(const json& metadata) {
  std::map<std::string, std::string> flat;
  if (!metadata.is_object()) {
    if (!metadata.is_null())
      flat["metadata"] = json_text(metadata);
    return flat;
  }
  for (const auto& [key, value] : metadata.items())
    flat[key] = value.is_string() ? value.get<std::string>() : json_text(value);
  return flat;
}

std::string command_of(const outcome& ended, const std::string& code) {
  return code.empty() ? ended.language : code;
}

} // namespace

decoded<maybe<std::uint64_t>> read_timeout(const json& body) {
  maybe<std::uint64_t> found;
  for (auto [name, unit_ms] :
       {std::pair{"timeout_ms", 1.0}, std::pair{"timeout_seconds", 1000.0}}) {
    auto member = body.find(name);
    if (member == body.end() || member->is_null())
      continue;
    auto number = number_of(*member, name);
    if (!number)
      return number.why();
    double in_ms = std::ceil(*number * unit_ms);
    if (!(in_ms <= timeout_ms_max))
      return malformed{name, "is too large"};
    if (in_ms > 0)
      found = static_cast<std::uint64_t>(in_ms);
  }
  return found;
}

std::string settle_vm_type(std::string& name, const settings& values) {
  if (name.empty() || values.vm_types.contains(name))
    return {};
  std::string said = "no machine type is named \"" + to_utf8(name.substr(0, 64))
                     + "\": the machine is a " + values.policy.default_vm_type;
  name.clear();
  return said;
}

decoded<execute_request> read_execute(const json& body, const settings& values) {
  if (!body.is_object())
    return malformed{"", "must be a map, is " + detail::kind_of(body)};
  json native = json::object();
  for (const char* name : native_members)
    if (auto member = body.find(name); member != body.end() && !member->is_null())
      native[name] = *member;
  auto job = from_json<run>(native);
  if (!job)
    return job.why();
  execute_request made;
  made.job = std::move(*job);
  auto session = read_text_member(body, "vm_id");
  auto directory = read_text_member(body, "working_dir");
  auto execution = read_text_member(body, "execution_id");
  auto timeout = read_timeout(body);
  if (!session)
    return session.why();
  if (!directory)
    return directory.why();
  if (!execution)
    return execution.why();
  if (!timeout)
    return timeout.why();
  made.job.session = *session;
  made.job.cwd = *directory;
  made.execution_id = *execution;
  std::uint64_t asked = timeout->value_or(values.policy.execution_timeout_ms);
  made.job.timeout_ms = asked > 2 * margin_ms(asked) ? asked - margin_ms(asked) : asked;
  if (std::string said = settle_vm_type(made.job.vm_type, values); !said.empty())
    made.warnings.push_back(std::move(said));
  // Without an agent there is nobody to keep a machine for.
  made.job.one_shot = made.job.one_shot || (made.job.agent_id.empty() && made.job.session.empty());
  if (auto metadata = body.find("metadata"); metadata != body.end() && !metadata->is_null())
    made.metadata = *metadata;
  made.job.metadata = flat_metadata(made.metadata);
  if (auto wanted = body.find("requirements");
      wanted != body.end() && wanted->is_array() && !wanted->empty())
    made.warnings.push_back("requirements are not installed: machines have no network");
  return made;
}

std::int32_t exit_code_of(const outcome& ended) {
  switch (ended.state) {
  case job_state::exited:
    return ended.exit_code.value_or(0);
  case job_state::signalled:
    return 128 + static_cast<std::int32_t>(ended.signal.value_or(0));
  case job_state::timed_out:
    return 124;
  case job_state::out_of_memory:
    return 137;
  case job_state::cancelled:
    return 130;
  case job_state::blocked:
    return 126;
  default:
    return 255;
  }
}

std::string blocked_text(const std::vector<std::string>& reasons, const std::string& detail) {
  return "Code validation failed: " + (reasons.empty() ? detail : joined(reasons));
}

json error_of(const outcome& ended) {
  std::string more = ended.detail.empty() ? "" : ": " + ended.detail;
  switch (ended.state) {
  case job_state::queued:
  case job_state::running:
  case job_state::exited:
    return nullptr;
  case job_state::signalled:
    return "Execution failed: ended by signal " + std::to_string(ended.signal.value_or(0)) + more;
  case job_state::timed_out:
    return "Execution timeout after " + std::to_string(ended.wall_us / 1000) + "ms" + more;
  case job_state::out_of_memory:
    return "Execution failed: out of memory" + more;
  case job_state::cancelled:
    return "Execution cancelled" + more;
  case job_state::blocked:
    return blocked_text(ended.verdict.reasons, ended.detail);
  case job_state::machine_lost:
    return "VM not available: the machine was lost" + more;
  case job_state::interrupted:
    return "Execution failed: the server stopped" + more;
  }
  return nullptr;
}

json execute_response(const outcome& ended, const execute_request& asked) {
  std::int64_t started = ended.started_at_ms != 0 ? ended.started_at_ms : ended.ended_at_ms;
  std::uint64_t duration = ended.wall_us / 1000;
  json made{{"state", name_of(ended.state)},
            {"status",
             ended.state == job_state::exited && exit_code_of(ended) == 0 ? "success" : "failed"},
            {"language", ended.language.empty() ? asked.job.language : ended.language},
            {"stdout_bytes", ended.stdout_bytes},
            {"stderr_bytes", ended.stderr_bytes},
            {"stdout_truncated", ended.stdout_truncated},
            {"stderr_truncated", ended.stderr_truncated},
            {"redacted", ended.redacted},
            {"duration_ms", duration},
            {"execution_time_ms", duration},
            {"cpu_us", ended.cpu_us},
            {"memory_peak_bytes", ended.memory_peak_bytes},
            {"machine_kind", ended.machine_kind},
            {"path", name_of(ended.path)},
            {"started_at", to_rfc3339(started)},
            {"completed_at", to_rfc3339(ended.ended_at_ms)},
            {"error", error_of(ended)},
            {"metadata", asked.metadata},
            {"warnings", asked.warnings}};
  put_output(made, "stdout", ended.stdout_data);
  put_output(made, "stderr", ended.stderr_data);
  put_twice(made, "execution_id", asked.execution_id.empty() ? ended.job : asked.execution_id);
  put_twice(made, "job_id", ended.job);
  put_twice(made, "vm_id", ended.machine);
  put_twice(made, "agent_id", ended.agent_id.empty() ? asked.job.agent_id : ended.agent_id);
  put_twice(made, "exit_code", exit_code_of(ended));
  if (ended.signal)
    made["signal"] = *ended.signal;
  if (ended.state == job_state::blocked) {
    made["blocked"] = true;
    made["reasons"] = ended.verdict.reasons;
  }
  return made;
}

std::string status_of_session(session_state state) {
  switch (state) {
  case session_state::ready:
  case session_state::busy:
    return "running";
  case session_state::starting:
    return "creating";
  case session_state::lost:
    return "failed";
  case session_state::paused:
    return "paused";
  case session_state::closed:
    break;
  }
  return "stopped";
}

std::string address_of(const std::string& vm_id) {
  std::uint32_t hash = 2166136261U;
  for (char c : vm_id)
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return "172.26.0." + std::to_string(2 + hash % 253);
}

json vm_json(const session_info& info) {
  json config{{"vcpus", 1},
              {"memory_mb", info.memory_mib},
              {"disk_mb", info.disk_mib},
              {"processes", info.processes},
              {"vm_type", info.vm_type},
              {"machine_kind", info.machine_kind}};
  std::string updated = to_rfc3339(std::max(info.last_used_at_ms, info.created_at_ms));
  json made{{"id", info.machine},
            {"name", info.name},
            {"session", info.session},
            {"status", status_of_session(info.state)},
            {"state", name_of(info.state)},
            {"vm_type", info.vm_type},
            {"machine_kind", info.machine_kind},
            {"user_id", 0},
            {"memory_mb", info.memory_mib},
            {"jobs_run", info.jobs_run},
            {"jobs_alive", info.jobs_alive},
            {"config", json_text(config)}};
  put_twice(made, "vm_id", info.machine);
  put_twice(made, "agent_id", info.agent_id);
  put_twice(made, "ip_address", address_of(info.machine));
  put_twice(made, "created_at", to_rfc3339(info.created_at_ms));
  put_twice(made, "updated_at", updated);
  put_twice(made, "last_activity", updated);
  return made;
}

json pool_config_json(const settings& values) {
  const vm_execution_policy& policy = values.policy;
  const history_settings& history = policy.history;
  const resource_limits& limits = policy.security_settings.resource_limits;
  json security_limits = json::object();
  if (limits.max_memory_mb)
    security_limits["max_memory_mb"] = *limits.max_memory_mb;
  if (limits.max_execution_time_seconds)
    security_limits["max_execution_time_seconds"] = *limits.max_execution_time_seconds;
  return {{"enabled", policy.enabled},
          {"api_base_url", policy.api_base_url},
          {"vm_pool_size", policy.vm_pool_size},
          {"default_vm_type", policy.default_vm_type},
          {"execution_timeout_ms", policy.execution_timeout_ms},
          {"allowed_languages", policy.allowed_languages},
          {"auto_provision", policy.auto_provision},
          {"code_validation", policy.code_validation},
          {"max_code_length", policy.max_code_length},
          {"history",
           {{"enabled", history.enabled},
            {"snapshot_on_execution", history.snapshot_on_execution},
            {"snapshot_on_failure", history.snapshot_on_failure},
            {"auto_rollback_on_failure", history.auto_rollback_on_failure},
            {"max_history_entries", history.max_history_entries},
            {"persist_history", history.persist_history},
            {"integration_mode", history.integration_mode}}},
          {"security_settings",
           {{"dangerous_patterns_check", policy.security_settings.dangerous_patterns_check},
            {"resource_limits", security_limits}}}};
}

session_info past_session(const std::string& id) {
  session_info info;
  std::string digits = id.substr(std::min(id.size(), id.find('-') + 1));
  bool by_machine = id.starts_with("vm-");
  info.session = by_machine ? "s-" + digits : id;
  info.machine = id.starts_with("s-") ? "vm-" + digits : id;
  return info;
}

json snapshot_json(const snapshot_info& info) {
  constexpr double mb = 1024.0 * 1024.0;
  json made{{"id", info.snapshot},
            {"name", info.name},
            {"description", info.description},
            {"parent", or_null(info.parent)},
            {"reason", name_of(info.reason)},
            {"content", name_of(info.content)},
            {"contexts", info.contexts},
            {"durable", info.durable},
            {"status", info.damage.empty() ? "ready" : "damaged"},
            {"error", or_null(info.damage)}};
  put_twice(made, "snapshot_id", info.snapshot);
  put_twice(made, "vm_id", info.machine);
  put_twice(made, "session_id", info.session);
  put_twice(made, "agent_id", info.agent_id);
  put_twice(made, "execution_id", or_null(info.job));
  put_twice(made, "created_at", to_rfc3339(info.created_at_ms));
  put_twice(made, "size_bytes", info.size_bytes);
  put_twice(made, "size_mb", static_cast<double>(info.size_bytes) / mb);
  return made;
}

json rolled_back_json(const rolled_back& answer) {
  json made{{"status", "success"},
            {"message", "VM rolled back successfully"},
            {"content", name_of(answer.content)},
            {"contexts", answer.contexts},
            {"detail", answer.detail}};
  put_twice(made, "snapshot_id", answer.snapshot);
  put_twice(made, "vm_id", answer.machine);
  put_twice(made, "session_id", answer.session);
  put_twice(made, "history_entry", answer.entry);
  put_twice(made, "pre_rollback_snapshot_id", or_null(answer.snapshot_before));
  return made;
}

namespace {

/// The first snapshot that holds the state right after an entry.
json state_after(const entry& past, const std::vector<snapshot_info>& snapshots) {
  const outcome& ended = past.result;
  auto usable = [&](const snapshot_info& one) { return one.damage.empty(); };
  for (const std::string& id : {ended.snapshot_after, ended.rolled_back_to})
    for (const auto& one : snapshots)
      if (!id.empty() && one.snapshot == id && usable(one))
        return id;
  for (const auto& one : snapshots)
    if (one.job == ended.job && usable(one))
      return one.snapshot;
  return nullptr;
}

} // namespace

std::optional<json> entry_json(const entry& past, const std::vector<snapshot_info>& snapshots) {
  const outcome& ended = past.result;
  if (!is_terminal(ended.state))
    return std::nullopt;
  bool success = ended.state == job_state::exited && exit_code_of(ended) == 0;
  std::string when =
      to_rfc3339(ended.started_at_ms != 0 ? ended.started_at_ms : ended.submitted_at_ms);
  json made{{"id", ended.job},
            {"number", past.number},
            {"command", command_of(ended, past.code)},
            {"code", past.code},
            {"language", ended.language},
            {"success", success},
            {"state", name_of(ended.state)},
            {"stdout", text_of(ended.stdout_data)},
            {"stderr", text_of(ended.stderr_data)},
            {"timestamp", when},
            {"error", error_of(ended)},
            {"metadata", past.metadata}};
  put_twice(made, "vm_id", ended.machine);
  put_twice(made, "agent_id", ended.agent_id);
  put_twice(made, "exit_code", exit_code_of(ended));
  put_twice(made, "executed_at", when);
  put_twice(made, "duration_ms", ended.wall_us / 1000);
  put_twice(made, "snapshot_id", state_after(past, snapshots));
  put_twice(made, "snapshot_before", or_null(ended.snapshot_before));
  put_twice(made, "snapshot_after", or_null(ended.snapshot_after));
  put_twice(made, "rolled_back_to", or_null(ended.rolled_back_to));
  return made;
}

json history_json(const history_page& page, const std::string& vm_id,
                  const std::vector<snapshot_info>& snapshots) {
  json list = json::array();
  for (const entry& past : page.entries)
    if (auto one = entry_json(past, snapshots))
      list.push_back(std::move(*one));
  json made{{"history", list}, {"entries", list}, {"total", page.total}};
  put_twice(made, "vm_id", vm_id);
  if (page.next_before)
    put_twice(made, "next_before", *page.next_before);
  return made;
}

json block_json(const code_block& block) {
  json metadata{{"type", block.in_line ? "inline" : "fence"}};
  if (!block.attributes.empty())
    metadata["attributes"] = block.attributes;
  return {{"language", block.language},
          {"code", block.code},
          {"execution_confidence", block.confidence},
          {"start_pos", block.start},
          {"end_pos", block.end},
          {"metadata", metadata}};
}

json intent_json(const execution_intent& intent) {
  return {{"confidence", intent.confidence},
          {"trigger_keywords", intent.trigger_keywords},
          {"context_clues", intent.context_clues},
          {"suggested_action", intent.suggested_action}};
}

} // namespace berth::http::fcctl
