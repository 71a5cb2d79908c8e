// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/namespace_settings.hpp"

#include <string>
#include <string_view>

namespace berth::machines {

/// Where a machine finds what came from namespace_settings::lib_dir: the guest, the scripts of the
/// cold interpreters.
inline constexpr const char* house_lib_dir = "/opt/berth";
inline constexpr const char* house_guest = "/opt/berth/berth-guest";

/// A step that failed: its name, and errno.
struct [[nodiscard]] step_result {
  std::string step;
  int error = 0;

  bool ok() const { return error == 0; }
  std::string text() const;
};

/// The house the spawner lives in: a mount namespace that holds nothing of the host but what
/// machines may see. A machine's first process gets a copy of it by unshare(CLONE_NEWNS), so what
/// the machine is made of is there already, as moves instead of mounts:
///
///   /        a small tmpfs, read-only: /etc, /bin -> usr/bin, /opt/berth; lower layer of every
///            machine's root overlay
///   /usr     the host's, read-only, nosuid, nodev, its hidden parts covered
///   /dev     a few harmless nodes, read-only
///   /proc    the host's; a machine never gets this one
///   /tmp, /mnt  empty; where a machine's child mounts its disk and its root before pivot_root
///
/// Templates run here too, so a path means the same to them and to the interpreters in machines.
/// To be called by a process of one thread. `mount_point` is an empty directory.
step_result enter_house(const namespace_settings& settings, const std::string& mount_point);

/// As an ordinary user: makes the outer user namespace, in which the caller's uid is 0.
step_result enter_outer_user_namespace();

} // namespace berth::machines
