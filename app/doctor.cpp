// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/model.hpp"
#include "actors/agents/progress.hpp"
#include "app/commands.hpp"
#include "app/host.hpp"
#include "app/system_config.hpp"
#include "app/terminal.hpp"
#include "bridge/json.hpp"
#include "config/settings.hpp"
#include "machines/host_facts.hpp"
#include "machines/image/image.hpp"

#include <caf/actor_system.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <set>
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

/// Images that virtual machines boot from, as the settings name them.
std::set<std::string> images_wanted(const settings& values) {
  std::set<std::string> names{values.qemu.image, values.firecracker.image};
  for (const auto& [type, machine] : values.vm_types)
    if (!machine.image.empty())
      names.insert(machine.image);
  return names;
}

fact of_image(const settings& values, const std::string& name) {
  auto found = machines::find_image(values.data_dir, name);
  return {.name = "image " + name,
          .ok = static_cast<bool>(found),
          .needed = (values.kind == "qemu" && name == values.qemu.image)
                    || (values.kind == "firecracker" && name == values.firecracker.image),
          .found = found ? found->directory : terminal::clean(to_refusal(found.error()).detail),
          .mend = found ? "" : "virtual machines need it: berth image build " + name};
}

/// What machines of the kind firecracker need: the program, its jailer as root, and KVM.
fact of_firecracker(const settings& values, const std::vector<machines::host_fact>& host) {
  std::vector<std::string> needed{values.firecracker.binary};
  if (::geteuid() == 0)
    needed.push_back(values.firecracker.jailer);
  fact made{.name = "firecracker", .ok = true, .needed = false, .found = {}, .mend = {}};
  for (const auto& program : needed) {
    const bool there = ::access(program.c_str(), X_OK) == 0;
    made.ok = made.ok && there;
    made.found += (made.found.empty() ? "" : ", ") + program + (there ? "" : " is missing");
  }
  if (!made.ok)
    made.mend = "only machines of that kind need it: install Firecracker, or say under "
                "`firecracker` in the settings where it is";
  const bool has_kvm =
      std::ranges::any_of(host, [](const auto& one) { return one.name == "kvm" && one.ok; });
  if (!has_kvm) {
    made.ok = false;
    made.found += "; KVM does not work here";
    made.mend = "machines of that kind need KVM; qemu and namespace ones do not";
  }
  return made;
}

/// Names of models that are shown of one endpoint.
constexpr std::size_t names_shown_max = 8;

std::string listed(const std::vector<std::string>& names) {
  std::string all = std::to_string(names.size()) + (names.size() == 1 ? " model" : " models");
  for (std::size_t i = 0; i < names.size() && i < names_shown_max; ++i)
    all += (i == 0 ? ": " : ", ") + terminal::clean(names[i]);
  return all + (names.size() > names_shown_max ? ", ..." : "");
}

/// Of a key only whether it is there, never what it is.
std::string about_key(const endpoint_info& of) {
  if (of.key_variable.empty())
    return "no key is sent";
  return "the key in " + of.key_variable + (of.has_key ? " is set" : " is missing");
}

fact of_endpoint(const endpoint_info& found, std::size_t number) {
  bool key_is_missing = !found.key_variable.empty() && !found.has_key;
  std::string mend = "start it, or say under `models` in the settings where models are served";
  if (key_is_missing)
    mend = "set " + found.key_variable + " in the server's environment";
  else if (found.reachable)
    mend.clear();
  return {.name = "model endpoint " + std::to_string(number),
          .ok = mend.empty(),
          .found = found.provider + " at " + found.base_url + ": "
                   + (found.reachable ? listed(found.models) : terminal::clean(found.detail)) + "; "
                   + about_key(found),
          .mend = std::move(mend)};
}

/// Asks every endpoint as the server does.
expected<model_list> look_at_models(const settings& values) {
  system_config config;
  caf::actor_system system{config};
  auto progress = spawn_progress(system, nullptr);
  auto models = spawn_model(system, std::make_shared<const settings>(values), progress);
  expected<model_list> all{error{}};
  {
    caf::scoped_actor self{system};
    self->request(models, caf::infinite, list_models{})
        .receive([&](model_list& found) { all = std::move(found); },
                 [&](error& why) { all = std::move(why); });
  }
  caf::anon_send_exit(models, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(progress, caf::exit_reason::user_shutdown);
  return all;
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

int command_doctor(bool as_json, const serve_options& options) {
  auto values = read_settings(options);
  if (!values)
    return terminal::report(values.error());
  diagnosis all;
  all.facts.push_back(guest_program());
  const auto host = machines::host_facts();
  for (const auto& found : host)
    all.facts.push_back(of_host(found));
  for (const auto& image : images_wanted(*values))
    all.facts.push_back(of_image(*values, image));
  all.facts.push_back(of_firecracker(*values, host));
  if (auto models = look_at_models(*values))
    for (std::size_t i = 0; i < models->endpoints.size(); ++i)
      all.facts.push_back(of_endpoint(models->endpoints[i], i + 1));
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
