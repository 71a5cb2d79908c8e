// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/model.hpp"

/// What is said about roles: who an agent can be.
namespace berth {

/// How an agent of a role acts on a machine.
enum class acting : std::uint8_t {
  /// By tools where the model knows them, else by the programs in its text.
  automatic,
  tools,
  text,
  /// Programs in its text are shown, not run.
  none
};
inline constexpr std::array<std::string_view, 4> acting_names{"auto", "tools", "text", "none"};
constexpr std::span<const std::string_view> enum_names(acting) {
  return acting_names;
}

/// One role, every default filled in.
struct role_info {
  std::string name;
  std::string shortname;
  std::string description;
  std::string theme;
  std::string relevance_function;
  std::string system_prompt;
  model_choice model;
  std::uint32_t context_window = 0;
  bool vm_execution = false;
  berth::acting acting = berth::acting::automatic;
  double auto_execute_threshold = 0;
  std::uint32_t rounds_max = 0;
  std::vector<std::string> allowed_languages;
  std::string vm_type;
  std::uint64_t execution_timeout_ms = 0;
  std::uint64_t max_code_length = 0;
  bool snapshot_on_execution = false;
  bool auto_rollback_on_failure = false;
  std::vector<std::string> capabilities;

  static constexpr const char* type_name = "role_info";
  static constexpr auto fields() {
    return std::tuple{
        field("name", &role_info::name, "What chat and workflows call it; case does not matter."),
        opt("shortname", &role_info::shortname, "Another name for it."),
        opt("description", &role_info::description, "For a human, and for a model that routes."),
        opt("theme", &role_info::theme, "Kept for clients that draw it."),
        opt("relevance_function", &role_info::relevance_function, "Kept for clients."),
        opt("system_prompt", &role_info::system_prompt, "What the model is told first."),
        field("model", &role_info::model, "Which model it speaks with."),
        field("context_window", &role_info::context_window, "Tokens of a whole call."),
        field("vm_execution", &role_info::vm_execution, "Whether it may run programs."),
        field("acting", &role_info::acting, "How its programs come to be run."),
        field("auto_execute_threshold", &role_info::auto_execute_threshold,
              "Programs in text run from this confidence on, 0 to 1."),
        field("rounds_max", &role_info::rounds_max, "Calls of the model for one message."),
        field("allowed_languages", &role_info::allowed_languages, "Canonical names."),
        opt("vm_type", &role_info::vm_type, "Machine type of its sessions."),
        field("execution_timeout_ms", &role_info::execution_timeout_ms, "Limit of one run."),
        field("max_code_length", &role_info::max_code_length, "Characters of a program."),
        opt("snapshot_on_execution", &role_info::snapshot_on_execution,
            "Save the session before each run."),
        opt("auto_rollback_on_failure", &role_info::auto_rollback_on_failure,
            "Take the session back after a run that failed."),
        opt("capabilities", &role_info::capabilities, "Words that say what it is good at.")};
  }
  bool operator==(const role_info&) const = default;
};

/// Lists the roles.
struct list_roles {
  std::string role;

  static constexpr const char* type_name = "list_roles";
  static constexpr auto fields() {
    return std::tuple{opt("role", &list_roles::role, "Only this one; empty: all.")};
  }
  bool operator==(const list_roles&) const = default;
};

/// The roles, in the order of their configuration.
struct role_list {
  std::vector<role_info> roles;
  std::string default_role;
  std::string selected_role;

  static constexpr const char* type_name = "role_list";
  static constexpr auto fields() {
    return std::tuple{
        field("roles", &role_list::roles, "In the order of their configuration."),
        field("default_role", &role_list::default_role, "Used when none is named or selected."),
        field("selected_role", &role_list::selected_role, "Used when none is named.")};
  }
  bool operator==(const role_list&) const = default;
};

/// Asks for the roles' configuration as clients of the contract read it.
struct get_config {
  static constexpr const char* type_name = "get_config";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const get_config&) const = default;
};

/// Replaces the roles' configuration, whole or not at all.
struct set_config {
  std::string json;

  static constexpr const char* type_name = "set_config";
  static constexpr auto fields() {
    return std::tuple{field("json", &set_config::json,
                            "JSON text; members that are not known are kept as they are.")};
  }
  bool operator==(const set_config&) const = default;
};

/// Chooses the role that serves when none is named.
struct select_role {
  std::string role;

  static constexpr const char* type_name = "select_role";
  static constexpr auto fields() {
    return std::tuple{field("role", &select_role::role, "Name of a role.")};
  }
  bool operator==(const select_role&) const = default;
};

/// The roles' configuration.
struct config_text {
  std::string json;

  static constexpr const char* type_name = "config_text";
  static constexpr auto fields() {
    return std::tuple{field("json", &config_text::json, "JSON text, unknown members included.")};
  }
  bool operator==(const config_text&) const = default;
};

} // namespace berth
