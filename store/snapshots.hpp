// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"
#include "store/durable.hpp"
#include "store/snapshot_catalog.hpp"

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace berth {

/// The archives of a state's chain, open for reading, each checked to its last byte.
struct opened_chain {
  std::vector<saved_state> states;
  std::vector<owned_fd> files;
};

/// Saved states on disk. A plain class for one thread; its owner may wait for the disk.
///
/// A state is a manifest and, when something changed, an archive: files named by the state's id in
/// one directory. Both are written under other names, synced and renamed; the manifest comes last
/// and bears checksums of itself and of the archive. So a state is whole or it is not there: an
/// archive without a manifest, and what was being written, is swept when the store opens. What is
/// damaged is listed with the reason and never given out.
class snapshots {
public:
  /// Makes the directory or reads what is in it. Manifests are checked wholly, archives by their
  /// size; their content is checked whenever it is given out. Fails with store_failed.
  static expected<snapshots> open(const std::string& directory, const snapshot_settings& bounds);

  const snapshot_catalog& catalog() const { return catalog_; }

  /// A file for a new state's archive. already_exists when the id is in use, no_capacity when the
  /// disk is full.
  expected<owned_fd> begin(const std::string& state);

  /// Makes a state durable: the archive that begin() gave, or none if it was not called. Fills in
  /// what is known only then, and gives the ids of the snapshots that had to go for it. When it
  /// fails nothing of the state is left, and all others are as they were.
  expected<std::vector<std::string>> finish(saved_state& state);

  /// Forgets an archive that could not be written.
  void abandon(const std::string& state);

  /// Opens what a state is restored from. store_failed, with the reason, when any of it is damaged.
  expected<opened_chain> open_chain(const std::string& state);

  /// Deletes a snapshot. Its bytes go when nothing needs them.
  error remove(const std::string& snapshot);

  /// Says whether a session lives. When it is over, what it would have woken up with goes.
  void keep(const std::string& session, bool alive);

  /// Forgets all sessions but these: those that a dead server left are over.
  void keep_only(const std::set<std::string>& sessions);

  std::uint64_t bytes_max() const { return bounds_.bytes_max; }

private:
  snapshots(std::string directory, const snapshot_settings& bounds)
    : directory_(std::move(directory))
    , bounds_(bounds) {}

  std::string archive_of(const std::string& state) const;
  error read_all();
  void read_state(const std::string& name);
  error seal(saved_state& state);
  error write_manifest(const saved_state& state);
  void drop_unneeded(std::vector<std::string> among);
  error mark_deleted(const std::string& snapshot);
  std::optional<std::vector<std::string>> make_room(const saved_state& added);
  void blame(const std::string& state, const std::string& why);

  std::string directory_;
  snapshot_settings bounds_;
  snapshot_catalog catalog_;
  std::set<std::string> live_;
  std::set<std::string> begun_;
};

} // namespace berth
