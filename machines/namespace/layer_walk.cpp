// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layer_walk.hpp"

#include "machines/namespace/directory.hpp"

#include <climits>
#include <linux/limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <unordered_set>
#include <vector>

namespace berth::machines {

namespace {

open_dir open_directory(int at, const char* name) {
  return read_directory(owned_fd{::openat(at, name, directory_flags)});
}

/// A directory that is being walked: of each layer that has it, the newest first.
struct frame {
  std::string name;
  std::vector<open_dir> sources;
  std::size_t at = 0;
  /// It hides what lies below.
  bool opaque = false;
  /// Names that were met, when older layers may have them, too.
  std::unordered_set<std::string> met;
};

class walk {
public:
  walk(const walked_layers& layers, layer_visitor& visitor)
    : ordinary_user_(layers.ordinary_user)
    , visitor_(visitor)
    , below_(layers.below, layers.ordinary_user) {}

  int run(std::span<const int> trees) {
    frame root;
    struct stat info {};
    for (int tree : trees) {
      root.sources.push_back(open_directory(tree, "."));
      if (!root.sources.back())
        return errno;
    }
    if (root.sources.empty())
      return EINVAL;
    if (::fstat(::dirfd(root.sources.front().get()), &info) != 0)
      return errno;
    frames_.push_back(std::move(root));
    below_.enter("", false);
    if (int error = visitor_.enter(::dirfd(frames_.back().sources.front().get()), "", info, false))
      return error;
    while (!frames_.empty())
      if (int error = step())
        return error;
    return 0;
  }

private:
  int step() {
    frame& top = frames_.back();
    if (top.at == top.sources.size()) {
      frames_.pop_back();
      below_.leave();
      return visitor_.leave();
    }
    DIR* source = top.sources[top.at].get();
    errno = 0;
    dirent* entry = ::readdir(source);
    if (entry == nullptr)
      return errno != 0 ? errno : (++top.at, 0);
    if (is_dots(entry->d_name))
      return 0;
    if (top.sources.size() > 1 && !top.met.insert(entry->d_name).second)
      return 0;
    struct stat info {};
    if (::fstatat(::dirfd(source), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      return errno;
    if (S_ISDIR(info.st_mode))
      return descend(entry->d_name, info);
    bool hides = true;
    if (is_whiteout(info))
      if (int error = below_.look(hides))
        return error;
    if (!hides)
      return 0;
    return visitor_.entry(::dirfd(source), entry->d_name, info);
  }

  int descend(const std::string& name, const struct stat& info) {
    if (frames_.size() > walk_depth_max)
      return ELOOP;
    const frame& top = frames_.back();
    frame next;
    next.name = name;
    for (std::size_t i = top.at; i < top.sources.size() && !next.opaque; ++i)
      if (int error = add_source(next, ::dirfd(top.sources[i].get())))
        return error;
    if (int error = visitor_.enter(::dirfd(next.sources.front().get()), name, info, next.opaque))
      return error;
    below_.enter(name, next.opaque);
    frames_.push_back(std::move(next));
    return 0;
  }

  int add_source(frame& to, int parent) const {
    struct stat info {};
    if (::fstatat(parent, to.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return errno == ENOENT ? 0 : errno;
    // What a directory replaced, or what hides more, ends what shows through it.
    to.opaque = !S_ISDIR(info.st_mode);
    if (to.opaque)
      return 0;
    to.sources.push_back(open_directory(parent, to.name.c_str()));
    if (!to.sources.back())
      return errno;
    to.opaque = is_opaque(::dirfd(to.sources.back().get()), ordinary_user_);
    return 0;
  }

  bool ordinary_user_;
  layer_visitor& visitor_;
  directories_below below_;
  std::vector<frame> frames_;
};

class merger : public layer_visitor {
public:
  merger(bool ordinary_user, int into)
    : ordinary_user_(ordinary_user)
    , into_(into) {}

  std::uint64_t made() const { return made_; }

  int enter(int from, std::string_view name, const struct stat& info, bool opaque) override {
    owned_fd dir;
    if (name.empty()) {
      dir.reset(::openat(into_, ".", directory_flags));
    } else {
      const std::string text{name};
      ++made_;
      if (::mkdirat(here(), text.c_str(), 0700) != 0)
        return errno;
      dir.reset(::openat(here(), text.c_str(), directory_flags));
    }
    if (!dir || ::fchown(dir.get(), info.st_uid, info.st_gid) != 0
        || ::fchmod(dir.get(), info.st_mode & 07777) != 0)
      return errno;
    if (opaque && ::fsetxattr(dir.get(), opaque_attribute(ordinary_user_), "y", 1, 0) != 0)
      return errno;
    if (int error = copy_attributes(from, dir.get()))
      return error;
    open_.push_back({std::move(dir), {info.st_atim, info.st_mtim}});
    return 0;
  }
  int leave() override {
    int error = ::futimens(here(), open_.back().times) == 0 ? 0 : errno;
    open_.pop_back();
    return error;
  }
  int entry(int dir, const char* name, const struct stat&) override {
    ++made_;
    return ::linkat(dir, name, here(), name, 0) == 0 ? 0 : errno;
  }

private:
  struct made_dir {
    owned_fd fd;
    timespec times[2];
  };
  int here() const { return open_.back().fd.get(); }

  static int copy_attributes(int from, int to) {
    std::vector<std::string> names;
    std::vector<char> value;
    int error = list_attributes(from, names);
    for (const auto& name : names) {
      if (error != 0)
        break;
      if (!is_program_attribute(name) && !is_access_attribute(name))
        continue;
      error = read_attribute(from, name, value);
      if (error == 0 && ::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) != 0)
        error = errno;
    }
    return error;
  }

  bool ordinary_user_;
  int into_;
  std::vector<made_dir> open_;
  std::uint64_t made_ = 0;
};

/// Takes trees apart: what is in a directory is moved out of it, to be emptied in its turn, so that
/// depth costs nothing.
class remover {
public:
  explicit remover(int trash)
    : trash_(trash) {}

  int remove(int parent, const char* name) {
    if (int error = put_away(parent, name))
      return error;
    while (!full_.empty()) {
      std::string one = std::move(full_.back());
      full_.pop_back();
      if (int error = empty(one))
        return error;
    }
    return 0;
  }

private:
  int put_away(int parent, const char* name) {
    // Names that a remover before us left are passed over.
    for (;;) {
      std::string away = ".removed-" + std::to_string(next_++);
      if (::renameat2(parent, name, trash_, away.c_str(), RENAME_NOREPLACE) == 0) {
        full_.push_back(std::move(away));
        return 0;
      }
      if (errno != EEXIST)
        return errno;
    }
  }

  int empty(const std::string& name) {
    open_dir dir = open_directory(trash_, name.c_str());
    if (!dir)
      return errno;
    for (bool any = true; any;) {
      any = false;
      ::rewinddir(dir.get());
      while (dirent* entry = ::readdir(dir.get())) {
        if (is_dots(entry->d_name))
          continue;
        any = true;
        if (::unlinkat(::dirfd(dir.get()), entry->d_name, 0) == 0
            || ::unlinkat(::dirfd(dir.get()), entry->d_name, AT_REMOVEDIR) == 0)
          continue;
        if (int error = put_away(::dirfd(dir.get()), entry->d_name))
          return error;
      }
    }
    return ::unlinkat(trash_, name.c_str(), AT_REMOVEDIR) == 0 ? 0 : errno;
  }

  int trash_;
  std::uint64_t next_ = 0;
  std::vector<std::string> full_;
};

} // namespace

bool is_whiteout(const struct stat& info) {
  return S_ISCHR(info.st_mode) && info.st_rdev == ::makedev(0, 0);
}

const char* opaque_attribute(bool ordinary_user) {
  return ordinary_user ? "user.overlay.opaque" : "trusted.overlay.opaque";
}

bool is_opaque(int dir, bool ordinary_user) {
  char value = 0;
  return ::fgetxattr(dir, opaque_attribute(ordinary_user), &value, 1) == 1 && value == 'y';
}

bool is_program_attribute(std::string_view name) {
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

bool is_access_attribute(std::string_view name) {
  return name.starts_with("system.posix_acl_");
}

int list_attributes(int fd, std::vector<std::string>& names) {
  names.clear();
  std::vector<char> text(1024);
  ssize_t size = ::flistxattr(fd, text.data(), text.size());
  if (size < 0 && errno == ERANGE) {
    text.resize(XATTR_LIST_MAX);
    size = ::flistxattr(fd, text.data(), text.size());
  }
  if (size < 0)
    return errno == ENOTSUP ? 0 : errno;
  for (std::string_view left{text.data(), static_cast<std::size_t>(size)}; !left.empty();) {
    auto end = left.find('\0');
    names.emplace_back(left.substr(0, end));
    left.remove_prefix(std::min(end, left.size() - 1) + 1);
  }
  return 0;
}

int read_attribute(int fd, const std::string& name, std::vector<char>& value) {
  value.resize(XATTR_SIZE_MAX);
  ssize_t size = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
  if (size < 0)
    return errno;
  value.resize(static_cast<std::size_t>(size));
  return 0;
}

int directories_below::look(bool& found) {
  std::size_t known = path_.size();
  while (known > 0 && !path_[known - 1].dirs)
    --known;
  if (known == 0) {
    std::vector<owned_fd>& roots = path_.front().dirs.emplace();
    for (int tree : trees_) {
      roots.emplace_back(::openat(tree, ".", directory_flags));
      if (!roots.back())
        return errno;
    }
    known = 1;
  }
  for (; known < path_.size(); ++known)
    if (int error = find(*path_[known - 1].dirs, path_[known]))
      return error;
  found = !path_.back().dirs->empty();
  return 0;
}

int directories_below::find(const std::vector<owned_fd>& parents, level& of) const {
  std::vector<owned_fd>& dirs = of.dirs.emplace();
  if (of.opaque)
    return 0;
  for (const auto& parent : parents) {
    struct stat info {};
    if (::fstatat(parent.get(), of.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT)
        return errno;
      continue;
    }
    // Another thing of that name, or a mark, hides those further below.
    if (!S_ISDIR(info.st_mode))
      return 0;
    dirs.emplace_back(::openat(parent.get(), of.name.c_str(), directory_flags));
    if (!dirs.back())
      return errno;
    if (is_opaque(dirs.back().get(), ordinary_user_))
      return 0;
  }
  return 0;
}

int walk_layers(const walked_layers& layers, layer_visitor& visitor) {
  return walk{layers, visitor}.run(layers.trees);
}

int merge_layers(const walked_layers& layers, int into, std::uint64_t& made) {
  merger to{layers.ordinary_user, into};
  int error = walk_layers(layers, to);
  made = to.made();
  return error;
}

int remove_tree(int parent, const char* name, int trash) {
  return remover{trash}.remove(parent, name);
}

} // namespace berth::machines
