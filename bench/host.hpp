// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

/// What the bench sees of the host from outside, by /proc and the cgroup file systems.
namespace berth::bench {

/// The processes below `root`, itself first.
std::vector<pid_t> process_tree(pid_t root);

/// Resident memory of a process, bytes; 0 when it is gone.
std::uint64_t resident_bytes(pid_t pid);
/// Proportional share of memory of a process, bytes; 0 when it is gone or may not be looked at.
std::uint64_t proportional_bytes(pid_t pid);
/// Open descriptors of a process.
std::size_t open_descriptors(pid_t pid);
/// Mounts that a process sees.
std::size_t mounts_seen(pid_t pid);
/// Start of a process since boot, clock ticks: with the pid its identity. 0 when it is gone.
std::uint64_t start_ticks(pid_t pid);

/// What a server's control groups are called: `berth-` and the id of its spawner or launcher.
std::set<std::string> instance_names(pid_t server);
/// All control groups of the host of these names, and those below them.
std::set<std::string> cgroups_of(const std::set<std::string>& names);

/// The processes below `root` that live in another pid namespace than it, by that namespace: the
/// machines.
std::map<std::string, std::vector<pid_t>> machine_processes(pid_t root);

/// What a server holds of the host at one moment.
struct footprint {
  std::uint64_t resident_bytes = 0;
  std::size_t descriptors = 0;
  std::size_t mounts = 0;
  std::size_t cgroups = 0;
  std::size_t processes = 0;
};

/// The footprint of a server: memory and descriptors of its processes outside machines, everything
/// else of all of them.
footprint take_footprint(pid_t server);

/// The first line of `uname -r`; the commit of the source tree with `+` when it has changes.
std::string kernel_release();
std::string source_commit();

} // namespace berth::bench
