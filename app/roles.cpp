// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"

#include <algorithm>

namespace berth {

namespace {

using terminal::table;
using terminal::tint;

std::string joined(const std::vector<std::string>& all) {
  std::string text;
  for (const auto& each : all)
    text += (text.empty() ? "" : ", ") + each;
  return text;
}

/// What it may run, in a few words.
std::string runs_of(const role_info& role) {
  return role.vm_execution ? joined(role.allowed_languages) : "nothing";
}

void line(const char* name, const std::string& value) {
  if (!value.empty())
    std::printf("%-12s %s\n", name, terminal::clean(value).c_str());
}

/// A paragraph, broken between words where the terminal ends.
void show_paragraph(std::string_view text) {
  std::size_t wide = std::clamp<std::size_t>(terminal::width(), 40, 100);
  std::string row;
  std::string clean = terminal::clean(text);
  for (std::size_t at = 0; at < clean.size();) {
    std::size_t end = std::min(clean.find(' ', at), clean.size());
    if (!row.empty() && row.size() + 1 + end - at > wide) {
      std::printf("%s\n", row.c_str());
      row.clear();
    }
    row += (row.empty() ? "" : " ") + clean.substr(at, end - at);
    at = end + 1;
  }
  std::printf("%s\n", row.c_str());
}

std::string number_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

void show_role(const role_info& role, const role_list& list) {
  bool chosen = role.name == list.selected_role;
  line("role", role.name + (role.shortname.empty() ? "" : " (" + role.shortname + ")")
                   + (chosen ? ", serves when none is named" : ""));
  line("good at", role.description);
  line("capable of", joined(role.capabilities));
  line("model", role.model.model + " at " + role.model.base_url + " (" + role.model.provider
                    + "), temperature " + number_of(role.model.temperature.value_or(0)));
  line("context", std::to_string(role.context_window) + " tokens, "
                      + std::to_string(role.rounds_max) + " rounds a message");
  line("runs", runs_of(role));
  if (role.vm_execution) {
    line("acts by", std::string{name_of(role.acting)} + ", programs in text from confidence "
                        + number_of(role.auto_execute_threshold) + " on");
    line("limits", terminal::duration(role.execution_timeout_ms * 1000) + " a run, "
                       + std::to_string(role.max_code_length) + " characters a program"
                       + (role.vm_type.empty() ? "" : ", machine type " + role.vm_type));
    std::string saves = role.snapshot_on_execution ? "saves its session before each run" : "";
    if (role.auto_rollback_on_failure)
      saves += std::string{saves.empty() ? "" : ", "} + "goes back after a run that failed";
    line("states", saves);
  }
  std::printf("\n");
  show_paragraph(role.system_prompt.empty() ? "It has no prompt of its own." : role.system_prompt);
}

void show_roles(const role_list& list) {
  table rows{{"", "ROLE", "SHORT", "MODEL", "RUNS", "GOOD AT"}};
  for (const role_info& role : list.roles) {
    bool chosen = role.name == list.selected_role;
    rows.add({chosen ? "*" : "", role.name, role.shortname, role.model.model, runs_of(role),
              role.description},
             {tint::green, chosen ? tint::green : tint::plain, tint::dim, tint::plain,
              role.vm_execution ? tint::plain : tint::dim, tint::dim});
  }
  rows.print("there are no roles");
  std::printf("\n* serves when none is named; `berth roles ROLE` shows one, "
              "`berth roles use ROLE` chooses.\n");
}

} // namespace

int command_roles(const common_options& common, const std::string& role) {
  if (role.empty())
    return ask_and_show<role_list>(common, list_roles{}, show_roles);
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto list = (*server)->ask<role_list>(list_roles{.role = role});
  if (!list)
    return terminal::report(list.error());
  for (const role_info& each : list->roles)
    if (common.json)
      print_json(each);
    else
      show_role(each, *list);
  return 0;
}

int command_use_role(const common_options& common, const std::string& role) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto taken = (*server)->ask<config_text>(select_role{.role = role});
  if (!taken)
    return terminal::report(taken.error());
  auto list = (*server)->ask<role_list>(list_roles{.role = role});
  if (!list)
    return terminal::report(list.error());
  if (common.json)
    print_json(list->roles.at(0));
  else
    std::printf("%s serves when no role is named\n", terminal::clean(list->selected_role).c_str());
  return 0;
}

} // namespace berth
