// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/vm/vm_shape.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace berth::machines {

/// Numbers of the descriptors that QEMU is started with. Standard error comes first and is 2.
inline constexpr int vm_memory_fd = 3;
inline constexpr int vm_monitor_fd = 4;
inline constexpr int vm_channel_fd = 5;
inline constexpr int vm_root_fd = 6;
inline constexpr int vm_kernel_fd = 7;
inline constexpr int vm_initrd_fd = 8;

/// Name of the guest's port.
inline constexpr const char* vm_port = "berth";

/// QEMU's arguments, its own name first, for a machine that boots and whose memory is to become a
/// template: it is written to the descriptor.
std::vector<std::string> boot_arguments(const vm_shape& shape, const vm_boot& boot);
/// For a machine that waits for a state: its memory begins as what the descriptor holds, and what
/// it writes is its own.
std::vector<std::string> waiting_arguments(const vm_shape& shape);

/// The kernel's command line.
std::string kernel_words(const vm_shape& shape, const vm_boot& boot);

/// Names a template: machines of one key have the same memory after their start. `parts` is what
/// else it depends on: QEMU's version, the image's.
std::string template_key(const vm_shape& shape, const vm_boot& boot,
                         const std::vector<std::string>& parts);

} // namespace berth::machines
