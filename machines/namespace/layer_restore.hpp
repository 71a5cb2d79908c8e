// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace berth::machines {

/// An archive, and the directory of the disk its layer becomes. Two that follow each other with one
/// number become one layer.
struct restored_layer {
  int archive = -1;
  std::uint64_t number = 0;
};

/// Gives up everything but what restoring needs: no capability but those over files, no system call
/// but those on files. An archive comes from a disk that others may have written to. Returns 0 or
/// errno.
int confine_restorer();

/// Where layers are restored to.
struct restored_disk {
  int root = -1;
  /// The house, which will be below all layers.
  int house = -1;
  /// The uid of the agent's files.
  std::uint32_t uid = 0;
  bool ordinary_user = false;
};

/// Writes the layers to `<number>/tree` of a disk, the oldest first, root's files as root's and the
/// agent's as theirs. Nothing leads out of the disk: names are single, links are not followed.
/// Empty, or what was wrong.
std::string restore_layers(const restored_disk& disk, std::span<const restored_layer> layers);

} // namespace berth::machines
