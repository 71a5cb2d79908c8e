// SPDX-License-Identifier: Apache-2.0
#include "app/machine_room.hpp"

#include "config/kinds.hpp"
#include "config/log.hpp"
#include "config/network.hpp"
#include "machines/egress/proxy.hpp"
#include "machines/firecracker/firecracker_machine.hpp"
#include "machines/firecracker/launcher.hpp"
#include "machines/instant/instant_machine.hpp"
#include "machines/namespace/namespace_machine.hpp"
#include "machines/namespace/sweep.hpp"
#include "machines/qemu/launcher.hpp"
#include "machines/qemu/qemu_machine.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <unistd.h>

namespace berth {

namespace {

/// How long the template of virtual machines may take: a host that is busy emulates slowly.
constexpr std::chrono::seconds template_within{180};

/// Where the spawner and the launcher keep their own: nobody else may write there.
std::string spawner_dir(const settings& values) {
  return values.runtime_dir + "/machines";
}
std::string launcher_dir(const settings& values, std::string_view kind) {
  return values.runtime_dir + "/" + std::string{kind};
}

machines::machine_limits default_limits(const settings& values) {
  return {.memory_bytes = values.defaults.memory_mib * limits::mib,
          .processes = values.defaults.processes,
          .disk_bytes = values.defaults.disk_mib * limits::mib};
}

machines::namespace_settings namespace_settings_of(const settings& values) {
  machines::namespace_settings made;
  made.lib_dir = values.lib_dir;
  made.runtime_dir = spawner_dir(values);
  made.machines_max = values.pool.slots_max * 2; // those that are going away included
  made.defaults = default_limits(values);
  made.hello_within = std::chrono::milliseconds{values.pool.start_timeout_ms};
  for (const auto& wall : values.require) {
    made.require.cgroups = made.require.cgroups || wall.starts_with("cgroup");
    made.require.landlock = made.require.landlock || wall == "landlock";
  }
  return made;
}

/// The first machine type that asks for a make; an empty one for the plain make of a kind.
vm_type type_of(const settings& values, std::string_view make) {
  for (const auto& [name, type] : values.vm_types)
    if (make_of(type, values) == make)
      return type;
  return {};
}

/// What settings say about virtual machines of any hypervisor.
void fill_vm_settings(const settings& values, std::string_view kind, machines::vm_settings& to) {
  to.data_dir = values.data_dir;
  to.runtime_dir = launcher_dir(values, kind);
  to.processes_max = values.pool.slots_max * 2;
  to.defaults = default_limits(values);
  for (const auto& wall : values.require) {
    to.need_cgroups = to.need_cgroups || wall.starts_with("cgroup");
    to.need_landlock = to.need_landlock || wall == "landlock";
  }
}

machines::qemu_settings qemu_settings_of(const settings& values, const vm_type& type) {
  machines::qemu_settings made;
  fill_vm_settings(values, "qemu", made);
  made.image = type.image.empty() ? values.qemu.image : type.image;
  made.vcpus = type.vcpus == 0 ? values.qemu.vcpus : type.vcpus;
  made.binary = values.qemu.binary;
  made.translation_mib = values.qemu.translation_mib;
  return made;
}

machines::firecracker_settings firecracker_settings_of(const settings& values,
                                                       const vm_type& type) {
  const auto& options = values.firecracker;
  machines::firecracker_settings made;
  fill_vm_settings(values, "firecracker", made);
  made.image = type.image.empty() ? options.image : type.image;
  made.vcpus = type.vcpus == 0 ? options.vcpus : type.vcpus;
  made.binary = options.binary;
  made.jailer = options.jailer;
  made.memory_by_faults = options.memory == "uffd";
  made.metrics = options.metrics;
  made.disk_bytes_per_second = options.disk_bytes_per_second;
  made.disk_operations_per_second = options.disk_operations_per_second;
  return made;
}

bool is_virtual(std::string_view kind) {
  return kind == "qemu" || kind == "firecracker";
}

/// What servers left in these directories that died.
void sweep_after_the_dead(const settings& values) {
  for (const auto& dir :
       {spawner_dir(values), launcher_dir(values, "qemu"), launcher_dir(values, "firecracker")}) {
    machines::swept swept = machines::sweep(dir);
    if (swept.instances > 0)
      log::info("serve", "swept what dead servers left", {{"found", swept.text()}});
  }
}

} // namespace

error machine_room::prepare(const settings& values) {
  if (values.kind == "instant")
    return {};
  sweep_after_the_dead(values);
  virtual_first_ = is_virtual(values.kind);
  if (values.kind == "auto")
    consider_virtual_machines(values);
  if (error why = start_make(values, values.kind == "auto" ? "namespace" : values.kind))
    return why;
  for (const auto& make : other_makes(values))
    if (error why = start_make(values, make))
      missing_[make] = to_refusal(why).detail;
  return {};
}

/// Starts what machines of a make need of privileges, if it does not run yet.
error machine_room::start_make(const settings& values, const std::string& make) {
  if (without_network(make) != make && kind_of(make) == "firecracker")
    return fail(ec::isolation_unavailable,
                "kind: firecracker machines cannot have a network; namespace and qemu ones can");
  if (is_virtual(kind_of(make)))
    return start_launcher(values, make);
  if (without_network(make) == "namespace")
    return spawner_ ? error{} : start_spawner(values);
  return fail(ec::isolation_unavailable, "kind: " + make + " machines stand beside no others");
}

const machines::kvm_verdict& machine_room::kvm() {
  if (!kvm_)
    kvm_ = machines::probe_kvm();
  return *kvm_;
}

error machine_room::start_launcher(const settings& values, const std::string& make) {
  if (std::ranges::find(launchers_, make, &launched::make) != launchers_.end())
    return {};
  launched one{.make = make, .process = {}, .open = {}};
  const vm_type type = type_of(values, make);
  const bool by_firecracker = kind_of(make) == "firecracker";
  if (error why =
          by_firecracker ? start_firecracker(values, type, one) : start_qemu(values, type, one))
    return why;
  launchers_.push_back(std::move(one));
  return {};
}

error machine_room::find_image(const settings& values, machines::vm_settings& of,
                               machines::image& found) {
  auto image = machines::find_image(values.data_dir, of.image);
  if (!image)
    return fail(ec::isolation_unavailable, to_refusal(image.error()).detail);
  found = std::move(*image);
  // No two machines of the host have one user id.
  of.uid_base += static_cast<std::uint32_t>(launchers_.size()) * of.processes_max;
  return {};
}

error machine_room::start_qemu(const settings& values, const vm_type& type, launched& one) {
  auto wanted = qemu_settings_of(values, type);
  wanted.probe = kvm().detail;
  wanted.runs_by = kvm().usable ? machines::accelerator::kvm : machines::accelerator::tcg;
  wanted.network = without_network(one.make) != one.make;
  machines::image image;
  if (error why = find_image(values, wanted, image))
    return fail(ec::isolation_unavailable, "kind: qemu: " + to_refusal(why).detail);
  if (wanted.network && !image.manifest.network)
    return fail(ec::isolation_unavailable,
                "kind: qemu: image " + wanted.image
                    + " is from before machines could have a network: build it again");
  std::string why;
  one.process = machines::start_launcher(wanted, why);
  if (!one.process)
    return fail(ec::isolation_unavailable, "kind: qemu: " + why);
  one.open = [wanted, image](machines::spawner_handle process, machines::reactor& loop,
                             std::shared_ptr<machines::way_out> out) {
    return std::make_unique<machines::qemu_source>(wanted, image, std::move(process), loop,
                                                   std::move(out));
  };
  return {};
}

/// Firecracker has no emulation to fall back on.
error machine_room::start_firecracker(const settings& values, const vm_type& type, launched& one) {
  auto refuse = [](const std::string& why) {
    return fail(ec::isolation_unavailable, "kind: firecracker: " + why);
  };
  auto wanted = firecracker_settings_of(values, type);
  if (::access(wanted.binary.c_str(), X_OK) != 0)
    return refuse(wanted.binary + ": " + std::strerror(errno)
                  + " (install Firecracker, or set firecracker.binary)");
  if (!kvm().usable)
    return refuse("KVM is needed: " + kvm().detail);
  wanted.probe = kvm().detail;
  wanted.runs_by = machines::accelerator::kvm;
  machines::image image;
  if (error why = find_image(values, wanted, image))
    return refuse(to_refusal(why).detail);
  std::string why;
  one.process = machines::start_launcher(wanted, image, why);
  if (!one.process)
    return refuse(why);
  one.open = [wanted, image](machines::spawner_handle process, machines::reactor& loop,
                             std::shared_ptr<machines::way_out>) {
    return std::make_unique<machines::firecracker_source>(wanted, image, std::move(process), loop);
  };
  return {};
}

error machine_room::start_spawner(const settings& values) {
  std::string why;
  spawner_ = machines::start_spawner(namespace_settings_of(values), why);
  if (!spawner_)
    return fail(ec::isolation_unavailable, "kind: namespace: " + why);
  return {};
}

/// Virtual machines are the stronger wall where the processor runs them. Emulated ones are taken by
/// name only: they are ten times slower, and QEMU's makers do not call emulation a wall.
void machine_room::consider_virtual_machines(const settings& values) {
  if (!kvm().usable)
    choice_ = "KVM: " + kvm().detail;
  else if (error why = start_launcher(values, "qemu"))
    choice_ = to_refusal(why).detail;
  else
    virtual_first_ = true;
}

/// Where they are to be the server's own kind they must work at once; `auto` takes the other kind
/// when they do not.
error machine_room::open_own_virtual_machines(const settings& values) {
  const std::string make = values.kind == "auto" ? "qemu" : values.kind;
  auto own = std::ranges::find(launchers_, make, &launched::make);
  auto source = own->open(std::move(own->process), *loop_, nullptr);
  launchers_.erase(own);
  std::string why = source->wait_ready(template_within);
  if (why.empty()) {
    if (values.kind == "auto")
      choice_ = "they work here by KVM";
    sources_.push_back({.make = make, .source = std::move(source)});
    return {};
  }
  if (values.kind != "auto")
    return fail(ec::isolation_unavailable, "kind: " + make + ": " + why);
  choice_ = "kind: qemu: " + why;
  missing_["qemu"] = why;
  return {};
}

/// Nobody needs its process.
void machine_room::end_spawner() {
  spawner_.socket.reset();
  machines::wait_for_spawner(spawner_.pid, std::chrono::seconds{5});
  spawner_ = {};
}

std::shared_ptr<machines::way_out> machine_room::way_out_of(const settings& values,
                                                            std::string_view make) {
  const vm_type type = type_of(values, make);
  std::vector<network_rule> rules;
  for (const auto& text : type.network)
    if (auto rule = parse_network_rule(text)) // check() has seen them all
      rules.push_back(std::move(*rule));
  if (rules.empty())
    return nullptr;
  if (!egress_loop_) {
    egress_loop_ = std::make_unique<machines::reactor>();
    resolver_ = std::make_shared<machines::egress::resolver>();
  }
  const std::string about =
      "vm_types." + std::string{make.substr(without_network(make).size() + 1)} + ".network";
  return std::make_shared<machines::egress::proxy>(*egress_loop_, std::move(rules), about,
                                                   resolver_);
}

/// Those of each network are made by the one spawner: they differ in a socket.
void machine_room::open_namespace_machines(const settings& values) {
  auto plain = std::make_unique<machines::namespace_source>(namespace_settings_of(values),
                                                            std::move(spawner_), *loop_);
  const machines::namespace_source& first = *plain;
  sources_.push_back({.make = "namespace", .source = std::move(plain)});
  for (const auto& make : other_makes(values))
    if (make != "namespace" && without_network(make) == "namespace")
      sources_.push_back({.make = make,
                          .source = std::make_unique<machines::namespace_source>(
                              first, way_out_of(values, make))});
}

error machine_room::open(const settings& values) {
  loop_ = std::make_unique<machines::reactor>();
  if (values.kind == "instant") {
    sources_.push_back({.make = "instant", .source = std::make_unique<machines::instant_source>()});
    return {};
  }
  if (virtual_first_)
    if (error why = open_own_virtual_machines(values))
      return why;
  const auto others = other_makes(values);
  bool has_own = !sources_.empty();
  if (has_own && spawner_ && std::ranges::find(others, "namespace", kind_of) == others.end())
    end_spawner();
  if (spawner_)
    open_namespace_machines(values);
  for (auto& one : launchers_)
    sources_.push_back(
        {.make = one.make,
         .source = one.open(std::move(one.process), *loop_, way_out_of(values, one.make))});
  launchers_.clear();
  return {};
}

std::vector<make_source> machine_room::sources() const {
  std::vector<make_source> all;
  for (const auto& each : sources_)
    all.push_back({.make = each.make, .source = each.source.get()});
  return all;
}

std::vector<std::string> machine_room::makes() const {
  std::vector<std::string> all;
  for (const auto& each : sources_)
    all.push_back(each.make);
  return all;
}

std::vector<std::string> machine_room::isolation() const {
  std::vector<std::string> lines;
  if (!choice_.empty())
    lines.push_back("kind auto: took " + sources_.front().make
                    + " machines; virtual ones: " + choice_);
  for (const auto& each : sources_)
    for (const auto& fact : each.source->isolation())
      lines.push_back(&each == &sources_.front() ? fact : each.make + ": " + fact);
  for (const auto& [make, why] : missing_)
    lines.push_back(make + ": not served: " + why);
  return lines;
}

} // namespace berth
