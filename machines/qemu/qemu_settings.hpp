// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/vm/vm_settings.hpp"

namespace berth::machines {

/// How virtual machines are made by QEMU.
struct qemu_settings : vm_settings {
  std::string binary = "/usr/bin/qemu-system-x86_64";
  /// Room for translated code under emulation.
  std::uint64_t translation_mib = 64;
};

} // namespace berth::machines
