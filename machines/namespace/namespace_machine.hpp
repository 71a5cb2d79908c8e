// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/namespace/namespace_settings.hpp"
#include "machines/namespace/spawner.hpp"
#include "machines/reactor.hpp"

#include <memory>

namespace berth::machines {

/// Machines made of the kernel's namespaces, in milliseconds. The server's side: everything that
/// needs privileges is asked of the spawner.
class namespace_source : public machine_source {
public:
  /// Takes over a running spawner. The reactor must outlive the source and its machines.
  namespace_source(const namespace_settings& settings, spawner_handle spawner, reactor& loop);
  /// Ends the spawner and with it all machines; waits some seconds at most. Machines still there
  /// are lost and gone before it returns.
  ~namespace_source() override;

  std::string_view kind() const override { return "namespace"; }
  std::shared_ptr<machine> start(const machine_spec& spec,
                                 std::shared_ptr<machine_listener> listener) override;
  std::vector<std::string> isolation() const override;
  /// Id of the instance, part of the names of all it owns on the host.
  const std::string& instance() const;

private:
  class shared_state;
  class one_machine;
  std::shared_ptr<shared_state> state_;
};

} // namespace berth::machines
