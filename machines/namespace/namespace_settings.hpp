// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// Isolation that a deployment may insist on. The spawner refuses to start without it, and names
/// what is missing. What every machine has anyway (pid, mount, network, ipc, uts and user
/// namespaces, seccomp, no capabilities, no_new_privs) needs no switch.
struct required_isolation {
  /// Memory and processes limited by the kernel's cgroups rather than by rlimits and a watchdog.
  bool cgroups = false;
  /// Landlock as a second wall behind the mount namespace.
  bool landlock = false;
  /// A host uid of its own for each living machine (needs root).
  bool distinct_uids = false;
};

/// How namespace machines are made.
struct namespace_settings {
  /// Directory with `berth-guest`, `jobs/` and the interpreters' templates. Copied at start.
  std::string lib_dir;
  /// Where the instance's directory is made; empty: /run/berth for root, else
  /// $XDG_RUNTIME_DIR/berth or /tmp/berth-<uid>.
  std::string runtime_dir;
  /// First host uid of machines; machine n has uid_base + n. As root only.
  std::uint32_t uid_base = 200'000;
  /// Machines that may live at one time, hence uids in use.
  std::uint32_t machines_max = 4'096;
  /// What a machine gets when its spec says 0.
  machine_limits defaults{
      .memory_bytes = 512ULL << 20, .processes = 128, .disk_bytes = 256ULL << 20};
  /// Files and directories a machine may have, by bytes of its disk: one inode for each of these.
  std::uint64_t disk_bytes_per_inode = 4'096;
  required_isolation require;
  /// Directories of the host that machines see, read-only. The first must be /usr.
  std::vector<std::string> visible{"/usr"};
  /// Directories below a visible one that machines see empty.
  std::vector<std::string> hidden{"/usr/local"};
  /// Whether /etc is a system of Berth's own making, all of which machines may see. Otherwise they
  /// see what of it programs need and tells nothing about the host.
  bool own_etc = false;
  /// Interpreters to hold warm: "python", "python_kernel", "javascript", "rust".
  std::vector<std::string> templates{"python", "python_kernel", "javascript", "rust"};
  /// Start each template when it is first asked for, not before.
  bool lazy_templates = false;
  /// How long a machine may take from start to its guest's hello.
  std::chrono::milliseconds hello_within{20'000};
  /// Bytes to a guest that may wait for it to read. One whole frame always fits.
  std::size_t send_queue_bytes = std::size_t{16} << 20;
};

} // namespace berth::machines
