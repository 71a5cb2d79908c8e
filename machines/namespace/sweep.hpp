// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace berth::machines {

/// What dead instances had left behind.
struct swept {
  std::size_t instances = 0;
  std::size_t processes = 0;
  std::size_t groups = 0;
  /// Groups and directories that could not be removed.
  std::size_t left = 0;

  std::string text() const;
};

/// The directory of a living server below the runtime directory, named by the instance's id. The
/// lock in it is held by the server and its spawner, and so dies with the last of them; whatever
/// the instance makes elsewhere bears its id and is listed in the directory.
class instance_dir {
public:
  instance_dir() = default;
  /// Makes a new one. On failure `why` says so and the result is empty.
  static instance_dir claim(const std::string& runtime_dir, std::string& why);

  explicit operator bool() const { return static_cast<bool>(lock_); }
  const std::string& id() const { return id_; }
  const std::string& path() const { return path_; }
  int lock_fd() const { return lock_.get(); }
  /// Writes down the cgroups, for whoever sweeps after us.
  bool note_groups(const std::vector<std::string>& paths) const;
  /// Removes the directory, through its own descriptor: its path may be out of sight. The last
  /// instance's takes the runtime directory with it.
  void remove();

private:
  std::string id_;
  std::string path_;
  std::string name_; // the runtime directory's, in the one above
  owned_fd parent_;
  owned_fd dir_;
  owned_fd lock_;
};

/// Where instances live when the settings do not say.
std::string default_runtime_dir();

/// Ends and removes all that dead instances below the runtime directory left; living ones (whose
/// lock is held) are not touched. `own` is the caller's instance, if it has one here.
swept sweep(const std::string& runtime_dir, const std::string& own = {});

} // namespace berth::machines
