// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace berth::machines {

/// One thing a host can or cannot do for machines.
struct host_fact {
  std::string name;
  bool ok = false;
  /// What was found.
  std::string detail;
  /// What to do about it; empty when ok.
  std::string how_to_mend;
};

/// Looks what this host can do, by trying: namespaces, overlay, landlock, seccomp, cgroups, KVM,
/// the tools of the languages. Leaves nothing behind. Forks and runs the tools: some hundred
/// milliseconds, for `doctor` and for tests, not for a server at work.
std::vector<host_fact> host_facts();

} // namespace berth::machines
