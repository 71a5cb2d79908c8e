// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/namespace/namespace_settings.hpp"
#include "machines/namespace/spawner.hpp"
#include "machines/reactor.hpp"
#include "machines/way_out.hpp"

#include <memory>

namespace berth::machines {

/// Machines made of the kernel's namespaces, in milliseconds. The server's side: everything that
/// needs privileges is asked of the spawner.
class namespace_source : public machine_source {
public:
  /// Takes over a running spawner. The reactor must outlive the source and its machines. With a
  /// way out each machine has a socket that leads there, and else none.
  namespace_source(const namespace_settings& settings, spawner_handle spawner, reactor& loop,
                   std::shared_ptr<way_out> out = nullptr);
  /// A source of other machines by the same spawner: those with that way out.
  namespace_source(const namespace_source& beside, std::shared_ptr<way_out> out);
  /// Ends the spawner, when no other source has it, and with it all machines; waits some seconds at
  /// most. Machines still there are lost and gone before it returns.
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
  const std::shared_ptr<way_out> out_;
};

} // namespace berth::machines
