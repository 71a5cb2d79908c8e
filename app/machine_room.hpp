// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"
#include "machines/image/image.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/machine.hpp"
#include "machines/namespace/spawner.hpp"
#include "machines/qemu/qemu_settings.hpp"
#include "machines/reactor.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace berth {

/// Where a server's machines come from: which kind, and why; the privileged process that makes
/// them; the thread that serves them. Destroyed after all actors.
class machine_room {
public:
  /// Chooses the kind and starts what needs privileges: a spawner, or a launcher, or for `auto` the
  /// one behind the other. Before any thread exists and before privileges are dropped.
  error prepare(const settings& values);
  /// Starts the thread and the source, and for virtual machines waits until their template stands.
  error open(const settings& values);

  machines::machine_source& source() const { return *source_; }
  /// What holds the machines, and how they were chosen, a line a fact.
  std::vector<std::string> isolation() const;

private:
  error start_launcher(const settings& values, const machines::kvm_verdict& kvm);
  error start_spawner(const settings& values);
  void consider_virtual_machines(const settings& values);
  error open_virtual_machines();

  machines::spawner_handle spawner_;
  machines::spawner_handle launcher_;
  std::optional<machines::qemu_settings> qemu_;
  std::optional<machines::image> image_;
  /// Why `auto` took what it took.
  std::string choice_;
  std::unique_ptr<machines::reactor> loop_;
  std::unique_ptr<machines::machine_source> source_;
};

} // namespace berth
