// SPDX-License-Identifier: Apache-2.0
#include "config/kinds.hpp"

#include <algorithm>

namespace berth {

namespace {

bool says_kind(std::string_view kind) {
  return !kind.empty() && kind != "auto";
}

/// What a make says beside its kind; empty when nothing.
std::string_view rest_of(std::string_view make) {
  return make.substr(kind_of(make).size());
}

/// The first machine type with the same places: machines of all of these are alike.
std::string network_name(const vm_type& type, const settings& values) {
  for (const auto& [name, each] : values.vm_types)
    if (each.network == type.network)
      return name;
  return "network"; // of a type that is not the settings' own
}

} // namespace

std::string make_of(const vm_type& type, const settings& values) {
  if (!says_kind(type.kind))
    return {};
  const bool by_firecracker = type.kind == "firecracker";
  const auto& image = by_firecracker ? values.firecracker.image : values.qemu.image;
  const auto vcpus = by_firecracker ? values.firecracker.vcpus : values.qemu.vcpus;
  bool other_image = !type.image.empty() && type.image != image;
  bool other_vcpus = type.vcpus != 0 && type.vcpus != vcpus;
  std::string make = type.kind;
  if (other_image || other_vcpus)
    make += ":" + (other_image ? type.image : std::string{});
  if (other_vcpus)
    make += ":" + std::to_string(type.vcpus);
  if (!type.network.empty())
    make += "@" + network_name(type, values);
  return make;
}

std::string_view kind_of(std::string_view make) {
  return make.substr(0, make.find_first_of(":@"));
}

std::string_view without_network(std::string_view make) {
  return make.substr(0, make.find('@'));
}

flavour flavour::of(std::string_view name, std::string_view own) {
  std::size_t slash = name.find('/');
  if (slash == std::string_view::npos)
    return {.make = std::string{own}, .warm = std::string{name}};
  return {.make = std::string{name.substr(0, slash)}, .warm = std::string{name.substr(slash + 1)}};
}

std::string flavour::name(std::string_view own) const {
  return make == own ? warm : make + "/" + warm;
}

std::vector<std::string> other_makes(const settings& values) {
  std::vector<std::string> others;
  for (const auto& [name, type] : values.vm_types) {
    std::string make = make_of(type, values);
    if (!make.empty() && make != values.kind && std::ranges::find(others, make) == others.end())
      others.push_back(std::move(make));
  }
  return others;
}

expected<std::string> choose_make(const std::vector<std::string>& served, std::string_view kind,
                                  std::string_view isolation, const vm_type& machine,
                                  const settings& values) {
  const std::string wanted = make_of(machine, values);
  bool of_kind = false; // some make would do, but for its image or processors
  for (const auto& each : served) {
    if (check_served(kind_of(each), kind, isolation, machine))
      continue;
    if (rest_of(each) == rest_of(wanted))
      return each;
    of_kind = true;
  }
  if (of_kind)
    return fail(ec::isolation_unavailable,
                "vm_type: " + (wanted.empty() ? "plain machines" : "machines of " + wanted)
                    + " are not served here; `berth health` says why");
  // A kind that is served and was asked for by name says what it lacks itself.
  std::string_view named = says_kind(kind) ? kind : std::string_view{machine.kind};
  bool is_served = std::ranges::find(served, named, &kind_of) != served.end();
  return check_served(is_served ? std::string{named} : list_kinds(served), kind, isolation,
                      machine);
}

std::string list_kinds(const std::vector<std::string>& makes) {
  std::vector<std::string_view> kinds;
  std::string text;
  for (const auto& make : makes)
    if (std::ranges::find(kinds, kind_of(make)) == kinds.end()) {
      kinds.push_back(kind_of(make));
      text += (text.empty() ? "" : ", ") + std::string{kinds.back()};
    }
  return text;
}

} // namespace berth
