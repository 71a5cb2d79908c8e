// SPDX-License-Identifier: Apache-2.0
#include "config/settings.hpp"

#include "config/policy_reader.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unistd.h>

namespace berth {

namespace {

using config::json;
using config::object_reader;

/// A settings file larger than this is none.
constexpr std::size_t file_bytes_max = 4 * limits::mib;

void read_pool(const json& from, const std::string& path, pool_settings& to, std::string& fault) {
  object_reader in{from, path, fault};
  in.member("slots_max", to.slots_max);
  in.member("warm", to.warm);
  in.member("warm_max", to.warm_max);
  in.member("waiting_max", to.waiting_max);
  in.member("jobs_alive_max", to.jobs_alive_max);
  in.member("session_pause_ms", to.session_pause_ms);
  in.member("session_idle_ms", to.session_idle_ms);
  in.member("start_timeout_ms", to.start_timeout_ms);
  in.member("queue_timeout_ms", to.queue_timeout_ms);
  in.member("restarts_per_minute_max", to.restarts_per_minute_max);
  in.refuse_unknown();
}

void read_snapshots(const json& from, const std::string& path, snapshot_settings& to,
                    std::string& fault) {
  object_reader in{from, path, fault};
  in.member("bytes_max", to.bytes_max);
  in.member("per_session_max", to.per_session_max);
  in.member("checkpoint_idle_ms", to.checkpoint_idle_ms);
  in.refuse_unknown();
}

void read_qemu(const json& from, const std::string& path, qemu_options& to, std::string& fault) {
  object_reader in{from, path, fault};
  in.member("binary", to.binary);
  in.member("image", to.image);
  in.member("vcpus", to.vcpus);
  in.member("translation_mib", to.translation_mib);
  in.refuse_unknown();
}

void read_firecracker(const json& from, const std::string& path, firecracker_options& to,
                      std::string& fault) {
  object_reader in{from, path, fault};
  in.member("binary", to.binary);
  in.member("jailer", to.jailer);
  in.member("image", to.image);
  in.member("vcpus", to.vcpus);
  in.member("memory", to.memory);
  in.member("metrics", to.metrics);
  in.member("disk_bytes_per_second", to.disk_bytes_per_second);
  in.member("disk_operations_per_second", to.disk_operations_per_second);
  in.refuse_unknown();
}

/// Reads an object whose members are objects under names of the operator's own:
/// `read_one(reader, value)`.
template <class T, class F>
void read_named(const json& from, const std::string& path, std::map<std::string, T>& to,
                std::string& fault, F read_one) {
  if (!from.is_object()) {
    object_reader in{from, path, fault}; // says so
    return;
  }
  for (const auto& [name, value] : from.items()) {
    object_reader in{value, path + "." + name, fault};
    read_one(in, to[name]);
    in.refuse_unknown();
  }
}

void read_price(object_reader& in, model_price& to) {
  in.member("input_usd", to.input_usd);
  in.member("output_usd", to.output_usd);
}

void read_endpoint(const json& from, const std::string& path, model_endpoint& to,
                   std::string& fault) {
  object_reader in{from, path, fault};
  in.member("provider", to.provider);
  in.member("base_url", to.base_url);
  in.member("api_key_env", to.api_key_env);
  in.member("api_version", to.api_version);
  in.member("model", to.model);
  in.member("calls_max", to.calls_max);
  in.member("waiting_max", to.waiting_max);
  in.member("timeout_ms", to.timeout_ms);
  in.member("connect_timeout_ms", to.connect_timeout_ms);
  in.member("silence_timeout_ms", to.silence_timeout_ms);
  in.member("attempts_max", to.attempts_max);
  in.member("answer_bytes_max", to.answer_bytes_max);
  in.member_with("prices", [&](const json& value, const std::string& where) {
    read_named(value, where, to.prices, fault, read_price);
  });
  in.refuse_unknown();
}

void read_models(const json& from, const std::string& path, std::vector<model_endpoint>& to,
                 std::string& fault) {
  if (!from.is_array()) {
    if (fault.empty())
      fault = path + ": must be a list, is " + config::kind_of(from);
    return;
  }
  to.assign(from.size(), model_endpoint{});
  for (std::size_t i = 0; i < from.size(); ++i)
    read_endpoint(from[i], path + "[" + std::to_string(i) + "]", to[i], fault);
}

void read_agents(const json& from, const std::string& path, agent_settings& to,
                 std::string& fault) {
  object_reader in{from, path, fault};
  in.member("roles_dir", to.roles_dir);
  in.member("turns_alive_max", to.turns_alive_max);
  in.member("conversations_max", to.conversations_max);
  in.member("rounds_max", to.rounds_max);
  in.member("result_bytes_max", to.result_bytes_max);
  in.refuse_unknown();
}

void read_workflows(const json& from, const std::string& path, workflow_settings& to,
                    std::string& fault) {
  object_reader in{from, path, fault};
  in.member("alive_max", to.alive_max);
  in.member("kept_max", to.kept_max);
  in.member("on_restart", to.on_restart);
  in.member("branches_max", to.branches_max);
  in.refuse_unknown();
}

/// Returns whether the file sets the time limit.
bool read_limits(const json& from, const std::string& path, job_limits& to, std::string& fault) {
  object_reader in{from, path, fault};
  bool timeout = in.has("timeout_ms");
  in.member("timeout_ms", to.timeout_ms);
  in.member("memory_mib", to.memory_mib);
  in.member("processes", to.processes);
  in.member("output_bytes", to.output_bytes);
  in.member("disk_mib", to.disk_mib);
  in.refuse_unknown();
  return timeout;
}

/// Types of the file are added to the built-in ones, or replace members of them.
void read_vm_type(object_reader& in, vm_type& to) {
  in.member("memory_mib", to.memory_mib);
  in.member("processes", to.processes);
  in.member("disk_mib", to.disk_mib);
  in.member("kind", to.kind);
  in.member("image", to.image);
  in.member("vcpus", to.vcpus);
  in.member("network", to.network);
}

void read_doors(object_reader& in, settings& to) {
  in.member("zmq_router", to.zmq_router);
  in.member("zmq_ipc", to.zmq_ipc);
  in.member("zmq_events", to.zmq_events);
  in.member("zmq_curve_secret_key", to.zmq_curve_secret_key);
  in.member("zmq_curve_public_key", to.zmq_curve_public_key);
  in.member("zmq_curve_clients", to.zmq_curve_clients);
  in.member("http_address", to.http_address);
  in.member("http_port", to.http_port);
  in.member("http_terraphim_port", to.http_terraphim_port);
  in.member("http_tokens", to.http_tokens);
  in.member("http_insecure", to.http_insecure);
}

/// Two members of the file that mean the same must not differ; one alone sets both.
void join_timeouts(settings& to, bool defaults_given, bool policy_given, std::string& fault) {
  std::uint64_t& plain = to.defaults.timeout_ms;
  std::uint64_t& policy = to.policy.execution_timeout_ms;
  if (defaults_given && policy_given && plain != policy && fault.empty())
    fault = "defaults.timeout_ms: differs from vm_execution.execution_timeout_ms; give one of them";
  if (policy_given)
    plain = policy;
  else
    policy = plain;
}

void read_all(const json& root, settings& to, std::string& fault) {
  object_reader in{root, "", fault};
  in.member("data_dir", to.data_dir);
  in.member("runtime_dir", to.runtime_dir);
  in.member("lib_dir", to.lib_dir);
  read_doors(in, to);
  in.member("kind", to.kind);
  in.member("require", to.require);
  bool timeout_given = false;
  config::policy_given policy_given;
  in.member_with("pool", [&](const json& value, const std::string& path) {
    read_pool(value, path, to.pool, fault);
  });
  in.member_with("models", [&](const json& value, const std::string& path) {
    read_models(value, path, to.models, fault);
  });
  in.member_with("agents", [&](const json& value, const std::string& path) {
    read_agents(value, path, to.agents, fault);
  });
  in.member_with("workflows", [&](const json& value, const std::string& path) {
    read_workflows(value, path, to.workflows, fault);
  });
  in.member_with("qemu", [&](const json& value, const std::string& path) {
    read_qemu(value, path, to.qemu, fault);
  });
  in.member_with("firecracker", [&](const json& value, const std::string& path) {
    read_firecracker(value, path, to.firecracker, fault);
  });
  in.member_with("snapshots", [&](const json& value, const std::string& path) {
    read_snapshots(value, path, to.snapshots, fault);
  });
  in.member_with("defaults", [&](const json& value, const std::string& path) {
    timeout_given = read_limits(value, path, to.defaults, fault);
  });
  in.member_with("maxima", [&](const json& value, const std::string& path) {
    read_limits(value, path, to.maxima, fault);
  });
  in.member_with("vm_types", [&](const json& value, const std::string& path) {
    read_named(value, path, to.vm_types, fault, read_vm_type);
  });
  in.member("drain_grace_ms", to.drain_grace_ms);
  in.member("server_uid", to.server_uid);
  in.member("reply_output_bytes", to.reply_output_bytes);
  in.member("history_output_bytes", to.history_output_bytes);
  in.member("spool_bytes_max", to.spool_bytes_max);
  in.member("journal_bytes_max", to.journal_bytes_max);
  in.member("log_level", to.log_level);
  in.member_with("vm_execution", [&](const json& value, const std::string& path) {
    policy_given = config::read_policy(value, path, to.policy, fault);
  });
  in.refuse_unknown();
  join_timeouts(to, timeout_given, policy_given.execution_timeout_ms, fault);
  if (policy_given.vm_pool_size)
    to.pool.warm[""] = std::max(to.pool.warm[""], to.policy.vm_pool_size);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name); // before any thread: only the start reads settings
  return value == nullptr ? "" : value;
}

std::string default_data_dir() {
  if (geteuid() == 0)
    return "/var/lib/berth";
  if (std::string state = environment("XDG_STATE_HOME"); !state.empty())
    return state + "/berth";
  if (std::string home = environment("HOME"); !home.empty())
    return home + "/.local/state/berth";
  return "/var/tmp/berth-" + std::to_string(geteuid());
}

std::string default_runtime_dir() {
  if (geteuid() == 0)
    return "/run/berth";
  if (std::string runtime = environment("XDG_RUNTIME_DIR"); !runtime.empty())
    return runtime + "/berth";
  return "/tmp/berth-" + std::to_string(geteuid());
}

/// Beside the executable in a build tree, ../lib/berth in an installation.
std::string find_lib_dir() {
  std::error_code failed;
  auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed)
    return "/usr/lib/berth";
  auto beside = self.parent_path() / "lib" / "berth";
  if (std::filesystem::is_directory(beside, failed))
    return beside.string();
  return (self.parent_path().parent_path() / "lib" / "berth").string();
}

} // namespace

std::map<std::string, vm_type> default_vm_types() {
  vm_type small{.memory_mib = 512, .processes = 64, .disk_mib = 256, .kind = {}};
  vm_type medium{.memory_mib = 1024, .processes = 128, .disk_mib = 512, .kind = {}};
  vm_type large{.memory_mib = 2048, .processes = 256, .disk_mib = 1024, .kind = {}};
  vm_type virtual_one{.memory_mib = 512, .processes = 64, .disk_mib = 256, .kind = "qemu"};
  vm_type by_firecracker = virtual_one;
  by_firecracker.kind = "firecracker";
  return {{"terraphim-minimal", small},
          {"standard", small},
          {"test-vm", small},
          {"bionic-test", small},
          {"focal", medium},
          {"focal-optimized", medium},
          {"focal-ci", medium},
          {"ubuntu", medium},
          {"ubuntu-focal", medium},
          {"test-optimized", medium},
          {"development", large},
          {"rust-vm", large},
          {"rust-ci", large},
          {"berth-vm", virtual_one},
          {"berth-firecracker", by_firecracker}};
}

expected<settings> parse_settings(std::string_view text, const std::string& name) {
  config::parsed file = config::parse(text);
  settings values;
  if (file.fault.empty())
    read_all(file.root, values, file.fault);
  if (!file.fault.empty())
    return fail(ec::malformed, name + ": " + file.fault);
  if (error why = check(values))
    return fail(static_cast<ec>(why.code()), name + ": " + to_refusal(why).detail);
  return values;
}

expected<settings> load_settings(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  if (!file)
    return fail(ec::not_found, path + ": cannot be opened: " + std::strerror(errno));
  std::string text(file_bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof()))
    return fail(ec::malformed, path + ": cannot be read");
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > file_bytes_max)
    return fail(ec::too_large, path + ": is larger than 4 MiB");
  return parse_settings(text, path);
}

void fill_paths(settings& values) {
  if (values.data_dir.empty())
    values.data_dir = default_data_dir();
  if (values.runtime_dir.empty())
    values.runtime_dir = default_runtime_dir();
  if (values.lib_dir.empty())
    values.lib_dir = find_lib_dir();
  if (values.agents.roles_dir.empty())
    values.agents.roles_dir = values.lib_dir + "/roles";
  if (values.zmq_ipc == "auto")
    values.zmq_ipc = "ipc://" + values.runtime_dir + "/berth.ipc";
}

} // namespace berth
