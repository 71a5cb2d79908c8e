// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// Directories below each other that are followed; a layer nested deeper is not merged or saved.
inline constexpr std::size_t walk_depth_max = 1'000;

/// Told what a walk over layers meets. Each returns 0 to go on, or errno to stop.
class layer_visitor {
public:
  virtual ~layer_visitor() = default;
  /// A directory begins; "" is the root. `dir` is it, as the newest layer has it. `opaque`: it
  /// hides what layers below have of that name.
  virtual int enter(int dir, std::string_view name, const struct stat& info, bool opaque) = 0;
  /// It ends.
  virtual int leave() = 0;
  /// Anything else. `dir` is where it is; a character device 0:0 hides what layers below have.
  virtual int entry(int dir, const char* name, const struct stat& info) = 0;
};

/// Layers that are walked as if they were one, by descriptors of their directories.
struct walked_layers {
  /// The newest first.
  std::span<const int> trees;
  /// What lies below them, the newest first.
  std::span<const int> below;
  bool ordinary_user = false;
};

/// Walks them. Whatever programs made of them, nothing is followed but directories. A mark for a
/// name that is not there is passed over where nothing below has its directory: it hides nothing,
/// and an overlay would show it. Returns 0 or errno; ELOOP beyond walk_depth_max.
int walk_layers(const walked_layers& layers, layer_visitor& visitor);

/// Whether it is an overlay's mark for a name that is not there.
bool is_whiteout(const struct stat& info);
/// The attribute by which an overlay marks a directory as opaque.
const char* opaque_attribute(bool ordinary_user);
bool is_opaque(int dir, bool ordinary_user);
/// Whether an attribute of that name is a program's own, and means nothing to an overlay.
bool is_program_attribute(std::string_view name);
/// Whether it says, beside the mode, who may use a file (POSIX ACL).
bool is_access_attribute(std::string_view name);
/// The names of a file's attributes. 0 or errno.
int list_attributes(int fd, std::vector<std::string>& names);
/// The value of one. 0 or errno.
int read_attribute(int fd, const std::string& name, std::vector<char>& value);

/// While a layer's directories are gone through: whether layers below it have them, too. Looked up
/// when asked for, which is seldom.
class directories_below {
public:
  /// `trees`: what is below, the newest first.
  directories_below(std::span<const int> trees, bool ordinary_user)
    : trees_(trees)
    , ordinary_user_(ordinary_user) {}

  /// A directory of the present one is entered, at first the root; opaque: it hides those below.
  void enter(std::string_view name, bool opaque) { path_.push_back({std::string{name}, opaque}); }
  void leave() { path_.pop_back(); }
  /// Whether any of them has the present directory. 0 or errno.
  int look(bool& found);

private:
  struct level {
    std::string name;
    bool opaque = false;
    std::optional<std::vector<owned_fd>> dirs{};
  };
  int find(const std::vector<owned_fd>& parents, level& of) const;

  std::span<const int> trees_;
  bool ordinary_user_;
  std::vector<level> path_;
};

/// Makes the tree of layers in `into`, an empty directory, out of hard links: the data is shared,
/// which is safe because nobody writes to it. `made` counts inodes, for links are counted as such.
int merge_layers(const walked_layers& layers, int into, std::uint64_t& made);

/// Removes a directory of `parent` and all in it, however deep. `trash` is a directory of the same
/// file system where it may put names that begin with ".removed-". Returns 0 or errno.
int remove_tree(int parent, const char* name, int trash);

} // namespace berth::machines
