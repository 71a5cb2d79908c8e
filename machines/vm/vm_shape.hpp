// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// What runs a virtual machine's instructions.
enum class accelerator { tcg, kvm };

/// "tcg" (software emulation) or "kvm".
const char* name_of(accelerator which);

/// The shape of a virtual machine: what its saved states are bound to.
struct vm_shape {
  accelerator runs_by = accelerator::tcg;
  std::uint32_t vcpus = 1;
  std::uint64_t memory_mib = 512;
  /// Room for translated code under emulation.
  std::uint64_t translation_mib = 64;
  /// Whether the kernel needs ACPI to find its devices.
  bool acpi = false;
  /// Whether it has a network device, which leads to the way out and nowhere else.
  bool network = false;

  bool operator==(const vm_shape&) const = default;
};

/// What a kernel is started with.
struct vm_boot {
  std::string kernel_words; ///< of the image
  std::uint64_t disk_mib = 0;
  std::string hostname;
};

/// A name of 16 hexadecimal digits that texts have together.
std::string key_of(const std::vector<std::string>& texts);

} // namespace berth::machines
