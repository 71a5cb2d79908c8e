// SPDX-License-Identifier: Apache-2.0
#include "config/kinds.hpp"
#include "config/languages.hpp"
#include "config/network.hpp"
#include "config/settings.hpp"

#include <algorithm>

namespace berth {

namespace {

error wrong(const std::string& field, const std::string& reason) {
  return fail(ec::malformed, field + ": " + reason);
}

std::string quoted(std::string_view text) {
  std::string all = "\"";
  all += text;
  all += '"';
  return all;
}

template <class List>
error one_of(const std::string& field, std::string_view value, const List& known) {
  std::string names;
  for (std::string_view name : known) {
    if (name == value)
      return {};
    if (!names.empty())
      names += ", ";
    names += name;
  }
  return wrong(field, quoted(value) + " is none of " + names);
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "lo" || host == "::1" || host == "[::1]"
         || (host.starts_with("127.")
             && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

/// Z85, ZeroMQ's own alphabet for keys.
bool is_key(std::string_view text) {
  constexpr std::string_view alphabet =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
      ".-:+=^!/*?&<>()[]{}@%$#";
  return text.size() == 40 && text.find_first_not_of(alphabet) == std::string_view::npos;
}

error check_endpoint(const std::string& field, const std::string& endpoint, bool guarded) {
  if (endpoint.empty() || endpoint.starts_with("inproc://"))
    return {};
  if (endpoint.starts_with("ipc://")) {
    if (endpoint.size() - 6 == 0 || endpoint.size() - 6 > 107) // sun_path
      return wrong(field, "the path must have 1 to 107 bytes");
    return {};
  }
  std::size_t colon = endpoint.rfind(':');
  if (!endpoint.starts_with("tcp://") || colon < 7 || colon + 1 == endpoint.size())
    return wrong(field, "must be tcp://address:port, ipc://path or inproc://name");
  std::string_view port = std::string_view{endpoint}.substr(colon + 1);
  bool any = port == "*" || port == "!";
  bool number = port.size() <= 5 && port.find_first_not_of("0123456789") == std::string_view::npos
                && std::stoul(std::string{port}) <= 65535;
  if (!any && !number)
    return wrong(field, "the port must be a number up to 65535 or *");
  std::string_view host = std::string_view{endpoint}.substr(6, colon - 6);
  if (!is_loopback(host) && !guarded)
    return wrong(field, "listens beyond loopback, which needs zmq_curve_secret_key, "
                        "zmq_curve_public_key and zmq_curve_clients");
  return {};
}

error check_keys(const settings& values) {
  bool secret = !values.zmq_curve_secret_key.empty();
  bool open = !values.zmq_curve_public_key.empty();
  if (secret != open)
    return wrong(secret ? "zmq_curve_public_key" : "zmq_curve_secret_key",
                 "is missing; both keys of the server are needed");
  if (secret && !is_key(values.zmq_curve_secret_key)) // never print it
    return wrong("zmq_curve_secret_key", "must be 40 characters of Z85");
  if (open && !is_key(values.zmq_curve_public_key))
    return wrong("zmq_curve_public_key", "must be 40 characters of Z85");
  for (std::size_t i = 0; i < values.zmq_curve_clients.size(); ++i)
    if (!is_key(values.zmq_curve_clients[i]))
      return wrong("zmq_curve_clients[" + std::to_string(i) + "]", "must be 40 characters of Z85");
  if (!values.zmq_curve_clients.empty() && !secret)
    return wrong("zmq_curve_clients", "needs zmq_curve_secret_key and zmq_curve_public_key");
  return {};
}

error check_zmq(const settings& values) {
  if (error why = check_keys(values))
    return why;
  bool guarded = !values.zmq_curve_clients.empty();
  if (values.zmq_router.empty())
    return wrong("zmq_router", "must not be empty");
  if (values.zmq_events.empty())
    return wrong("zmq_events", "must not be empty");
  if (error why = check_endpoint("zmq_router", values.zmq_router, guarded))
    return why;
  if (values.zmq_ipc != "auto")
    if (error why = check_endpoint("zmq_ipc", values.zmq_ipc, guarded))
      return why;
  return check_endpoint("zmq_events", values.zmq_events, guarded);
}

error check_http(const settings& values) {
  if (values.http_address.empty())
    return wrong("http_address", "must not be empty");
  if (values.http_port != 0 && values.http_port == values.http_terraphim_port)
    return wrong("http_terraphim_port", "must be another than http_port; 0: no second port");
  for (std::size_t i = 0; i < values.http_tokens.size(); ++i) {
    const std::string& token = values.http_tokens[i];
    bool visible = std::ranges::all_of(token, [](char c) { return c > ' ' && c < 0x7F; });
    if (token.empty() || !visible)
      return wrong("http_tokens[" + std::to_string(i) + "]", "must be visible ASCII characters");
  }
  if (!is_loopback(values.http_address) && values.http_tokens.empty() && !values.http_insecure)
    return wrong("http_address",
                 "listens beyond loopback, which needs http_tokens or http_insecure: true");
  return {};
}

error check_pool(const settings& values) {
  const pool_settings& pool = values.pool;
  if (pool.slots_max < 1 || pool.slots_max > limits::sessions_max)
    return wrong("pool.slots_max", "must be 1 to " + std::to_string(limits::sessions_max));
  const auto others = other_makes(values);
  for (const auto& [name, count] : pool.warm) {
    flavour wanted = flavour::of(name, values.kind);
    if (!wanted.warm.empty() && std::ranges::find(languages, wanted.warm) == languages.end())
      return wrong("pool.warm", quoted(wanted.warm) + " is no language; \"\" is a plain machine");
    if (wanted.make != values.kind && std::ranges::find(others, wanted.make) == others.end())
      return wrong("pool.warm", quoted(wanted.make) + " are the machines of no machine type");
    if (count > pool.slots_max)
      return wrong("pool.warm." + name, "is more than pool.slots_max");
  }
  if (pool.warm_max > pool.slots_max)
    return wrong("pool.warm_max", "is more than pool.slots_max");
  if (pool.waiting_max > limits::requests_open_max)
    return wrong("pool.waiting_max", "is more than " + std::to_string(limits::requests_open_max));
  if (pool.jobs_alive_max < 1 || pool.jobs_alive_max > limits::requests_open_max)
    return wrong("pool.jobs_alive_max",
                 "must be 1 to " + std::to_string(limits::requests_open_max));
  if (pool.session_idle_ms < 1000)
    return wrong("pool.session_idle_ms", "must be at least 1000");
  if (pool.session_pause_ms != 0 && pool.session_pause_ms < 1000)
    return wrong("pool.session_pause_ms", "must be 0 or at least 1000");
  if (pool.start_timeout_ms < 100)
    return wrong("pool.start_timeout_ms", "must be at least 100");
  if (pool.queue_timeout_ms < 1)
    return wrong("pool.queue_timeout_ms", "must be at least 1");
  return {};
}

error check_limits(const settings& values) {
  struct row {
    const char* name;
    std::uint64_t job_limits::*member;
    std::uint64_t least;
    std::uint64_t most;
  };
  // The tops keep sums and units (bytes, nanoseconds) within 63 bits.
  const row rows[] = {
      {"timeout_ms", &job_limits::timeout_ms, limits::timeout_ms_min, 30ULL * 24 * 3600 * 1000},
      {"memory_mib", &job_limits::memory_mib, limits::memory_mib_min, 1ULL << 24},
      {"processes", &job_limits::processes, limits::processes_min, 1ULL << 20},
      {"output_bytes", &job_limits::output_bytes, 0, 1ULL << 40},
      {"disk_mib", &job_limits::disk_mib, limits::disk_mib_min, 1ULL << 24},
  };
  for (const row& r : rows) {
    std::string name = r.name;
    std::uint64_t most = values.maxima.*r.member;
    std::uint64_t usual = values.defaults.*r.member;
    if (most < r.least || most > r.most)
      return wrong("maxima." + name,
                   "must be " + std::to_string(r.least) + " to " + std::to_string(r.most));
    if (usual < r.least)
      return wrong("defaults." + name, "must be at least " + std::to_string(r.least));
    if (usual > most)
      return wrong("defaults." + name,
                   std::to_string(usual) + " exceeds maxima." + name + ", " + std::to_string(most));
  }
  return {};
}

error check_image(const std::string& field, const std::string& image) {
  bool is_name = !image.empty() && image.size() <= limits::name_bytes_max
                 && image.find_first_of("/:") == std::string::npos;
  return is_name ? error{} : wrong(field, "must be the name of an image");
}

error check_vcpus(const std::string& field, std::uint32_t vcpus) {
  bool fits = vcpus >= 1 && vcpus <= limits::vcpus_max;
  return fits ? error{} : wrong(field, "must be 1 to " + std::to_string(limits::vcpus_max));
}

/// What only virtual machines have.
error check_virtual(const std::string& field, const vm_type& type) {
  bool is_virtual = type.kind == "qemu" || type.kind == "firecracker";
  if (!type.image.empty()) {
    if (!is_virtual)
      return wrong(field + ".image", "needs a kind of virtual machines");
    if (error why = check_image(field + ".image", type.image))
      return why;
  }
  if (type.vcpus == 0)
    return {};
  if (!is_virtual)
    return wrong(field + ".vcpus", "needs a kind of virtual machines");
  return check_vcpus(field + ".vcpus", type.vcpus);
}

/// Letters, digits, '-', '_' and '.': what the name of a make is parted by is none of these.
bool is_plain_name(std::string_view name) {
  return std::ranges::all_of(name, [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'
           || c == '_' || c == '.';
  });
}

error check_network(const std::string& name, const std::string& field, const vm_type& type) {
  if (type.network.empty())
    return {};
  if (type.kind != "namespace" && type.kind != "qemu" && type.kind != "firecracker")
    return wrong(field, "needs a kind: namespace or qemu");
  if (!is_plain_name(name))
    return wrong(field, "needs a machine type whose name is letters, digits, '-', '_' and '.'");
  if (type.network.size() > limits::network_rules_max)
    return wrong(field, "has more than " + std::to_string(limits::network_rules_max) + " places");
  for (std::size_t i = 0; i < type.network.size(); ++i)
    if (auto rule = parse_network_rule(type.network[i]); !rule)
      return wrong(field + "[" + std::to_string(i) + "]", to_refusal(rule.error()).detail);
  return {};
}

error check_vm_types(const settings& values) {
  constexpr std::string_view kinds[] = {"", "auto", "namespace", "instant", "qemu", "firecracker"};
  for (const auto& [name, type] : values.vm_types) {
    std::string field = "vm_types." + name;
    if (name.empty() || name.size() > limits::name_bytes_max)
      return wrong("vm_types", "a name must have 1 to 256 bytes");
    if (type.memory_mib < limits::memory_mib_min)
      return wrong(field + ".memory_mib",
                   "must be at least " + std::to_string(limits::memory_mib_min));
    if (type.processes < limits::processes_min)
      return wrong(field + ".processes", "must be at least 1");
    if (type.disk_mib < limits::disk_mib_min)
      return wrong(field + ".disk_mib", "must be at least 1");
    if (error why = one_of(field + ".kind", type.kind, kinds))
      return why;
    if (error why = check_virtual(field, type))
      return why;
    if (error why = check_network(name, field + ".network", type))
      return why;
  }
  if (other_makes(values).size() > limits::machine_makes_max)
    return wrong("vm_types", "have more than " + std::to_string(limits::machine_makes_max)
                                 + " different kinds, images, numbers of processors and networks");
  return {};
}

bool is_version_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'
         || c == '.';
}

error check_models(const settings& values) {
  constexpr std::string_view providers[] = {"ollama", "openai"};
  for (std::size_t i = 0; i < values.models.size(); ++i) {
    const model_endpoint& each = values.models[i];
    std::string field = "models[" + std::to_string(i) + "].";
    if (error why = one_of(field + "provider", each.provider, providers))
      return why;
    bool plain = each.base_url.starts_with("http://") && each.base_url.size() > 7;
    bool sealed = each.base_url.starts_with("https://") && each.base_url.size() > 8;
    if (!plain && !sealed)
      return wrong(field + "base_url", "must begin with http:// or https://");
    if (std::ranges::any_of(each.base_url, [](unsigned char c) { return c <= ' ' || c == 0x7F; }))
      return wrong(field + "base_url", "must not have blanks or control characters");
    // A password would be shown wherever the endpoint is named.
    if (each.base_url.find_first_of("@?#") != std::string::npos)
      return wrong(field + "base_url", "must not have a user, a query or a fragment");
    if (!std::ranges::all_of(each.api_version, is_version_char))
      return wrong(field + "api_version", "must be letters, digits, '-' and '.'");
    if (!each.api_version.empty() && each.provider != "openai")
      return wrong(field + "api_version", "is for openai endpoints only");
    if (each.calls_max < 1 || each.calls_max > 1024)
      return wrong(field + "calls_max", "must be 1 to 1024");
    if (each.waiting_max > limits::requests_open_max)
      return wrong(field + "waiting_max",
                   "is more than " + std::to_string(limits::requests_open_max));
    if (each.timeout_ms < 1 || each.connect_timeout_ms < 1 || each.silence_timeout_ms < 1)
      return wrong(field + "timeout_ms", "each of the three time limits must be at least 1");
    if (each.attempts_max < 1 || each.attempts_max > 10)
      return wrong(field + "attempts_max", "must be 1 to 10");
    if (each.answer_bytes_max < limits::kib || each.answer_bytes_max > 256 * limits::mib)
      return wrong(field + "answer_bytes_max", "must be 1024 to 268435456");
    for (const auto& [model, price] : each.prices)
      if (!(price.input_usd >= 0) || !(price.output_usd >= 0))
        return wrong(field + "prices." + model, "must not be negative");
  }
  return {};
}

error check_agents(const settings& values) {
  const agent_settings& agents = values.agents;
  if (!agents.roles_dir.empty() && !agents.roles_dir.starts_with('/'))
    return wrong("agents.roles_dir", "must be an absolute path");
  if (agents.turns_alive_max < 1 || agents.turns_alive_max > limits::requests_open_max)
    return wrong("agents.turns_alive_max",
                 "must be 1 to " + std::to_string(limits::requests_open_max));
  if (agents.conversations_max < 1 || agents.conversations_max > 1'000'000)
    return wrong("agents.conversations_max", "must be 1 to 1000000");
  if (agents.rounds_max < 1 || agents.rounds_max > 100)
    return wrong("agents.rounds_max", "must be 1 to 100");
  if (agents.result_bytes_max < limits::kib || agents.result_bytes_max > limits::mib)
    return wrong("agents.result_bytes_max", "must be 1024 to 1048576");
  const workflow_settings& workflows = values.workflows;
  if (workflows.alive_max < 1 || workflows.alive_max > 10'000)
    return wrong("workflows.alive_max", "must be 1 to 10000");
  if (workflows.kept_max < 1 || workflows.kept_max > 1'000'000)
    return wrong("workflows.kept_max", "must be 1 to 1000000");
  if (workflows.branches_max < 1 || workflows.branches_max > 256)
    return wrong("workflows.branches_max", "must be 1 to 256");
  constexpr std::string_view ways[] = {"resume", "interrupt"};
  return one_of("workflows.on_restart", workflows.on_restart, ways);
}

error check_policy(const vm_execution_policy& policy) {
  const std::string in = "vm_execution.";
  for (std::size_t i = 0; i < policy.allowed_languages.size(); ++i)
    if (error why = one_of(in + "allowed_languages[" + std::to_string(i) + "]",
                           canonical_language(policy.allowed_languages[i]).value_or(""), languages))
      return wrong(in + "allowed_languages[" + std::to_string(i) + "]",
                   quoted(policy.allowed_languages[i])
                       + " is none of python, javascript, bash, rust, go");
  if (policy.max_code_length < 1 || policy.max_code_length > limits::code_bytes_max)
    return wrong(in + "max_code_length", "must be 1 to " + std::to_string(limits::code_bytes_max));
  if (policy.execution_timeout_ms < 1)
    return wrong(in + "execution_timeout_ms", "must be at least 1");
  const auto& caps = policy.security_settings.resource_limits;
  if (caps.max_memory_mb && *caps.max_memory_mb < limits::memory_mib_min)
    return wrong(in + "security_settings.resource_limits.max_memory_mb",
                 "must be at least " + std::to_string(limits::memory_mib_min));
  if (caps.max_execution_time_seconds && *caps.max_execution_time_seconds < 1)
    return wrong(in + "security_settings.resource_limits.max_execution_time_seconds",
                 "must be at least 1");
  constexpr std::string_view actions[] = {"block", "warn"};
  if (error why = one_of(in + "security_settings.pattern_action",
                         policy.security_settings.pattern_action, actions))
    return why;
  constexpr std::string_view modes[] = {"http", "direct"};
  if (error why = one_of(in + "history.integration_mode", policy.history.integration_mode, modes))
    return why;
  if (policy.history.max_history_entries < 1)
    return wrong(in + "history.max_history_entries", "must be at least 1");
  return {};
}

error check_qemu(const qemu_options& qemu) {
  if (!qemu.binary.starts_with('/'))
    return wrong("qemu.binary", "must be an absolute path");
  if (error why = check_image("qemu.image", qemu.image))
    return why;
  if (error why = check_vcpus("qemu.vcpus", qemu.vcpus))
    return why;
  if (qemu.translation_mib < 16 || qemu.translation_mib > 1024)
    return wrong("qemu.translation_mib", "must be 16 to 1024");
  return {};
}

error check_firecracker(const firecracker_options& firecracker) {
  constexpr std::string_view memories[] = {"file", "uffd"};
  if (!firecracker.binary.starts_with('/'))
    return wrong("firecracker.binary", "must be an absolute path");
  if (!firecracker.jailer.starts_with('/'))
    return wrong("firecracker.jailer", "must be an absolute path");
  if (error why = check_image("firecracker.image", firecracker.image))
    return why;
  if (error why = check_vcpus("firecracker.vcpus", firecracker.vcpus))
    return why;
  return one_of("firecracker.memory", firecracker.memory, memories);
}

error check_rest(const settings& values) {
  constexpr std::string_view kinds[] = {"auto", "namespace", "instant", "qemu", "firecracker"};
  constexpr std::string_view walls[] = {"user_namespace", "seccomp", "landlock", "cgroup_memory",
                                        "cgroup_pids"};
  constexpr std::string_view levels[] = {"debug", "info", "warn", "error"};
  if (error why = one_of("kind", values.kind, kinds))
    return why;
  for (std::size_t i = 0; i < values.require.size(); ++i)
    if (error why = one_of("require[" + std::to_string(i) + "]", values.require[i], walls))
      return why;
  if (error why = one_of("log_level", values.log_level, levels))
    return why;
  for (auto [name, path] :
       {std::pair{"data_dir", &values.data_dir}, std::pair{"runtime_dir", &values.runtime_dir},
        std::pair{"lib_dir", &values.lib_dir}})
    if (!path->empty() && !path->starts_with('/'))
      return wrong(name, "must be an absolute path");
  if (values.reply_output_bytes > limits::read_bytes_max)
    return wrong("reply_output_bytes", "must be at most " + std::to_string(limits::read_bytes_max));
  if (values.history_output_bytes > limits::read_bytes_max)
    return wrong("history_output_bytes",
                 "must be at most " + std::to_string(limits::read_bytes_max));
  if (values.spool_bytes_max < limits::mib)
    return wrong("spool_bytes_max", "must be at least 1048576");
  if (error why = check_qemu(values.qemu))
    return why;
  if (error why = check_firecracker(values.firecracker))
    return why;
  if (values.snapshots.bytes_max < limits::mib)
    return wrong("snapshots.bytes_max", "must be at least 1048576");
  if (values.snapshots.per_session_max < 1)
    return wrong("snapshots.per_session_max", "must be at least 1");
  if (values.snapshots.checkpoint_idle_ms != 0 && values.snapshots.checkpoint_idle_ms < 100)
    return wrong("snapshots.checkpoint_idle_ms", "must be 0 or at least 100");
  if (values.journal_bytes_max < limits::mib)
    return wrong("journal_bytes_max", "must be at least 1048576");
  return {};
}

} // namespace

error check(const settings& values) {
  using step = error (*)(const settings&);
  for (step next : {step{check_zmq}, step{check_http}, step{check_pool}, step{check_limits},
                    step{check_vm_types}, step{check_models}, step{check_agents}, step{check_rest}})
    if (error why = next(values))
      return why;
  return check_policy(values.policy);
}

} // namespace berth
