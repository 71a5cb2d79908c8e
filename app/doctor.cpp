// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/terminal.hpp"
#include "bridge/json.hpp"
#include "config/settings.hpp"
#include "machines/host_facts.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>
#include <unistd.h>

namespace berth {

namespace {

using terminal::tint;

/// One thing this host can do, or cannot.
struct fact {
  std::string name;
  bool ok = false;
  /// Whether the default machine cannot run without it.
  bool needed = false;
  std::string found;
  /// What an operator can do about it; empty when it is there.
  std::string mend;

  static constexpr const char* type_name = "fact";
  static constexpr auto fields() {
    return std::tuple{field("name", &fact::name), field("ok", &fact::ok),
                      field("needed", &fact::needed), field("found", &fact::found),
                      field("mend", &fact::mend)};
  }
};

struct diagnosis {
  bool ok = false;
  std::vector<fact> facts;

  static constexpr const char* type_name = "diagnosis";
  static constexpr auto fields() {
    return std::tuple{field("ok", &diagnosis::ok), field("facts", &diagnosis::facts)};
  }
};

/// What machines/ found out, and whether the default machine needs it.
fact of_host(const machines::host_fact& found) {
  static constexpr std::array<std::string_view, 5> needed{"kernel", "namespaces", "user namespaces",
                                                          "overlay", "seccomp"};
  return {.name = found.name,
          .ok = found.ok,
          .needed = std::ranges::find(needed, found.name) != needed.end(),
          .found = found.detail,
          .mend = found.how_to_mend};
}

fact guest_program() {
  settings values;
  fill_paths(values);
  std::string path = values.lib_dir + "/berth-guest";
  bool ok = ::access(path.c_str(), X_OK) == 0;
  return {.name = "berth-guest",
          .ok = ok,
          .needed = true,
          .found = ok ? path : path + " is missing",
          .mend = ok ? "" : "build or install Berth whole: the guest belongs beside the program"};
}

void show(const fact& one) {
  tint how = one.ok ? tint::green : one.needed ? tint::red : tint::yellow;
  const char* word = one.ok ? "ok  " : one.needed ? "FAIL" : "warn";
  std::printf("%s  %-16s %s\n", terminal::paint(how, word).c_str(), one.name.c_str(),
              one.found.c_str());
  if (!one.mend.empty())
    std::printf("      %-16s %s\n", "", terminal::paint(tint::cyan, "-> " + one.mend).c_str());
}

} // namespace

int command_doctor(bool as_json) {
  diagnosis all;
  all.facts.push_back(guest_program());
  for (const auto& found : machines::host_facts())
    all.facts.push_back(of_host(found));
  all.ok = true;
  for (const auto& one : all.facts)
    all.ok = all.ok && (one.ok || !one.needed);
  if (as_json) {
    std::printf("%s\n", json_text(to_json(all)).c_str());
    return all.ok ? 0 : 1;
  }
  for (const auto& one : all.facts)
    show(one);
  std::printf("\n%s\n", all.ok ? "The default machine (namespace) can run here."
                               : "The default machine (namespace) cannot run here: see FAIL.");
  return all.ok ? 0 : 1;
}

} // namespace berth
