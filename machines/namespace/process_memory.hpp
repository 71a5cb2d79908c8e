// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace berth::machines {

/// Memory of a machine that has no cgroup, as its processes show it; `proc` is its own /proc.
///
/// Anonymous and shared memory are summed up: in a hurry from each process's counters, which count
/// shared pages once for each process; where that is more than `allowed`, again by the kernel's
/// shares (Pss). Files without a name that no disk of the machine holds (memfd) are counted by the
/// descriptors that hold them. `disk` is what lies on the machine's disk: it has a cap of its own,
/// and mapped files of it show as shared memory. What only sits in a socket's queue is not seen.
std::uint64_t memory_of_processes(int proc, std::uint64_t allowed, std::uint64_t disk);

/// Gives every process below one, itself included, a new limit on the number of processes; `pid` is
/// as this process sees it, and has /proc in its own root.
void limit_processes_of(int pid, std::uint64_t processes);

} // namespace berth::machines
