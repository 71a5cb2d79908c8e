// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace berth::machines {

/// What running a small guest by KVM showed.
struct kvm_verdict {
  /// Whether virtual machines run by the processor itself here.
  bool usable = false;
  /// What was seen, for an operator.
  std::string detail;
};

/// Runs a guest of one page through /dev/kvm, in a process of its own, for at most a second.
///
/// A /dev/kvm that opens proves nothing: nested and paravirtual hosts have one whose guests are
/// interpreted instruction by instruction, a thousand times too slow, or die at the first
/// instruction the interpreter does not know. The guest here executes one such instruction (lock
/// cmpxchg16b), then a million turns of a loop, and must be done in a time only a processor keeps.
kvm_verdict probe_kvm();

} // namespace berth::machines
