// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "machines/machine.hpp"
#include "machines/reactor.hpp"
#include "machines/vm/vm_settings.hpp"
#include "machines/vm/vm_state.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

/// What vm_source asks of a hypervisor. All on the reactor's thread, but for what says otherwise.
namespace berth::machines {

/// One virtual machine: a process of the hypervisor, from its start to its end. A step that was
/// asked for is answered once, unless the process ends before, which is told instead.
class virtual_machine {
public:
  struct handlers {
    /// The guest stopped the machine.
    std::function<void()> on_stopped;
    /// It is dead, or never was; gone follows.
    std::function<void(const std::string& why, bool out_of_memory)> on_end;
    std::function<void()> on_gone;
  };
  /// The server's end of the guest's channel. None: the one there is goes on.
  using channel_handler = std::function<void(owned_fd channel, const std::string& error)>;
  using step_handler = std::function<void(const std::string& error)>;
  using state_handler = std::function<void(vm_state state, const std::string& error)>;

  virtual ~virtual_machine() = default;

  /// Who is told from now on. What happened before is not told again, but its end is.
  virtual void tell(handlers told) = 0;
  /// Runs the kernel it was started with. The channel comes as soon as somebody may hear it, the
  /// hello later.
  virtual void boot(channel_handler then) = 0;
  /// Goes on from a state of its template.
  virtual void wake(const vm_state& from, channel_handler then) = 0;

  /// Whether a save ends the channel: what is on its way then is lost.
  virtual bool save_ends_channel() const = 0;
  virtual void stop(step_handler then) = 0;
  /// Of one that stands still.
  virtual void save(state_handler then) = 0;
  virtual void go_on(channel_handler then) = 0;

  /// Stops one that booted and keeps what it is, to become a template: what is left is to kill it,
  /// and when it is gone, to take it.
  virtual void freeze(step_handler then) = 0;
  /// Fills in memory, state and resident_bytes. Empty, or why it cannot.
  virtual std::string take_frozen(vm_template& to) = 0;
  /// The end of what the console said.
  virtual void console(std::function<void(const std::string&)> then) = 0;

  /// Whose it is, once that is known.
  virtual void known_as(const std::string&) {}
  virtual void kill() = 0;
  virtual bool dead() const = 0;
  /// Whether it can be asked for anything. When not, its end follows.
  virtual bool answers() const = 0;
  /// Any thread.
  virtual machine_usage usage() const = 0;
};

/// What a machine is booted from.
struct vm_plan {
  vm_shape shape;
  vm_boot boot;
  std::string key;
  /// Of engines that need them open.
  std::shared_ptr<const owned_fd> kernel{};
  std::shared_ptr<const owned_fd> initrd{};
};

/// A hypervisor, and the process that holds the privileges to start its machines.
class vm_engine {
public:
  virtual ~vm_engine() = default;

  /// The kind of its machines.
  virtual std::string_view kind() const = 0;
  virtual const vm_settings& settings() const = 0;
  /// Id of the instance.
  virtual const std::string& instance() const = 0;
  /// What is to be said about it, a line a fact. Any thread.
  virtual std::vector<std::string> facts() const = 0;
  virtual void open() = 0;
  /// What a template depends on, as a key. Any thread.
  virtual vm_plan plan(std::uint64_t memory_mib) const = 0;
  /// Reads what machines boot from, on a thread that may wait.
  virtual void read_image(vm_plan& of) const = 0;
  /// One that is to boot; none when there can be none any more.
  virtual std::shared_ptr<virtual_machine> start(const vm_plan& of) = 0;
  /// One that waits for a state of the template. `name` may be empty: it is not known yet whose.
  virtual std::shared_ptr<virtual_machine> start(const vm_template& of,
                                                 const std::string& name) = 0;
  /// How many of those are kept waiting for each template.
  virtual std::size_t spares() const = 0;

  /// Tells the process to end, with all machines.
  virtual void shut_down() = 0;
  virtual void close() = 0;
  // Any thread.
  virtual bool closed() const = 0;
  /// Waits for the end of the process.
  virtual bool wait_closed(std::chrono::milliseconds limit) = 0;
  virtual void wait_ended(std::chrono::milliseconds limit) = 0;
};

/// What tells one build of a program from another without running it.
std::string marks_of(const std::string& program);
/// A saved state may use what only this processor has.
std::string processor_model();

} // namespace berth::machines
