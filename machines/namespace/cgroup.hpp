// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/namespace/protocol.hpp"
#include "messages/fd.hpp"

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// How the kernel's control groups can be used here. Each controller is probed for itself: many
/// hosts have some on v1 and some on v2.
enum class cgroup_version { none, v1, v2 };

/// What the machine itself may use beyond its job's memory and files: the guest, its warm
/// interpreters (about 1.5 MiB of their own each, up to 16 for node), page tables, sockets,
/// dentries.
inline constexpr std::uint64_t machine_overhead_bytes = 96ULL << 20;

/// The kernel's limit on a machine's memory.
///
/// Files in a machine are tmpfs pages and are charged to its group. With memory alone as the limit
/// a job within both its limits would be killed for its files; so the kernel's limit is the sum of
/// memory, disk and machine_overhead_bytes, and nobody within limits is ever killed. The job's
/// *own* limit is kept by the spawner's watchdog, which kills the largest process of a machine
/// whose anonymous memory alone exceeds memory plus overhead; the kernel's limit is the hard wall
/// behind it, for whoever allocates faster than the watchdog looks.
inline constexpr std::uint64_t group_memory_limit(const machine_limits& limits) {
  return limits.memory_bytes + limits.disk_bytes + machine_overhead_bytes;
}

/// Processes of a machine that are not the job's: the guest and warm interpreters.
inline constexpr std::uint64_t machine_overhead_processes = 16;

/// One machine's open group files; indices are bit numbers of spawner::handle_bit.
struct cgroup_handles {
  owned_fd& operator[](spawner::handle_bit bit) {
    return files[static_cast<std::size_t>(__builtin_ctz(bit))];
  }
  int get(spawner::handle_bit bit) const {
    return files[static_cast<std::size_t>(__builtin_ctz(bit))].get();
  }
  /// Adds those that are there to what goes with a packet, and returns their bits.
  std::uint32_t list(std::vector<int>& fds) const;
  /// Takes those of the bits from what came with a packet, first in it. Returns how many.
  std::size_t take(std::uint32_t bits, std::vector<owned_fd>& fds);
  /// What the group's files tell of the machine.
  machine_usage usage() const;

  std::array<owned_fd, spawner::handle_count> files;
  /// cgroup.procs of each hierarchy the machine has a group in; there are no more hierarchies than
  /// controllers. Absent ones come last.
  std::array<owned_fd, 3> procs;
};

/// A place in one hierarchy where a server makes its groups.
struct cgroup_hierarchy {
  /// The directory of this server's own group, below which the instance's group is made.
  std::string own_path;
  cgroup_version version = cgroup_version::none;
  bool memory = false;
  bool pids = false;
  bool cpu_usage = false;
  /// The instance's group, open; only after cgroup_tree::open.
  owned_fd instance;
  /// Whether the server was moved into a leaf below its own group (v2).
  bool in_leaf = false;
};

/// What a probe of one controller found.
struct cgroup_fact {
  std::string controller;
  cgroup_version version = cgroup_version::none;
  /// Where, or why not.
  std::string detail;
};

/// The groups of one server instance: `<own group>/berth-<instance>/m<number>` in each hierarchy
/// that is of use. Used by the spawner (single-threaded), and by a machine's child process for its
/// own group only.
class cgroup_tree {
public:
  /// Probes and makes the instance's groups. What cannot be had is missing, with its reason in
  /// facts(). On v2 with controllers the process moves itself and its parent (the server) into a
  /// leaf `berth-<instance>.server`, since the kernel wants no processes beside groups.
  static cgroup_tree open(std::string_view instance);

  bool memory() const { return has(&cgroup_hierarchy::memory); }
  /// What a process needs open for enter().
  std::vector<int> descriptors() const;
  bool pids() const { return has(&cgroup_hierarchy::pids); }
  const std::vector<cgroup_fact>& facts() const { return facts_; }
  /// The instance's directories, for whoever sweeps after a crash.
  const std::vector<std::string>& paths() const { return paths_; }

  /// In the machine's child: makes the machine's groups, limits them, moves the caller into them
  /// and opens their files. 0 or -errno.
  int enter(std::uint64_t number, const machine_limits& limits, cgroup_handles& handles) const;
  /// Removes a machine's groups; false while one is still busy.
  bool remove(std::uint64_t number) const;
  /// Kills what is in a machine's groups: at once by cgroup.kill on v2, one by one on v1.
  void kill(std::uint64_t number) const;
  /// Removes the instance's groups, and machines' groups that are still there with what is in them.
  /// Takes at most some seconds; false when something stays.
  bool remove_instance();

private:
  bool has(bool cgroup_hierarchy::*what) const;

  std::string instance_name_;
  pid_t server_ = 0;
  std::vector<cgroup_hierarchy> hierarchies_;
  std::vector<cgroup_fact> facts_;
  std::vector<std::string> paths_;
};

/// What cgroups could be used by this process, without making more than a group that is removed at
/// once. For `doctor`.
std::vector<cgroup_fact> probe_cgroups();

/// Kills everything in a group and below it and removes it; gives up after `tries` rounds of a
/// millisecond. Returns how many processes it had to kill; `removed` says whether it is gone.
std::size_t clear_cgroup(const std::string& path, int tries, bool& removed);

/// Reads a group's file from its start; 0 when it says "max" or cannot be read.
std::uint64_t read_group_number(int fd);
/// The value after `key` in a group's file of "key value" lines.
std::uint64_t read_group_key(int fd, std::string_view key);
/// Writes a number. 0 or -errno.
int write_group_number(int fd, std::uint64_t value);

std::string_view to_string(cgroup_version version);

} // namespace berth::machines
