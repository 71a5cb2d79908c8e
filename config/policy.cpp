// SPDX-License-Identifier: Apache-2.0
#include "config/policy_reader.hpp"

namespace berth::config {

namespace {

void read_history(const json& from, const std::string& path, history_settings& to,
                  std::string& fault) {
  object_reader in{from, path, fault};
  in.member("enabled", to.enabled);
  in.member("snapshot_on_execution", to.snapshot_on_execution);
  in.member("snapshot_on_failure", to.snapshot_on_failure);
  in.member("auto_rollback_on_failure", to.auto_rollback_on_failure);
  in.member("max_history_entries", to.max_history_entries);
  in.member("persist_history", to.persist_history);
  in.member("integration_mode", to.integration_mode);
}

void read_caps(const json& from, const std::string& path, resource_limits& to, std::string& fault) {
  object_reader in{from, path, fault};
  if (in.has("max_memory_mb"))
    in.member("max_memory_mb", to.max_memory_mb.emplace());
  if (in.has("max_execution_time_seconds"))
    in.member("max_execution_time_seconds", to.max_execution_time_seconds.emplace());
}

void read_security(const json& from, const std::string& path, security_settings& to,
                   std::string& fault) {
  object_reader in{from, path, fault};
  in.member("dangerous_patterns_check", to.dangerous_patterns_check);
  in.member("redact_output", to.redact_output);
  in.member("pattern_action", to.pattern_action);
  in.member_with("resource_limits", [&](const json& value, const std::string& where) {
    read_caps(value, where, to.resource_limits, fault);
  });
}

} // namespace

policy_given read_policy(const json& from, const std::string& path, vm_execution_policy& to,
                         std::string& fault) {
  policy_given given;
  if (from.is_boolean()) {
    to.enabled = from.get<bool>();
    return given;
  }
  object_reader in{from, path, fault};
  given.execution_timeout_ms = in.has("execution_timeout_ms");
  given.vm_pool_size = in.has("vm_pool_size");
  in.member("enabled", to.enabled);
  in.member("api_base_url", to.api_base_url);
  in.member("vm_pool_size", to.vm_pool_size);
  in.member("default_vm_type", to.default_vm_type);
  in.member("execution_timeout_ms", to.execution_timeout_ms);
  in.member("allowed_languages", to.allowed_languages);
  in.member("auto_provision", to.auto_provision);
  in.member("code_validation", to.code_validation);
  in.member("max_code_length", to.max_code_length);
  in.member_with("history", [&](const json& value, const std::string& where) {
    read_history(value, where, to.history, fault);
  });
  in.member_with("security_settings", [&](const json& value, const std::string& where) {
    read_security(value, where, to.security_settings, fault);
  });
  return given;
}

} // namespace berth::config
