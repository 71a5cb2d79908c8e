// SPDX-License-Identifier: Apache-2.0
#include "config/role_reader.hpp"

#include "config/languages.hpp"
#include "config/policy_reader.hpp"

#include <algorithm>
#include <initializer_list>

namespace berth::config {

namespace {

/// Of a role that says nothing, as upstream has them.
constexpr std::uint32_t context_window_default = 32'768;
constexpr double temperature_default = 0.7;
constexpr double threshold_default = 0.5;

/// A role's settings, wherever they stand.
class role_view {
public:
  explicit role_view(const ordered& role) {
    const ordered* at = &role;
    for (int depth = 0; depth < 3 && at != nullptr; ++depth) {
      places_.push_back(at);
      at = in(*at, "extra");
      if (at != nullptr && !at->is_object())
        at = nullptr;
    }
  }

  /// The first of the names that is anywhere, outermost place first; or nothing. Empty text is
  /// nothing.
  const ordered* find(std::initializer_list<const char*> names) const {
    for (const char* name : names)
      for (const ordered* place : places_)
        if (const ordered* found = in(*place, name))
          return found;
    return nullptr;
  }

  std::string text(std::initializer_list<const char*> names) const {
    const ordered* found = find(names);
    return found == nullptr ? "" : found->get<std::string>();
  }

  template <class T>
  T number(std::initializer_list<const char*> names, T otherwise) const {
    const ordered* found = find(names);
    return found == nullptr ? otherwise : found->get<T>();
  }

private:
  static const ordered* in(const ordered& object, const char* name) {
    auto found = object.find(name);
    if (found == object.end() || found->is_null())
      return nullptr;
    bool blank = found->is_string() && found->get_ref<const std::string&>().empty();
    return blank ? nullptr : &*found;
  }

  std::vector<const ordered*> places_;
};

/// One spelling for addresses that mean the same.
std::string canonical_url(std::string url) {
  while (url.ends_with('/'))
    url.pop_back();
  for (std::string_view loopback : {"://localhost", "://[::1]"})
    if (auto at = url.find(loopback); at != std::string::npos)
      url.replace(at, loopback.size(), "://127.0.0.1");
  return url;
}

/// The endpoint a role means, if the settings have it. What names none is served by the first, or
/// by the first of its dialect. An address that is not configured is never replaced by another:
/// what is said to a model at home must not go elsewhere in silence.
const model_endpoint* endpoint_of(const std::string& url, const std::string& provider,
                                  const settings& values) {
  const model_endpoint* first = nullptr;
  for (const model_endpoint& each : values.models) {
    bool speaks = provider.empty() || provider == each.provider;
    if (url.empty() ? speaks : canonical_url(url) == canonical_url(each.base_url))
      return &each;
    if (first == nullptr)
      first = &each;
  }
  return url.empty() ? first : nullptr;
}

model_choice read_model(const role_view& role, const settings& values) {
  model_choice made;
  made.provider = role.text({"llm_provider"});
  made.base_url = role.text({"llm_base_url", "ollama_base_url"});
  made.model = role.text({"llm_chat_model", "llm_model", "ollama_model"});
  if (made.provider.empty() && role.find({"ollama_base_url", "ollama_model"}) != nullptr)
    made.provider = "ollama";
  if (const model_endpoint* found = endpoint_of(made.base_url, made.provider, values)) {
    made.provider = found->provider; // the dialect is the endpoint's, whatever the role believes
    made.base_url = found->base_url;
    if (made.model.empty())
      made.model = found->model;
  }
  made.temperature = role.number<double>({"llm_temperature", "temperature"}, temperature_default);
  if (const ordered* tokens = role.find({"llm_max_tokens", "max_tokens"}))
    made.max_tokens = tokens->get<std::uint32_t>();
  return made;
}

/// The role's own policy over the server's. Absent `enabled` is the contract's false.
vm_execution_policy read_own_policy(const role_view& role, const settings& values) {
  vm_execution_policy own = values.policy;
  own.enabled = false;
  if (const ordered* found = role.find({"vm_execution"})) {
    std::string fault;
    read_policy(json(*found), "vm_execution", own, fault);
  }
  own.enabled = own.enabled && values.policy.enabled;
  return own;
}

std::vector<std::string> languages_of(const vm_execution_policy& own,
                                      const vm_execution_policy& server) {
  auto has = [](const std::vector<std::string>& all, std::string_view wanted) {
    return std::ranges::any_of(
        all, [&](const auto& each) { return canonical_language(each).value_or("") == wanted; });
  };
  std::vector<std::string> made;
  for (std::string_view each : languages)
    if (has(own.allowed_languages, each) && has(server.allowed_languages, each))
      made.emplace_back(each);
  return made;
}

std::uint64_t timeout_of(const vm_execution_policy& own, const settings& values) {
  std::uint64_t least = std::min(own.execution_timeout_ms, values.maxima.timeout_ms);
  for (const auto* caps :
       {&own.security_settings.resource_limits, &values.policy.security_settings.resource_limits})
    if (caps->max_execution_time_seconds && *caps->max_execution_time_seconds <= least / 1000)
      least = *caps->max_execution_time_seconds * 1000;
  return least;
}

void read_execution(const role_view& role, const settings& values, role_info& to) {
  vm_execution_policy own = read_own_policy(role, values);
  to.vm_execution = own.enabled;
  to.allowed_languages = languages_of(own, values.policy);
  to.vm_type = values.vm_types.contains(own.default_vm_type) ? own.default_vm_type : "";
  to.execution_timeout_ms = timeout_of(own, values);
  to.max_code_length = std::min(own.max_code_length, values.policy.max_code_length);
  to.snapshot_on_execution = own.history.snapshot_on_execution;
  to.auto_rollback_on_failure = own.history.auto_rollback_on_failure;
  if (!to.vm_execution)
    to.acting = acting::none;
  else if (auto way = from_name<acting>(role.text({"acting"})))
    to.acting = *way;
}

} // namespace

role_info read_role(const std::string& name, const ordered& role, const settings& values) {
  role_view view{role};
  role_info made;
  made.name = name;
  made.shortname = view.text({"shortname"});
  made.description = view.text({"llm_description", "description"});
  made.theme = view.text({"theme"});
  made.relevance_function = view.text({"relevance_function"});
  made.system_prompt = view.text({"llm_chat_system_prompt", "system_prompt", "llm_system_prompt"});
  made.model = read_model(view, values);
  made.context_window = view.number({"llm_context_window"}, context_window_default);
  made.auto_execute_threshold = view.number({"auto_execute_threshold"}, threshold_default);
  made.rounds_max = view.number({"rounds_max"}, values.agents.rounds_max);
  if (const ordered* words = view.find({"capabilities"}))
    made.capabilities = words->get<std::vector<std::string>>();
  read_execution(view, values, made);
  return made;
}

} // namespace berth::config
