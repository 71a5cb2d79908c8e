// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "messages/fd.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace berth::machines {

/// Frozen states one machine may have at a time; an overlay takes 500 layers.
inline constexpr std::size_t states_max = 400;
/// Layers above which some are merged: each makes a look-up of a missing name dearer.
inline constexpr std::size_t stack_merged_above = 16;
/// Layers of one age that are merged into one.
inline constexpr std::size_t merge_fan_in = 8;

/// A machine's disk as long as somebody needs a layer on it; may outlive the machine.
struct layer_disk {
  /// O_PATH, on its root directory.
  owned_fd root;
  /// The machine's host uid, by which its agent's files are known.
  std::uint32_t uid = 0;
  /// Directories nobody needs, to be removed by whoever has time.
  std::vector<std::uint64_t> garbage;
  std::uint64_t next_number = 1;
};

/// One directory `<number>` on a disk, with a layer's files in `<number>/tree`. Becomes garbage
/// with its last user.
class layer_dir {
public:
  layer_dir(std::shared_ptr<layer_disk> on, std::uint64_t number)
    : disk_(std::move(on))
    , number_(number) {}
  ~layer_dir() { disk_->garbage.push_back(number_); }
  layer_dir(const layer_dir&) = delete;
  layer_dir& operator=(const layer_dir&) = delete;

  const std::shared_ptr<layer_disk>& disk() const { return disk_; }
  std::uint64_t number() const { return number_; }
  std::string tree() const { return std::to_string(number_) + "/tree"; }

private:
  std::shared_ptr<layer_disk> disk_;
  std::uint64_t number_;
};

using layer_stack = std::vector<std::shared_ptr<layer_dir>>;

/// The states of one machine's files: which there are, which descends from which, what layers each
/// is made of, which layers could be one, and which nobody needs. Plain logic; the spawner does to
/// the disk what this says. Stacks have the newest layer first.
///
/// A state is what its parent was, and one more layer. A *cover* is a directory that stands for all
/// layers between a state and one of its ancestors: of the parent at first; merging adds longer
/// ones, and when no state in between is needed any more the short ones go.
class layer_tree {
public:
  /// `first` is the directory that the machine writes to now.
  explicit layer_tree(std::shared_ptr<layer_dir> first);

  bool knows(checkpoint_number checkpoint) const { return named_.contains(checkpoint); }
  bool full() const { return named_.size() >= states_max; }
  const std::shared_ptr<layer_dir>& top() const { return top_; }
  /// What the machine's tree is made of beside the top.
  const layer_stack& below() const { return below_; }
  /// The layers of a state; empty if it is unknown.
  layer_stack stack_of(checkpoint_number checkpoint) const;
  /// The layers that the present tree would have if the top were frozen, without the top.
  layer_stack stack_of_present() const;
  /// The layers from `since` (0: nothing) to the state; none if it does not descend from it.
  std::optional<layer_stack> between(checkpoint_number since, checkpoint_number checkpoint) const;

  /// The top was frozen under that name; the machine writes to `fresh`, over `below`.
  void froze(checkpoint_number checkpoint, std::shared_ptr<layer_dir> fresh, layer_stack below);
  /// The machine went back to the state and writes to `fresh`.
  void rolled_back(checkpoint_number checkpoint, std::shared_ptr<layer_dir> fresh,
                   layer_stack below);
  /// Takes over a state from elsewhere, below all others: a saved one, or another machine's. To be
  /// called before anything else, oldest first.
  void adopt(checkpoint_number checkpoint, layer_stack layers);
  void drop(checkpoint_number checkpoint);

  /// Layers that ought to be one directory.
  struct merge {
    layer_stack layers;
    layer_stack below; ///< what they lie on
    std::weak_ptr<void> upper;
    std::weak_ptr<void> after;
    unsigned level = 0;
    bool from_bottom = false;
  };
  std::optional<merge> next_merge() const;
  /// They are, in `into`; or could not be merged, and are not tried again before the next freeze.
  void merged(const merge& done, std::shared_ptr<layer_dir> into);
  void could_not_merge() { merging_fails_ = true; }

private:
  struct state;
  using state_ptr = std::shared_ptr<state>;
  struct cover {
    state_ptr after; ///< none: there is nothing below
    std::shared_ptr<layer_dir> dir;
    unsigned level = 0; ///< how often its layers were merged
    bool needed = false;
  };
  struct state {
    unsigned depth = 1;
    std::vector<cover> covers;
  };
  /// One step of a way from a state down to an ancestor.
  struct step {
    state_ptr from;
    std::size_t cover = 0;
  };
  using way = std::vector<step>;

  static std::optional<way> shortest(const state_ptr& from, const state* to);
  static layer_stack stack(const way& steps);
  std::vector<state_ptr> tips() const;
  const state* nearest_tip_below(const state_ptr& from, const std::vector<state_ptr>& tips) const;
  bool mergeable(const step& one) const;
  std::optional<merge> merge_dropped(const way& steps) const;
  static merge merge_of(const way& steps, std::size_t first, std::size_t count);
  void collect();

  std::shared_ptr<layer_dir> top_;
  layer_stack below_;
  /// The state that the top lies on; none: the empty machine.
  state_ptr base_;
  std::map<checkpoint_number, state_ptr> named_;
  bool merging_fails_ = false;
};

} // namespace berth::machines
