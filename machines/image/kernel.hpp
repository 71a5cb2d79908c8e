// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// Told what is done now, for a human.
using build_progress = std::function<void(std::string_view)>;

/// A kernel that virtual machines can boot, in a directory of its own.
struct built_kernel {
  /// Changes with anything that went into it.
  std::string key;
  std::string release;
  /// An ELF file with a PVH entry.
  std::string vmlinux;
  /// Modules to load, in this order, as paths; none when all is built in.
  std::vector<std::string> modules;
  /// Whether it finds virtio-mmio devices by its command line.
  bool devices_by_command_line = false;
};

/// Debian's own kernel for virtual machines, out of its package. Below `cache`, made once for each
/// version.
expected<built_kernel> debian_kernel(const std::string& cache, const build_progress& progress);

/// A kernel of what a guest needs and nothing else, built from Debian's source with this
/// configuration. Takes minutes, once for each version of source and configuration.
expected<built_kernel> own_kernel(const std::string& cache, const std::string& configuration,
                                  const build_progress& progress);

/// The ELF file in a bzImage.
error extract_vmlinux(const std::string& image, const std::string& to);

} // namespace berth::machines
