// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/reactor.hpp"
#include "machines/vm/vm_engine.hpp"

#include <chrono>
#include <memory>

namespace berth::machines {

/// Virtual machines of one hypervisor, cloned from a template that was booted once: its memory is
/// mapped copy-on-write, so a new machine is up in a fraction of a boot with its interpreters
/// running. The server's side: everything that needs privileges is asked of the engine's launcher.
class vm_source : public machine_source {
public:
  /// The reactor must outlive the source and its machines. `start_command` is the image's.
  vm_source(std::unique_ptr<vm_engine> engine, std::string start_command, reactor& loop);
  /// Ends the launcher and with it all machines; waits some seconds at most. Machines still there
  /// are lost and gone before it returns.
  ~vm_source() override;

  std::string_view kind() const override { return kind_; }
  std::shared_ptr<machine> start(const machine_spec& spec,
                                 std::shared_ptr<machine_listener> listener) override;
  std::chrono::milliseconds start_within() const override;
  std::vector<std::string> isolation() const override;
  /// Has the template of machines with default limits made and waits until it stands; not on the
  /// reactor's thread. Without this it is made for the first machine. Empty, or why there is none.
  std::string wait_ready(std::chrono::milliseconds limit);
  /// Id of the instance, part of the names of all it owns on the host.
  const std::string& instance() const;

private:
  class shared_state;
  class one_machine;
  const std::string kind_;
  std::shared_ptr<shared_state> state_;
};

/// The memory in MiB of the virtual machine in which a job with these limits runs: what it may use,
/// its files, which are kept in memory, and the machine itself.
std::uint64_t vm_memory_mib(const machine_limits& limits);

} // namespace berth::machines
