// SPDX-License-Identifier: Apache-2.0
#include "config/languages.hpp"
#include "config/settings.hpp"
#include "messages/internal.hpp"

#include <algorithm>

namespace berth {

namespace {

/// One limit: its name on the wire and what it may be.
struct bound {
  const char* name;
  std::uint64_t least;
  std::uint64_t most;
};

error check_bound(const bound& range, std::uint64_t asked) {
  if (asked < range.least)
    return fail(ec::malformed,
                std::string{range.name} + ": must be at least " + std::to_string(range.least));
  if (asked > range.most)
    return fail(ec::too_large, std::string{range.name} + ": " + std::to_string(asked)
                                   + " exceeds the limit of " + std::to_string(range.most));
  return {};
}

/// What a job or machine may be given: maxima lowered by the policy.
job_limits caps_of(const settings& values) {
  job_limits caps = values.maxima;
  const auto& policy = values.policy.security_settings.resource_limits;
  if (policy.max_memory_mb)
    caps.memory_mib = std::min(caps.memory_mib, *policy.max_memory_mb);
  const auto& seconds = policy.max_execution_time_seconds;
  if (seconds && *seconds <= caps.timeout_ms / 1000) // compared so that nothing overflows
    caps.timeout_ms = *seconds * 1000;
  return caps;
}

bool has_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

error too_long(const std::string& field, std::size_t size, std::size_t most) {
  return fail(ec::too_large, field + ": " + std::to_string(size) + " bytes exceed the limit of "
                                 + std::to_string(most));
}

error check_name(const std::string& field, std::string_view text) {
  if (text.size() > limits::name_bytes_max)
    return too_long(field, text.size(), limits::name_bytes_max);
  for (char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      return fail(ec::malformed, field + ": must not contain control characters");
  return {};
}

error check_path(const std::string& field, std::string_view path) {
  if (path.size() > limits::path_bytes_max)
    return too_long(field, path.size(), limits::path_bytes_max);
  if (has_nul(path))
    return fail(ec::malformed, field + ": must not contain NUL");
  for (std::size_t at = 0; at < path.size();) {
    std::size_t end = std::min(path.find('/', at), path.size());
    if (end - at > 255)
      return fail(ec::too_large, field + ": a part of it is longer than 255 bytes");
    if (path.substr(at, end - at) == "..")
      return fail(ec::malformed, field + ": must not contain \"..\"");
    at = end + 1;
  }
  return {};
}

error check_code(const run& request) {
  if (is_blank(request.code))
    return fail(ec::malformed, "code: must not be empty");
  if (request.code.size() > limits::code_bytes_max)
    return too_long("code", request.code.size(), limits::code_bytes_max);
  if (has_nul(request.code))
    return fail(ec::malformed, "code: must not contain NUL");
  if (is_blank(request.language))
    return fail(ec::malformed, "language: must not be empty");
  if (!canonical_language(request.language))
    return fail(ec::unsupported,
                "language: Unsupported language: " + request.language.substr(0, 64));
  return {};
}

error check_arguments(const run& request) {
  std::size_t total = 0;
  if (request.args.size() > limits::arguments_max)
    return fail(ec::too_large, "args: more than " + std::to_string(limits::arguments_max));
  if (request.env.size() > limits::arguments_max)
    return fail(ec::too_large, "env: more than " + std::to_string(limits::arguments_max));
  for (std::size_t i = 0; i < request.args.size(); ++i) {
    if (has_nul(request.args[i]))
      return fail(ec::malformed, "args[" + std::to_string(i) + "]: must not contain NUL");
    total += request.args[i].size() + 1;
  }
  for (const auto& [name, value] : request.env) {
    if (name.empty())
      return fail(ec::malformed, "env: a name must not be empty");
    if (name.find('=') != std::string::npos || has_nul(name))
      return fail(ec::malformed, "env: a name must not contain '=' or NUL");
    if (has_nul(value))
      return fail(ec::malformed, "env." + name.substr(0, 64) + ": must not contain NUL");
    total += name.size() + value.size() + 2;
  }
  if (total > limits::argument_bytes_max)
    return too_long("args and env", total, limits::argument_bytes_max);
  return {};
}

/// Whether a language has live interpreters.
error check_kernel_language(const std::string& field, const std::string& name) {
  auto language = canonical_language(name);
  if (!language)
    return fail(ec::unsupported, "language: Unsupported language: " + name.substr(0, 64));
  if (*language == "rust" || *language == "go")
    return fail(ec::unsupported,
                field + ": " + *language
                    + " has no live interpreter; python, javascript and bash have");
  return {};
}

error check_cell(const run& request) {
  const std::string field = request.context.empty() ? "kernel" : "context";
  if (auto why = check_name("context", request.context))
    return why;
  if (request.one_shot || (request.session.empty() && request.agent_id.empty()))
    return fail(ec::malformed,
                field + ": a live interpreter needs a session or an agent_id to live in");
  if (auto why = check_kernel_language(field, request.language))
    return why;
  if (!request.args.empty())
    return fail(ec::malformed, "args: a cell has none");
  if (!request.env.empty())
    return fail(ec::malformed, "env: a cell has the environment of its interpreter");
  return {};
}

error check_metadata(const run& request) {
  std::size_t total = 0;
  for (const auto& [name, value] : request.metadata)
    total += name.size() + value.size();
  if (request.metadata.size() > limits::metadata_members_max)
    return fail(ec::too_large,
                "metadata: more than " + std::to_string(limits::metadata_members_max) + " members");
  if (total > limits::metadata_bytes_max)
    return too_long("metadata", total, limits::metadata_bytes_max);
  return {};
}

error check_kind(std::string_view kind) {
  for (std::string_view known : {"", "auto", "namespace", "instant", "qemu", "firecracker"})
    if (kind == known)
      return {};
  return fail(ec::unsupported, "kind: no machine kind is named \"" + std::string{kind.substr(0, 64)}
                                   + "\"; namespace, qemu and firecracker are");
}

error check_isolation(std::string_view isolation) {
  if (isolation.empty() || isolation == "vm" || isolation == "namespace")
    return {};
  return fail(ec::unsupported, "isolation: is \"" + std::string{isolation.substr(0, 64)}
                                   + "\"; vm and namespace are known");
}

/// A value that was asked for, checked, or a fallback lowered to what is allowed.
error choose(const bound& range, const maybe<std::uint64_t>& asked, std::uint64_t fallback,
             std::uint64_t& chosen) {
  if (!asked) {
    chosen = std::min(fallback, range.most);
    return {};
  }
  chosen = *asked;
  return check_bound(range, *asked);
}

} // namespace

error check_vm_type(std::string_view name, const settings& values) {
  if (auto why = check_name("vm_type", name))
    return why;
  if (name.empty() || values.vm_types.contains(std::string{name}))
    return {};
  std::string known;
  for (const auto& [each, type] : values.vm_types)
    known += (known.empty() ? "" : ", ") + each;
  return fail(ec::unsupported, "vm_type: no machine type is named \""
                                   + std::string{name.substr(0, 64)} + "\"; " + known + " are");
}

vm_type find_vm_type(const settings& values, std::string_view name) {
  vm_type found{.memory_mib = values.defaults.memory_mib,
                .processes = values.defaults.processes,
                .disk_mib = values.defaults.disk_mib,
                .kind = {}};
  auto at = values.vm_types.find(std::string{name});
  if (at == values.vm_types.end())
    at = values.vm_types.find(values.policy.default_vm_type);
  if (at != values.vm_types.end())
    found = at->second;
  job_limits caps = caps_of(values);
  found.memory_mib = std::min(found.memory_mib, caps.memory_mib);
  found.processes = std::min(found.processes, caps.processes);
  found.disk_mib = std::min(found.disk_mib, caps.disk_mib);
  return found;
}

expected<job_limits> resolve_limits(const run& request, const settings& values) {
  if (auto why = check_vm_type(request.vm_type, values))
    return why;
  job_limits caps = caps_of(values);
  job_limits fallback = values.defaults;
  if (values.vm_types.contains(request.vm_type)) {
    vm_type type = find_vm_type(values, request.vm_type);
    fallback.memory_mib = type.memory_mib;
    fallback.processes = type.processes;
    fallback.disk_mib = type.disk_mib;
  }
  job_limits chosen;
  auto pick = [&](const char* name, std::uint64_t least, const maybe<std::uint64_t>& asked,
                  std::uint64_t job_limits::*member) {
    return choose({name, least, caps.*member}, asked, fallback.*member, chosen.*member);
  };
  using jl = job_limits;
  if (auto why = pick("timeout_ms", limits::timeout_ms_min, request.timeout_ms, &jl::timeout_ms))
    return why;
  if (auto why = pick("memory_mib", limits::memory_mib_min, request.memory_mib, &jl::memory_mib))
    return why;
  if (auto why = pick("processes", limits::processes_min, request.processes, &jl::processes))
    return why;
  if (auto why = pick("output_bytes", 0, request.output_bytes, &jl::output_bytes))
    return why;
  if (auto why = pick("disk_mib", limits::disk_mib_min, request.disk_mib, &jl::disk_mib))
    return why;
  return chosen;
}

error check_served(std::string_view served, std::string_view kind, std::string_view isolation,
                   const vm_type& machine) {
  auto other = [&](std::string_view wanted) {
    return !wanted.empty() && wanted != "auto" && wanted != served;
  };
  auto refuse = [&](const std::string& what) {
    return fail(ec::isolation_unavailable,
                what + " machines are not served here, " + std::string{served} + " ones are");
  };
  if (other(kind))
    return refuse("kind: " + std::string{kind});
  if (other(machine.kind))
    return refuse("vm_type: is of kind " + machine.kind + "; such");
  bool is_vm = served == "qemu" || served == "firecracker";
  if ((isolation == "vm" && !is_vm) || (isolation == "namespace" && served == "instant"))
    return refuse("isolation: " + std::string{isolation == "vm" ? "virtual" : "isolated"});
  return {};
}

expected<vm_type> resolve_machine(const open_session& request, const settings& values) {
  using limits::memory_mib_min;
  if (auto why = check_name("agent_id", request.agent_id))
    return why;
  if (auto why = check_name("name", request.name))
    return why;
  if (auto why = check_vm_type(request.vm_type, values))
    return why;
  if (auto why = check_kind(request.kind))
    return why;
  if (auto why = check_isolation(request.isolation))
    return why;
  job_limits caps = caps_of(values);
  vm_type type = find_vm_type(values, request.vm_type);
  if (!request.kind.empty())
    type.kind = request.kind;
  if (auto why = choose({"memory_mib", memory_mib_min, caps.memory_mib}, request.memory_mib,
                        type.memory_mib, type.memory_mib))
    return why;
  if (auto why = choose({"processes", limits::processes_min, caps.processes}, request.processes,
                        type.processes, type.processes))
    return why;
  if (auto why = choose({"disk_mib", limits::disk_mib_min, caps.disk_mib}, request.disk_mib,
                        type.disk_mib, type.disk_mib))
    return why;
  return type;
}

error check_in_session(const find_session& job, const vm_type& machine) {
  struct limit {
    const char* name;
    const maybe<std::uint64_t>& asked;
    std::uint64_t has;
  };
  for (const auto& one : {limit{"memory_mib", job.memory_mib, machine.memory_mib},
                          limit{"processes", job.processes, machine.processes},
                          limit{"disk_mib", job.disk_mib, machine.disk_mib}})
    if (one.asked && *one.asked != one.has)
      return fail(*one.asked > one.has ? ec::too_large : ec::unsupported,
                  std::string{one.name} + ": " + std::to_string(*one.asked)
                      + (*one.asked > one.has ? " exceeds" : " is not") + " the session's "
                      + std::to_string(one.has)
                      + ", which all its jobs share; leave it out, open the session with it, or "
                        "ask for one_shot");
  return {};
}

error check_files(const std::vector<placed_file>& files) {
  if (files.size() > limits::files_max)
    return fail(ec::too_large, "files: more than " + std::to_string(limits::files_max));
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::string field = "files[" + std::to_string(i) + "]";
    const placed_file& file = files[i];
    if (file.path.empty() || file.path.ends_with('/'))
      return fail(ec::malformed, field + ".path: must name a file");
    if (auto why = check_path(field + ".path", file.path))
      return why;
    if (file.mode > 0777)
      return fail(ec::malformed, field + ".mode: must be permission bits, at most 0777 (511)");
  }
  return {};
}

error check_request(const run& request) {
  if (auto why = check_code(request))
    return why;
  if (auto why = check_arguments(request))
    return why;
  if (auto why = check_path("cwd", request.cwd))
    return why;
  if (request.stdin_data.size() > limits::stdin_waiting_bytes_max)
    return too_long("stdin", request.stdin_data.size(), limits::stdin_waiting_bytes_max);
  if (auto why = check_files(request.files))
    return why;
  if (auto why = check_name("agent_id", request.agent_id))
    return why;
  if (auto why = check_name("session", request.session))
    return why;
  if (auto why = check_kind(request.kind))
    return why;
  if (auto why = check_isolation(request.isolation))
    return why;
  if (request.one_shot && !request.session.empty())
    return fail(ec::malformed, "one_shot: a job of a session has no machine of its own");
  if (request.kernel || !request.context.empty())
    if (auto why = check_cell(request))
      return why;
  return check_metadata(request);
}

error check_context(const open_context& request) {
  if (auto why = check_name("session", request.session))
    return why;
  if (auto why = check_name("context", request.context))
    return why;
  if (request.session.empty())
    return fail(ec::malformed, "session: must not be empty");
  if (auto why = check_kernel_language("language", request.language))
    return why;
  return check_path("cwd", request.cwd);
}

} // namespace berth
