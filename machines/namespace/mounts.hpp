// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

/// What the houses of privileged processes are built of: see house.hpp, and qemu/house.hpp.
namespace berth::machines {

/// A step that failed: its name, and errno.
struct [[nodiscard]] step_result {
  std::string step;
  int error = 0;

  bool ok() const { return error == 0; }
  std::string text() const;
};

/// The step that has just failed, with errno.
step_result failed(std::string step);

bool write_file(const std::filesystem::path& path, std::string_view text);

/// Adds MOUNT_ATTR flags to a mount, and to those below it.
bool restrict_mount(const std::string& path, std::uint64_t attributes, bool below);

/// Mounts a read-only /dev with a few harmless nodes, and with /dev/kvm where it is asked for.
step_result make_devices(const std::string& root, bool with_kvm = false);

/// Makes a house, with the host's /proc on its own, the root of the calling process, read-only.
step_result settle_in(const std::string& mount_point);

/// As an ordinary user: makes the outer user namespace, in which the caller's uid is 0.
step_result enter_outer_user_namespace();

} // namespace berth::machines
