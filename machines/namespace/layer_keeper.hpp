// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/chores.hpp"
#include "machines/namespace/layers.hpp"
#include "machines/namespace/protocol.hpp"

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace berth::machines {

/// Disks of other machines that one may lean on; each fork of a fork adds one.
inline constexpr std::size_t disks_max = 32;

/// What the keeper has to know of a living machine; descriptors are its owner's.
struct layered_machine {
  std::uint64_t number = 0;
  int pidfd = -1;
  int disk = -1; ///< O_PATH, the disk's root
  int proc = -1; ///< the machine's /proc
  std::uint32_t uid = 0;
  std::vector<int> procs; ///< cgroup.procs
};

/// A disk that a new machine leans on.
struct leaned_disk {
  /// Its place in the parent's mount namespace.
  std::string from;
  /// Its place among the child's.
  std::uint64_t index = 0;
  /// A user namespace that makes its agent's files those of the child's; -1: they are already.
  int ids = -1;
};

/// What a machine's tree begins with, if not with the empty one.
struct tree_beginning {
  /// Layers below the first top, as in tree_switch.
  std::string lowers;
  /// A mount for the disk with layers on it; -1: a new disk.
  int disk = -1;
  /// Where the layers of other machines' disks come from.
  int parent_pidfd = -1;
  std::vector<leaned_disk> disks;
};

/// The disks of other machines that one leans on, and their places.
using leaned_disks = std::map<std::shared_ptr<layer_disk>, std::uint64_t>;

/// An archive on its way into a new machine.
struct arriving_layer {
  checkpoint_number checkpoint = 0;
  owned_fd archive;
};

/// The spawner's part that keeps the states of machines' files: does to disks and mounts what a
/// machine's layer_tree says, in the order it was asked for.
class layer_keeper {
public:
  using clock = std::chrono::steady_clock;

  struct surroundings {
    bool ordinary_user = false;
    /// Empty, or why states cannot be kept on this host.
    std::string obstacle;
    const std::vector<std::string>* mounts = nullptr;
    std::function<void(const spawner::report&)> tell;
    /// Whether a process is on its way into the machine, so that its tree must not change now.
    std::function<bool(std::uint64_t)> busy;
    /// The machine cannot go on.
    std::function<void(std::uint64_t)> end_machine;
    /// Gives a machine's disk so many inodes beyond its limit.
    std::function<int(std::uint64_t, std::uint64_t)> more_inodes;
  };

  layer_keeper(surroundings around, std::function<void(int, std::uint64_t)> watch)
    : around_(std::move(around))
    , chores_(std::move(watch)) {}
  surroundings& around() { return around_; }

  // Before a machine is there.

  /// Restores archives to a new disk; `done` gets what was wrong, or an empty text. `join` puts the
  /// process that does it into the machine's cgroups, and needs the descriptors in `keep`.
  void restore(std::uint64_t number, std::vector<arriving_layer> layers, std::string disk_options,
               std::uint32_t uid, std::function<int()> join, std::vector<int> keep,
               std::function<void(const std::string& error)> done);
  /// Prepares a machine that leans on another's layers. Empty, or why it cannot.
  std::string lean(std::uint64_t number, std::uint64_t parent, checkpoint_number checkpoint,
                   std::uint32_t uid);
  /// What was prepared for the machine.
  tree_beginning beginning(std::uint64_t number) const;

  // While it is there.

  void begin(const layered_machine& one);
  /// One of the requests on files, with the descriptor of a save.
  void ask(const spawner::request& asked, owned_fd fd);
  /// Goes on with what waited for a process on its way.
  void go_on(std::uint64_t number);
  /// It is dead, or will never be.
  void forget(std::uint64_t number);
  std::uint64_t extra_inodes(std::uint64_t number) const;

  void on_chore(std::uint64_t id) { chores_.on_end(id); }
  /// When to call tidy.
  clock::time_point next_tidy() const { return next_tidy_; }
  /// Merges what ought to be merged and gives back what nobody needs.
  void tidy();
  void stop() { chores_.stop(); }

private:
  struct held {
    layered_machine machine;
    std::shared_ptr<layer_disk> disk;
    std::unique_ptr<layer_tree> tree;
    leaned_disks leaned;
    std::deque<std::pair<spawner::request, owned_fd>> waiting;
    std::uint64_t extra_inodes = 0;
    bool merging = false;
    /// A rollback is answered when what it discarded is gone.
    bool settling = false;
  };
  struct prepared_tree {
    std::shared_ptr<layer_disk> disk;
    owned_fd mount;
    std::vector<std::pair<checkpoint_number, layer_stack>> states;
    leaned_disks leaned;
    std::uint64_t parent = 0;
    std::map<std::shared_ptr<layer_disk>, owned_fd> ids;
  };

  void take(held& one, const spawner::request& asked, owned_fd fd);
  void answer(const spawner::request& asked, int error, std::string_view text);
  void switch_to(held& one, const spawner::request& asked);
  void switched(held& one, const spawner::request& asked);
  void save(held& one, const spawner::request& asked, owned_fd to);
  void merge(held& one);
  void merged(std::uint64_t number, const layer_tree::merge& what, std::shared_ptr<layer_dir> into,
              const chore_result& result);
  void tidy_later(const std::shared_ptr<layer_disk>& disk);
  void give_back(const std::vector<std::shared_ptr<layer_disk>>& disks, int niceness,
                 std::function<void()> then);
  int give_inodes(held& one, std::uint64_t more);

  surroundings around_;
  chores chores_;
  /// Trees that machines no longer have, to be closed by another process.
  std::vector<owned_fd> old_trees_;
  /// Disks with something to tidy.
  std::vector<std::weak_ptr<layer_disk>> untidy_;
  clock::time_point next_tidy_ = clock::time_point::max();
  bool tidying_ = false;
  std::map<std::uint64_t, held> machines_;
  std::map<std::uint64_t, prepared_tree> prepared_;
};

/// Why states of files cannot be kept on this host, or nothing; `forks` tells whether machines can
/// share layers.
std::string probe_layers(bool ordinary_user, bool& forks);

/// A process of the machine that has a file of its tree open for writing: "NAME (PID) has PATH open
/// for writing". Empty when none is found.
std::string find_writer(int proc);

/// A user namespace in which files of `from` are those of `to`, and root's are root's. Negative
/// errno when there is none.
int make_id_map(std::uint32_t from, std::uint32_t to);

} // namespace berth::machines
