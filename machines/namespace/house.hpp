// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/mounts.hpp"
#include "machines/namespace/namespace_settings.hpp"
#include "machines/namespace/templates/protocol.h"

#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// Where a machine finds what came from namespace_settings::lib_dir: the guest, the scripts of the
/// cold interpreters.
inline constexpr const char* house_lib_dir = "/opt/berth";
inline constexpr const char* house_guest = "/opt/berth/berth-guest";

/// The base's directories, as a machine's mount namespace has them.
inline constexpr const char* base_anchor = BERTH_MACHINE_ANCHOR;
inline constexpr const char* base_tree = BERTH_MACHINE_TREE;
inline constexpr const char* base_house = "/house";
inline constexpr const char* base_next = "/next";
/// Where a machine's disk is, below its house.
inline constexpr const char* base_disk = "/house/tmp";

/// What of the house goes into a machine's tree as mounts of its own: absolute paths, none below
/// another. /dev is not among them, for it gets the machine's shared memory.
std::vector<std::string> house_mounts(const namespace_settings& settings);

/// The house the spawner lives in: a mount namespace that holds nothing of the host but what
/// machines may see. A machine's first process gets a copy of it by unshare(CLONE_NEWNS), so what
/// the machine is made of is there already, as moves instead of mounts:
///
///   /        a small tmpfs, read-only: /etc, /bin -> usr/bin, /opt/berth; lower layer of every
///            machine's root overlay
///   /usr     the host's, read-only, nosuid, nodev, its hidden parts covered
///   /dev     a few harmless nodes, read-only
///   /proc    the host's; a machine never gets this one
///   /tmp     empty; where a machine's child mounts its disk
///   /mnt     the base that a machine's tree will hang in, see below
///
/// A machine's mount namespace has this base as its root, and its processes a directory of it:
///
///   /machine/root  the tree, an overlay; the root directory of every process
///   /house         this house, and on its /tmp the disk with all layers of the tree
///   /next          where the next state of the tree is put together
///
/// The base is read-only and stays; the tree is replaced under living processes by pivot_root
/// (layer_switch.hpp).
///
/// Templates run here too, so a path means the same to them and to the interpreters in machines.
/// To be called by a process of one thread. `mount_point` is an empty directory.
step_result enter_house(const namespace_settings& settings, const std::string& mount_point);

} // namespace berth::machines
