// SPDX-License-Identifier: Apache-2.0
#include "config/role_shape.hpp"

#include "config/languages.hpp"
#include "config/limits.hpp"
#include "messages/roles.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

namespace berth::config {

namespace {

using kind = shape::kind;

constexpr double million = 1e6;
/// The largest whole number that every reader of JSON keeps exactly.
constexpr double whole_max = 9'007'199'254'740'991;

constexpr std::array<std::string_view, 5> relevance_functions{"terraphim-graph", "title-scorer",
                                                              "bm25", "bm25f", "bm25plus"};
constexpr std::array<std::string_view, 2> integration_modes{"http", "direct"};
constexpr std::array<std::string_view, 2> pattern_actions{"block", "warn"};

constexpr shape any{};
constexpr shape text{.what = kind::text};
constexpr shape flag{.what = kind::flag};
constexpr shape language{.what = kind::language};
constexpr shape texts{.what = kind::list, .element = &text};
constexpr shape languages_list{.what = kind::list, .element = &language};
constexpr shape any_map{.what = kind::map, .element = &any};
constexpr shape relevance{.what = kind::text, .choices = relevance_functions};
constexpr shape mode{.what = kind::text, .choices = integration_modes};
constexpr shape action{.what = kind::text, .choices = pattern_actions};
constexpr shape acting_way{.what = kind::text, .choices = acting_names};
constexpr shape temperature{.what = kind::number, .least = 0, .most = 2};
constexpr shape fraction{.what = kind::number, .least = 0, .most = 1};
constexpr shape window{.what = kind::whole, .least = 256, .most = 16 * million};
constexpr shape tokens{.what = kind::whole, .least = 1, .most = 16 * million};
constexpr shape rounds{.what = kind::whole, .least = 1, .most = 100};
constexpr shape from_one{.what = kind::whole, .least = 1, .most = whole_max};
constexpr shape pool_size{.what = kind::whole, .least = 0, .most = limits::sessions_max};
constexpr shape code_length{.what = kind::whole, .least = 1, .most = limits::code_bytes_max};
constexpr shape memory{.what = kind::whole, .least = limits::memory_mib_min, .most = whole_max};

constexpr member caps_members[] = {
    {"max_memory_mb", &memory, "Memory of a run, MiB, at most."},
    {"max_execution_time_seconds", &from_one, "Time of a run at most."},
};
constexpr shape caps{.what = kind::object, .name = "ResourceLimits", .members = caps_members};

constexpr member security_members[] = {
    {"dangerous_patterns_check", &flag, "Look for dangerous patterns in programs."},
    {"redact_output", &flag, "Replace secrets in output."},
    {"pattern_action", &action, "What a dangerous pattern leads to."},
    {"resource_limits", &caps, "Caps of a run."},
};
constexpr shape security{
    .what = kind::object, .name = "SecuritySettings", .members = security_members};

constexpr member history_members[] = {
    {"enabled", &flag, "Keep code and output in the history."},
    {"snapshot_on_execution", &flag, "Save the session before each run."},
    {"snapshot_on_failure", &flag, "Save the session after a run that failed."},
    {"auto_rollback_on_failure", &flag,
     "Take the session back to what it was before a run that failed."},
    {"max_history_entries", &from_one, "Entries kept."},
    {"persist_history", &flag, "Keep the history on disk."},
    {"integration_mode", &mode, "How a legacy client reaches the history."},
};
constexpr shape history{.what = kind::object, .name = "HistoryConfig", .members = history_members};

constexpr member execution_members[] = {
    {"enabled", &flag, "Whether the role may run programs. Absent: it may not."},
    {"api_base_url", &text, "Where legacy clients find the server."},
    {"vm_pool_size", &pool_size, "Machines kept ready. The server's own setting decides."},
    {"default_vm_type", &text, "Machine type of its sessions."},
    {"execution_timeout_ms", &from_one, "Limit of one run."},
    {"allowed_languages", &languages_list, "Languages it may run, of those the server allows."},
    {"auto_provision", &flag, "Open a session where there is none."},
    {"code_validation", &flag, "Judge programs before they run."},
    {"max_code_length", &code_length, "Characters of a program at most."},
    {"history", &history, "What is kept of its runs."},
    {"security_settings", &security, "What is looked for in its programs."},
};
constexpr shape execution{
    .what = kind::flag_or_object, .name = "VmExecutionConfig", .members = execution_members};

/// What stands in a role itself, in its `extra`, or in the `extra` of that: upstream's files have
/// each of them, and every reader looks in all.
constexpr member setting_members[] = {
    {"llm_provider", &text, "Dialect of the model's endpoint: ollama or openai."},
    {"llm_model", &text, "Name of the model. Absent: the endpoint's own."},
    {"ollama_model", &text, "The same as llm_model."},
    {"llm_base_url", &text, "A configured endpoint of models. Absent: the first."},
    {"ollama_base_url", &text, "The same as llm_base_url."},
    {"llm_chat_model", &text, "Wins over llm_model in a chat."},
    {"llm_temperature", &temperature, "Temperature of the model."},
    {"temperature", &temperature, "The same as llm_temperature."},
    {"llm_max_tokens", &tokens, "Tokens of a reply at most."},
    {"max_tokens", &tokens, "The same as llm_max_tokens."},
    {"llm_context_window", &window, "Tokens of a whole call."},
    {"llm_api_key", &text,
     "Kept, never used and never given out: keys come from the environment of the server."},
    {"llm_enabled", &flag, "Kept for clients."},
    {"llm_auto_summarize", &flag, "Kept for clients."},
    {"llm_chat_enabled", &flag, "Kept for clients."},
    {"llm_router_enabled", &flag, "Kept for clients."},
    {"llm_router_config", &any, "Kept for clients."},
    {"llm_chat_system_prompt", &text, "What the model is told first."},
    {"system_prompt", &text, "What the model is told first; after llm_chat_system_prompt."},
    {"llm_system_prompt", &text, "What the model is told first; after system_prompt."},
    {"llm_description", &text, "What the role is good at, in a sentence."},
    {"description", &text, "The same as llm_description."},
    {"capabilities", &texts, "Words that say what it is good at."},
    {"acting", &acting_way, "How its programs come to be run."},
    {"auto_execute_threshold", &fraction, "Programs in text run from this confidence on."},
    {"rounds_max", &rounds, "Calls of the model for one message."},
    {"vm_execution", &execution, "Whether and how it may run programs."},
};

extern const shape extra_shape;
const member extra_members[] = {
    {"extra", &extra_shape, "Once more, for upstream's files."},
};
const shape extra_shape{
    .what = kind::object, .name = "Extra", .members = extra_members, .shared = setting_members};

constexpr member local_graph_members[] = {
    {"input_type", &text, "markdown or json."},
    {"path", &text, "Where it is."},
};
constexpr shape local_graph{
    .what = kind::object, .name = "KnowledgeGraphLocal", .members = local_graph_members};

constexpr member graph_members[] = {
    {"automata_path", &any, "Where the built automata are."},
    {"knowledge_graph_local", &local_graph, "What they are built from."},
    {"public", &flag, "Kept for clients."},
    {"publish", &flag, "Kept for clients."},
};
constexpr shape graph{.what = kind::object, .name = "KnowledgeGraph", .members = graph_members};

constexpr member haystack_members[] = {
    {"location", &text, "What is searched.", true},
    {"service", &text, "By what: Ripgrep, Atomic, QueryRs, ClickUp, Mcp, and others.", true},
    {"read_only", &flag, "Kept for clients."},
    {"atomic_server_secret", &text, "Kept, never used and never given out."},
    {"extra_parameters", &any_map, "Of the service."},
};
constexpr shape haystack{.what = kind::object, .name = "Haystack", .members = haystack_members};
constexpr shape haystacks{.what = kind::list, .element = &haystack};

const member role_members[] = {
    {"shortname", &text, "Another name for it."},
    {"name", &text, "The name under which it stands in `roles`."},
    {"relevance_function", &relevance, "Kept for clients."},
    {"terraphim_it", &flag, "Kept for clients."},
    {"theme", &text, "Kept for clients that draw it."},
    {"kg", &graph, "Kept for clients."},
    {"haystacks", &haystacks, "Kept for clients."},
    {"extra", &extra_shape, "Settings beside those of the role itself."},
};
const shape one_role{
    .what = kind::object, .name = "Role", .members = role_members, .shared = setting_members};
const shape roles{.what = kind::map, .element = &one_role};

const member config_members[] = {
    {"id", &text, "Server, Desktop or Embedded."},
    {"global_shortcut", &text, "Kept for clients."},
    {"roles", &roles, "The roles by their names.", true},
    {"default_role", &text, "Serves when none is named or selected.", true},
    {"selected_role", &text, "Serves when none is named. Absent: default_role."},
};
const shape whole_config{.what = kind::object, .name = "Config", .members = config_members};

std::string number_text(double value) {
  return value == std::floor(value) ? std::to_string(static_cast<std::int64_t>(value))
                                    : ordered(value).dump();
}

std::string blame(const std::string& path, const std::string& reason) {
  return path.empty() ? reason : path + ": " + reason;
}

std::string must_be(const std::string& path, const std::string& what, const ordered& value) {
  return blame(path, "must be " + what + ", is " + kind_of(value.type()));
}

std::string check_text(const ordered& value, const shape& wanted, const std::string& path) {
  if (!value.is_string())
    return must_be(path, "text", value);
  const auto& given = value.get_ref<const std::string&>();
  if (given.find('\0') != std::string::npos)
    return blame(path, "must not contain NUL");
  if (wanted.what == kind::language && !canonical_language(given))
    return blame(path, "\"" + given.substr(0, limits::name_bytes_max)
                           + "\" is none of python, javascript, bash, rust, go");
  if (wanted.choices.empty() || std::ranges::find(wanted.choices, given) != wanted.choices.end())
    return {};
  std::string all;
  for (std::string_view each : wanted.choices)
    all += (all.empty() ? "" : ", ") + std::string{each};
  return blame(path, "must be one of " + all);
}

std::string check_number(const ordered& value, const shape& wanted, const std::string& path) {
  bool whole = wanted.what == kind::whole;
  if (whole ? !value.is_number_integer() : !value.is_number())
    return must_be(path, whole ? "a whole number" : "a number", value);
  auto given = value.get<double>();
  if (given >= wanted.least && given <= wanted.most)
    return {};
  return blame(path, "must be " + number_text(wanted.least) + " to " + number_text(wanted.most));
}

std::string under(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

std::string check_object(const ordered& value, const shape& wanted, const std::string& path) {
  for (auto members : {wanted.members, wanted.shared})
    for (const member& each : members) {
      auto found = value.find(each.name);
      bool absent = found == value.end() || found->is_null();
      if (absent && each.required)
        return blame(under(path, each.name), "is missing");
      if (absent)
        continue;
      if (auto fault = check_shape(*found, *each.value, under(path, each.name)); !fault.empty())
        return fault;
    }
  return {};
}

std::string check_elements(const ordered& value, const shape& wanted, const std::string& path) {
  for (const auto& [key, element] : value.items()) {
    std::string where = value.is_array() ? path + "[" + key + "]" : under(path, key);
    if (auto fault = check_shape(element, *wanted.element, where); !fault.empty())
      return fault;
  }
  return {};
}

/// Builds a schema; every named object becomes one definition, which others refer to.
class schema_maker {
public:
  ordered make() {
    ordered root{{"$schema", "http://json-schema.org/draft-07/schema#"},
                 {"title", "Config"},
                 {"description", "The roles' configuration. Other members are kept as they are."}};
    ordered config = object_schema(whole_config);
    for (const auto& [name, value] : config.items())
      root[name] = value;
    root["definitions"] = std::move(definitions_);
    return root;
  }

private:
  ordered object_schema(const shape& of) {
    ordered properties = ordered::object();
    ordered required = ordered::array();
    for (auto members : {of.members, of.shared})
      for (const member& each : members) {
        ordered made = schema_of(*each.value);
        if (made.contains("$ref")) // beside it nothing else counts
          made = ordered{{"allOf", ordered::array({made})}};
        if (!each.required)
          made = nullable(std::move(made));
        made["description"] = each.meaning;
        properties[each.name] = std::move(made);
        if (each.required)
          required.push_back(each.name);
      }
    ordered schema{{"type", "object"}, {"properties", std::move(properties)}};
    if (!required.empty())
      schema["required"] = std::move(required);
    schema["additionalProperties"] = true;
    return schema;
  }

  static ordered nullable(ordered schema) {
    if (schema.contains("enum"))
      schema["enum"].push_back(nullptr);
    if (schema.contains("type"))
      schema["type"] = ordered::array({schema["type"], "null"});
    else if (!schema.empty())
      schema = ordered{{"anyOf", ordered::array({std::move(schema), ordered{{"type", "null"}}})}};
    return schema;
  }

  ordered reference(const shape& of) {
    if (!definitions_.contains(of.name)) {
      definitions_[of.name] = nullptr; // it may refer to itself
      definitions_[of.name] = object_schema(of);
    }
    return {{"$ref", std::string{"#/definitions/"} + of.name}};
  }

  ordered schema_of(const shape& of) {
    switch (of.what) {
    case kind::text: {
      ordered made{{"type", "string"}};
      for (std::string_view each : of.choices)
        made["enum"].push_back(each);
      return made;
    }
    case kind::language:
      return {{"type", "string"}, {"examples", languages}};
    case kind::flag:
      return {{"type", "boolean"}};
    case kind::number:
      return {{"type", "number"}, {"minimum", of.least}, {"maximum", of.most}};
    case kind::whole:
      return {{"type", "integer"},
              {"minimum", static_cast<std::int64_t>(of.least)},
              {"maximum", static_cast<std::int64_t>(of.most)}};
    case kind::list:
      return {{"type", "array"}, {"items", schema_of(*of.element)}};
    case kind::map:
      return {{"type", "object"}, {"additionalProperties", schema_of(*of.element)}};
    case kind::object:
      return reference(of);
    case kind::flag_or_object:
      return {{"anyOf", ordered::array({ordered{{"type", "boolean"}}, reference(of)})}};
    case kind::any:
      break;
    }
    return ordered::object();
  }

  ordered definitions_ = ordered::object();
};

} // namespace

const shape& role_shape() {
  return one_role;
}

const shape& role_config_shape() {
  return whole_config;
}

std::string check_shape(const ordered& value, const shape& wanted, const std::string& path) {
  switch (wanted.what) {
  case kind::any:
    return {};
  case kind::text:
  case kind::language:
    return check_text(value, wanted, path);
  case kind::flag:
    return value.is_boolean() ? "" : must_be(path, "true or false", value);
  case kind::number:
  case kind::whole:
    return check_number(value, wanted, path);
  case kind::list:
    return value.is_array() ? check_elements(value, wanted, path) : must_be(path, "a list", value);
  case kind::map:
    return value.is_object() ? check_elements(value, wanted, path)
                             : must_be(path, "an object", value);
  case kind::flag_or_object:
    if (value.is_boolean())
      return {};
    return value.is_object() ? check_object(value, wanted, path)
                             : must_be(path, "true, false or an object", value);
  case kind::object:
    return value.is_object() ? check_object(value, wanted, path)
                             : must_be(path, "an object", value);
  }
  return {};
}

ordered role_config_schema() {
  return schema_maker{}.make();
}

bool is_secret_name(std::string_view name) {
  std::string lower{name};
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (std::string_view ending : {"api_key", "apikey", "secret", "token", "password", "passwd",
                                  "private_key", "secret_key", "access_key", "credentials"})
    if (lower.ends_with(ending))
      return true;
  return false;
}

} // namespace berth::config
