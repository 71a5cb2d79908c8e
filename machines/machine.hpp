// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"
#include "messages/guest.hpp"

#include <chrono>
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

/// A number by which a machine's owner calls a frozen state of its files. Not 0; used once a
/// machine.
using checkpoint_number = std::uint64_t;

/// A state of files on its way into a new machine.
struct saved_layer {
  /// The new machine's name for the state after this archive; 0: the next archive continues it.
  checkpoint_number checkpoint = 0;
  /// What save_files wrote, open for reading; read from its start.
  std::shared_ptr<const owned_fd> archive;
};

/// What to start.
struct machine_spec {
  /// Unique among living machines; becomes the hostname. Letters, digits and '-'.
  std::string id;
  machine_limits limits;
  /// Languages whose interpreters should be warm before the first job.
  std::vector<std::string> warm;
  /// Files to begin with, oldest first: what each archive changed against those before it. In place
  /// before the guest says hello; an archive that is damaged or does not fit is a lost machine.
  std::vector<saved_layer> layers{};
  /// The id of a living machine of the same source whose files at `checkpoint` to begin with,
  /// shared and not copied; the parent may go as soon as the new machine's guest said hello. The
  /// new machine knows that state by the same number. Empty: none. Not together with `layers`.
  std::string parent{};
  checkpoint_number checkpoint = 0;
};

/// What a machine is asked to do with states of its files.
enum class files_step { freeze, roll_back, drop, save };

/// How such a step ended.
struct files_done {
  files_step step{};
  checkpoint_number checkpoint = 0;
  /// Of `save`: bytes written, and files left out because they are neither file, directory,
  /// symbolic link nor pipe.
  std::uint64_t bytes = 0;
  std::uint64_t skipped = 0;
  /// Empty: done. Otherwise why not; the machine is then as it was, or lost.
  std::string error;
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

/// What becomes of a machine. Called on the reactor's thread, or from within a function of the
/// machine: hand over and return.
class machine_listener {
public:
  virtual ~machine_listener() = default;

  /// The guest said something. The first frame is its hello: from then on it takes jobs.
  virtual void on_frame(guest::from_guest frame) = 0;
  /// The machine is gone without having been asked, or could not be started. `out_of_memory` when
  /// the kernel ended it for lack of memory. on_gone still follows, when it was cleaned away.
  virtual void on_lost(std::string why, bool out_of_memory) = 0;
  /// A step that was asked for has ended: one call for each, unless the machine goes before. Steps
  /// of one machine end in the order they were asked for, but `save`, which takes its time.
  virtual void on_files(files_done) {}
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

  // States of the machine's files. Each is answered by on_files.

  /// What was written so far becomes a state that never changes, named `checkpoint`; the machine
  /// goes on from it. No job may run. Where states are files alone, live processes must stand in
  /// "/", which is then the new tree's; they can read on what they have open, and while anything is
  /// open for writing the step is refused, with the process and the path.
  virtual void freeze_files(checkpoint_number checkpoint) = 0;
  /// The tree is what it was at that checkpoint, which stays, as all others do. The same
  /// conditions; files still open lead to what is no longer there.
  virtual void roll_back_files(checkpoint_number checkpoint) = 0;
  /// The state is not needed again. What no other state needs is freed, at the latest with the next
  /// freeze or rollback.
  virtual void drop_files(checkpoint_number checkpoint) = 0;
  /// Writes what changed from `since` (0: from the empty machine) to `checkpoint`, its descendant,
  /// to the descriptor in the kind's format (files: docs/files-archive.md), while the machine runs
  /// on. Beyond `bytes_max` it fails. Syncing is the caller's affair.
  virtual void save_files(checkpoint_number checkpoint, checkpoint_number since,
                          std::shared_ptr<const owned_fd> to, std::uint64_t bytes_max) = 0;
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
  /// What the source itself allows a machine until its hello, and sees to; zero where it does not.
  /// The first of a kind may have to wait for a template.
  virtual std::chrono::milliseconds start_within() const { return {}; }
  /// What holds a machine of this kind, one line a fact, for `doctor` and `health`.
  virtual std::vector<std::string> isolation() const = 0;
};

} // namespace berth::machines
