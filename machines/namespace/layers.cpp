// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layers.hpp"

#include <algorithm>
#include <deque>
#include <set>

namespace berth::machines {

layer_tree::layer_tree(std::shared_ptr<layer_dir> first)
  : top_(std::move(first)) {}

/// The way with fewest layers, breadth first: there are few states, and most have one cover.
std::optional<layer_tree::way> layer_tree::shortest(const state_ptr& from, const state* to) {
  if (from.get() == to)
    return way{};
  struct reached {
    state_ptr at;
    std::size_t by; ///< index of the one we came from
    std::size_t cover;
  };
  std::deque<reached> all{{from, 0, 0}};
  std::set<const state*> seen{from.get()};
  for (std::size_t i = 0; i < all.size(); ++i) {
    state_ptr at = all[i].at;
    for (std::size_t c = 0; c < at->covers.size(); ++c) {
      const state_ptr& next = at->covers[c].after;
      if (next.get() == to) {
        way steps{{at, c}};
        for (std::size_t back = i; back != 0; back = all[back].by)
          steps.push_back({all[all[back].by].at, all[back].cover});
        std::reverse(steps.begin(), steps.end());
        return steps;
      }
      if (next && (to == nullptr || next->depth > to->depth) && seen.insert(next.get()).second)
        all.push_back({next, i, c});
    }
  }
  return {};
}

layer_stack layer_tree::stack(const way& steps) {
  layer_stack layers;
  for (const auto& one : steps)
    layers.push_back(one.from->covers[one.cover].dir);
  return layers;
}

layer_stack layer_tree::stack_of(checkpoint_number checkpoint) const {
  auto found = named_.find(checkpoint);
  if (found == named_.end())
    return {};
  auto steps = shortest(found->second, nullptr);
  return steps ? stack(*steps) : layer_stack{};
}

layer_stack layer_tree::stack_of_present() const {
  auto steps = base_ ? shortest(base_, nullptr) : std::nullopt;
  return steps ? stack(*steps) : layer_stack{};
}

std::optional<layer_stack> layer_tree::between(checkpoint_number since,
                                               checkpoint_number checkpoint) const {
  auto upper = named_.find(checkpoint);
  auto lower = named_.find(since);
  if (upper == named_.end() || (since != 0 && lower == named_.end()))
    return {};
  auto steps = shortest(upper->second, since == 0 ? nullptr : lower->second.get());
  if (!steps)
    return {};
  return stack(*steps);
}

void layer_tree::froze(checkpoint_number checkpoint, std::shared_ptr<layer_dir> fresh,
                       layer_stack below) {
  auto made = std::make_shared<state>();
  made->depth = base_ ? base_->depth + 1 : 1;
  made->covers.push_back({base_, std::move(top_), 0, true});
  named_[checkpoint] = made;
  base_ = std::move(made);
  top_ = std::move(fresh);
  below_ = std::move(below);
  merging_fails_ = false;
  collect();
}

void layer_tree::rolled_back(checkpoint_number checkpoint, std::shared_ptr<layer_dir> fresh,
                             layer_stack below) {
  base_ = named_.at(checkpoint);
  top_ = std::move(fresh);
  below_ = std::move(below);
  collect();
}

void layer_tree::adopt(checkpoint_number checkpoint, layer_stack layers) {
  below_.insert(below_.begin(), layers.begin(), layers.end());
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    auto made = std::make_shared<state>();
    made->depth = base_ ? base_->depth + 1 : 1;
    made->covers.push_back({base_, std::move(*layer), 0, true});
    base_ = std::move(made);
  }
  if (checkpoint != 0)
    named_[checkpoint] = base_;
}

void layer_tree::drop(checkpoint_number checkpoint) {
  named_.erase(checkpoint);
  collect();
}

/// The states that somebody may go to, and the one the machine stands on.
std::vector<layer_tree::state_ptr> layer_tree::tips() const {
  std::vector<state_ptr> all;
  for (const auto& [number, at] : named_)
    all.push_back(at);
  if (base_ && std::find(all.begin(), all.end(), base_) == all.end())
    all.push_back(base_);
  return all;
}

const layer_tree::state* layer_tree::nearest_tip_below(const state_ptr& from,
                                                       const std::vector<state_ptr>& tips) const {
  std::set<const state*> marked;
  for (const auto& tip : tips)
    marked.insert(tip.get());
  const state* best = nullptr;
  std::vector<const state*> open{from.get()};
  std::set<const state*> seen;
  while (!open.empty()) {
    const state* at = open.back();
    open.pop_back();
    for (const auto& one : at->covers) {
      const state* next = one.after.get();
      if (next == nullptr || !seen.insert(next).second)
        continue;
      if (marked.contains(next) && (best == nullptr || next->depth > best->depth))
        best = next;
      open.push_back(next);
    }
  }
  return best;
}

/// Lets go of what is on no way that is needed: from each tip to the bottom, and from each tip to
/// the next one, so that what changed between any two can be told.
void layer_tree::collect() {
  auto all = tips();
  std::set<state*> seen;
  std::vector<state_ptr> open = all;
  while (!open.empty()) {
    state_ptr at = std::move(open.back());
    open.pop_back();
    if (!seen.insert(at.get()).second)
      continue;
    for (auto& one : at->covers) {
      one.needed = false;
      if (one.after)
        open.push_back(one.after);
    }
  }
  std::vector<state_ptr> kept; // holds every state until its covers are sorted out
  for (const auto& tip : all)
    for (const state* to : {static_cast<const state*>(nullptr), nearest_tip_below(tip, all)})
      if (auto steps = shortest(tip, to))
        for (const auto& one : *steps) {
          one.from->covers[one.cover].needed = true;
          kept.push_back(one.from);
        }
  for (const auto& one : kept)
    std::erase_if(one->covers, [](const cover& each) { return !each.needed; });
}

layer_tree::merge layer_tree::merge_of(const way& steps, std::size_t first, std::size_t count) {
  merge wanted;
  for (std::size_t i = first; i < first + count; ++i) {
    const cover& one = steps[i].from->covers[steps[i].cover];
    wanted.layers.push_back(one.dir);
    wanted.level = std::max(wanted.level, one.level);
  }
  const step& last = steps[first + count - 1];
  wanted.upper = steps[first].from;
  wanted.after = last.from->covers[last.cover].after;
  wanted.from_bottom = !last.from->covers[last.cover].after;
  if (!wanted.from_bottom)
    if (auto rest = shortest(last.from->covers[last.cover].after, nullptr))
      wanted.below = stack(*rest);
  return wanted;
}

/// Merging is done by hard links, which do not go from one disk to another.
bool layer_tree::mergeable(const step& one) const {
  return one.from->covers[one.cover].dir->disk() == top_->disk();
}

/// Layers between two states that are needed, with none that is: they can be one, and what one
/// hides of another is then free.
std::optional<layer_tree::merge> layer_tree::merge_dropped(const way& steps) const {
  for (std::size_t begin = 0, end = 0; begin < steps.size(); begin = std::max(end, begin + 1)) {
    for (end = begin; end < steps.size() && end - begin < merge_fan_in && mergeable(steps[end]);)
      ++end;
    if (end - begin > 1)
      return merge_of(steps, begin, end - begin);
  }
  return {};
}

std::optional<layer_tree::merge> layer_tree::next_merge() const {
  if (merging_fails_)
    return {};
  auto all = tips();
  for (const auto& tip : all)
    if (auto steps = shortest(tip, nearest_tip_below(tip, all)))
      if (auto found = merge_dropped(*steps))
        return found;
  auto steps = base_ ? shortest(base_, nullptr) : std::nullopt;
  if (!steps || steps->size() <= stack_merged_above)
    return {};
  // Of the runs of layers merged equally often the least merged one, and of it the oldest. Where
  // there is none, the oldest layers whatever they are.
  std::optional<std::size_t> best;
  unsigned best_level = ~0U;
  for (bool equal : {true, false}) {
    for (std::size_t end = steps->size(), begin = 0; end > 0; end = begin) {
      begin = end - 1;
      auto level = [&](std::size_t i) {
        const auto& one = (*steps)[i];
        return equal ? one.from->covers[one.cover].level : 0;
      };
      if (!mergeable((*steps)[begin]))
        continue;
      while (begin > 0 && mergeable((*steps)[begin - 1]) && level(begin - 1) == level(end - 1))
        --begin;
      if (end - begin >= merge_fan_in && level(begin) < best_level) {
        best = end - merge_fan_in;
        best_level = level(begin);
      }
    }
    if (best)
      break;
  }
  if (!best)
    return {};
  auto wanted = merge_of(*steps, *best, merge_fan_in);
  ++wanted.level;
  return wanted;
}

void layer_tree::merged(const merge& done, std::shared_ptr<layer_dir> into) {
  auto upper = std::static_pointer_cast<state>(done.upper.lock());
  auto after = std::static_pointer_cast<state>(done.after.lock());
  // What was to be merged may have been dropped meanwhile.
  if (!upper || (!after && !done.from_bottom))
    return;
  upper->covers.push_back({std::move(after), std::move(into), done.level, true});
  collect();
}

} // namespace berth::machines
