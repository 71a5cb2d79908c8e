// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <deque>
#include <functional>
#include <memory>

namespace berth::guest {

/// Entries of one listing; more make it `truncated`.
inline constexpr std::size_t list_entries_max = 10'000;
/// Bytes of names and paths of one listing.
inline constexpr std::size_t list_bytes_max = 2 * limits::mib;
/// Levels of one listing.
inline constexpr std::uint32_t list_depth_max = 16;
/// Listings and removals under way at once; more are refused.
inline constexpr std::size_t file_tasks_max = 64;

/// Work on whole trees, done slice by slice between the guest's other work.
class file_task {
public:
  virtual ~file_task() = default;

  /// Does a little. False when it is over: its answer was sent.
  virtual bool step() = 0;
  /// Gives up; its answer says why.
  virtual void give_up(ec failure, const std::string& why) = 0;
  /// Whether its answer was sent.
  bool over() const { return over_; }

protected:
  bool over_ = false;
};

/// The listings and removals under way. Each gets a slice in turn.
class file_tasks {
public:
  using list_answer = std::function<void(const dir_listed&)>;
  using remove_answer = std::function<void(const path_done&)>;

  void list(const list_dir& request, list_answer answer);
  void remove(const remove_path& request, remove_answer answer);

  bool busy() const { return !tasks_.empty(); }
  /// One slice of one task.
  void step();
  /// The root of the file system is another one now: what was under way ends with `conflict`.
  void root_changed();

private:
  void add(std::unique_ptr<file_task> task);

  std::deque<std::unique_ptr<file_task>> tasks_;
};

} // namespace berth::guest
