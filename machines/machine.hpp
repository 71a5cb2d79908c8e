// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// The isolated computers, behind one interface. Knows no actor and no ZeroMQ.
namespace berth::machines {

/// What a machine may use at most. Zero means: the default of the settings.
struct machine_limits {
  std::uint64_t memory_bytes = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;

  bool operator==(const machine_limits&) const = default;
};

/// What to start.
struct machine_spec {
  /// Unique among living machines; becomes the hostname. Letters, digits and '-'.
  std::string id;
  machine_limits limits;
  /// Languages whose interpreters should be warm before the first job.
  std::vector<std::string> warm;
};

/// What a machine uses now.
struct machine_usage {
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_peak_bytes = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t disk_limit_bytes = 0;
  /// Processes that the kernel killed because the machine's memory was used up, since its start.
  std::uint64_t oom_kills = 0;
};

/// What becomes of a machine. Called on the reactor's thread: hand over and return.
class machine_listener {
public:
  virtual ~machine_listener() = default;

  /// The guest said something. The first frame is its hello: from then on it takes jobs.
  virtual void on_frame(guest::from_guest frame) = 0;
  /// The machine is gone without having been asked, or could not be started. `out_of_memory` when
  /// the kernel ended it for lack of memory. on_gone still follows, when it was cleaned away.
  virtual void on_lost(std::string why, bool out_of_memory) = 0;
  /// Nothing of the machine exists any more. The last call.
  virtual void on_gone() = 0;
};

/// One isolated computer. Every function may be called from any thread and returns at once.
class machine {
public:
  virtual ~machine() = default;

  /// Says something to the guest, in order. What exceeds a bounded queue is a lost machine:
  /// callers keep within the credits of the protocol.
  virtual void send(const guest::to_guest& message) = 0;
  /// Changes the limits of a running machine. Takes effect before any later send.
  virtual void set_limits(const machine_limits& limits) = 0;
  /// Brings a warm interpreter into the machine; the guest says `warmed` when it is there. False:
  /// none will come, because no template serves the language now or the guests of this kind warm
  /// themselves; jobs start all the same.
  virtual bool warm(std::string_view language) = 0;
  /// Stops and goes on reading from the guest, for a reader that cannot keep up.
  virtual void hold_output(bool held) = 0;
  virtual machine_usage usage() const = 0;
  /// Ends the machine from any state; on_gone follows.
  virtual void destroy() = 0;
};

/// Where machines of one kind come from.
class machine_source {
public:
  virtual ~machine_source() = default;

  /// namespace, qemu or firecracker.
  virtual std::string_view kind() const = 0;
  /// Starts a machine; what becomes of it is told to the listener, which must outlive on_gone.
  virtual std::shared_ptr<machine> start(const machine_spec& spec,
                                         std::shared_ptr<machine_listener> listener) = 0;
  /// What holds a machine of this kind, one line a fact, for `doctor` and `health`.
  virtual std::vector<std::string> isolation() const = 0;
};

} // namespace berth::machines
