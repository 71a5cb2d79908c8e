// SPDX-License-Identifier: Apache-2.0
#include "app/machine_room.hpp"

#include "config/kinds.hpp"
#include "config/log.hpp"
#include "machines/instant/instant_machine.hpp"
#include "machines/namespace/namespace_machine.hpp"
#include "machines/namespace/sweep.hpp"
#include "machines/qemu/launcher.hpp"
#include "machines/qemu/qemu_machine.hpp"

#include <algorithm>
#include <chrono>

namespace berth {

namespace {

/// How long the template of virtual machines may take: a host that is busy emulates slowly.
constexpr std::chrono::seconds template_within{180};

/// Where the spawner and the launcher keep their own: nobody else may write there.
std::string spawner_dir(const settings& values) {
  return values.runtime_dir + "/machines";
}
std::string launcher_dir(const settings& values) {
  return values.runtime_dir + "/qemu";
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

machines::qemu_settings qemu_settings_of(const settings& values, const machines::kvm_verdict& kvm) {
  machines::qemu_settings made;
  made.data_dir = values.data_dir;
  made.image = values.qemu.image;
  made.binary = values.qemu.binary;
  made.runtime_dir = launcher_dir(values);
  made.processes_max = values.pool.slots_max * 2;
  made.vcpus = values.qemu.vcpus;
  made.translation_mib = values.qemu.translation_mib;
  made.defaults = default_limits(values);
  made.probe = kvm.detail;
  made.runs_by = kvm.usable ? machines::accelerator::kvm : machines::accelerator::tcg;
  for (const auto& wall : values.require) {
    made.need_cgroups = made.need_cgroups || wall.starts_with("cgroup");
    made.need_landlock = made.need_landlock || wall == "landlock";
  }
  return made;
}

/// What servers left in both directories that died.
void sweep_after_the_dead(const settings& values) {
  for (const auto& dir : {spawner_dir(values), launcher_dir(values)}) {
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
  virtual_first_ = values.kind == "qemu";
  if (values.kind == "auto")
    consider_virtual_machines(values);
  if (error why = start_kind(values, values.kind == "auto" ? "namespace" : values.kind))
    return why;
  for (const auto& kind : other_kinds(values))
    if (error why = start_kind(values, kind))
      missing_[kind] = to_refusal(why).detail;
  return {};
}

/// Starts what machines of a kind need of privileges, if it does not run yet.
error machine_room::start_kind(const settings& values, const std::string& kind) {
  if (kind == "qemu")
    return launcher_ ? error{} : start_launcher(values);
  if (kind == "namespace")
    return spawner_ ? error{} : start_spawner(values);
  return fail(ec::isolation_unavailable, "kind: " + kind
                                             + " machines are not part of this version; qemu and "
                                               "namespace ones are");
}

const machines::kvm_verdict& machine_room::kvm() {
  if (!kvm_)
    kvm_ = machines::probe_kvm();
  return *kvm_;
}

error machine_room::start_launcher(const settings& values) {
  auto image = machines::find_image(values.data_dir, values.qemu.image);
  if (!image)
    return fail(ec::isolation_unavailable, "kind: qemu: " + to_refusal(image.error()).detail);
  image_ = std::move(*image);
  qemu_ = qemu_settings_of(values, kvm());
  std::string why;
  launcher_ = machines::start_launcher(*qemu_, why);
  if (!launcher_)
    return fail(ec::isolation_unavailable, "kind: qemu: " + why);
  return {};
}

error machine_room::start_spawner(const settings& values) {
  std::string why;
  spawner_ = machines::start_spawner(namespace_settings_of(values), why);
  if (!spawner_)
    return fail(ec::isolation_unavailable, why);
  return {};
}

/// Virtual machines are the stronger wall where the processor runs them. Emulated ones are taken by
/// name only: they are ten times slower, and QEMU's makers do not call emulation a wall.
void machine_room::consider_virtual_machines(const settings& values) {
  if (!kvm().usable)
    choice_ = "KVM: " + kvm().detail;
  else if (error why = start_launcher(values))
    choice_ = to_refusal(why).detail;
  else
    virtual_first_ = true;
}

/// Where they are to be the server's own kind they must work at once; `auto` takes the other kind
/// when they do not.
error machine_room::open_own_virtual_machines(const settings& values) {
  auto source =
      std::make_unique<machines::qemu_source>(*qemu_, *image_, std::move(launcher_), *loop_);
  std::string why = source->wait_ready(template_within);
  if (why.empty()) {
    if (values.kind == "auto")
      choice_ = "they work here by KVM";
    sources_.push_back(std::move(source));
    return {};
  }
  if (values.kind != "auto")
    return fail(ec::isolation_unavailable, "kind: qemu: " + why);
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

error machine_room::open(const settings& values) {
  loop_ = std::make_unique<machines::reactor>();
  if (values.kind == "instant") {
    sources_.push_back(std::make_unique<machines::instant_source>());
    return {};
  }
  if (virtual_first_)
    if (error why = open_own_virtual_machines(values))
      return why;
  const auto others = other_kinds(values);
  bool has_own = !sources_.empty();
  if (has_own && spawner_ && std::ranges::find(others, "namespace") == others.end())
    end_spawner();
  if (spawner_)
    sources_.push_back(std::make_unique<machines::namespace_source>(namespace_settings_of(values),
                                                                    std::move(spawner_), *loop_));
  if (launcher_)
    sources_.push_back(
        std::make_unique<machines::qemu_source>(*qemu_, *image_, std::move(launcher_), *loop_));
  return {};
}

std::vector<machines::machine_source*> machine_room::sources() const {
  std::vector<machines::machine_source*> all;
  for (const auto& source : sources_)
    all.push_back(source.get());
  return all;
}

std::vector<std::string> machine_room::kinds() const {
  std::vector<std::string> all;
  for (const auto& source : sources_)
    all.emplace_back(source->kind());
  return all;
}

std::vector<std::string> machine_room::isolation() const {
  const std::string own{sources_.front()->kind()};
  std::vector<std::string> lines;
  if (!choice_.empty())
    lines.push_back("kind auto: took " + own + " machines; virtual ones: " + choice_);
  for (const auto& source : sources_)
    for (const auto& fact : source->isolation())
      lines.push_back(source == sources_.front() ? fact
                                                 : std::string{source->kind()} + ": " + fact);
  for (const auto& [kind, why] : missing_)
    lines.push_back(kind + ": not served: " + why);
  return lines;
}

} // namespace berth
