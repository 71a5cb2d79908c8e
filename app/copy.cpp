// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"
#include "config/limits.hpp"
#include "messages/fd.hpp"
#include "messages/path_text.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <optional>

namespace berth {

namespace {

/// One side of a copy: a path here, or of a session.
struct place {
  std::optional<std::string> session;
  std::string path;
};

/// `SESSION:PATH` is of a session; a slash before the colon, or none at all, makes it a path here.
place read_place(const std::string& text) {
  std::size_t colon = text.find(':');
  if (colon == 0 || colon == std::string::npos || text.find('/') < colon)
    return {std::nullopt, text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

std::string last_part(const std::string& path) {
  std::size_t end = path.find_last_not_of('/');
  if (end == std::string::npos)
    return {};
  std::size_t slash = path.rfind('/', end);
  return path.substr(slash == std::string::npos ? 0 : slash + 1,
                     end - (slash == std::string::npos ? 0 : slash + 1) + 1);
}

std::string join(const std::string& directory, const std::string& name) {
  return directory + (directory.empty() || directory.ends_with('/') ? "" : "/") + name;
}

error here(const std::string& doing, const std::string& path) {
  ec code = errno == ENOENT ? ec::not_found : errno == EEXIST ? ec::already_exists : ec::rejected;
  return fail(code, doing + " " + path + ": " + std::strerror(errno));
}

/// A name that a machine gives for something in a directory: no path, and not the directory's own.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos
         && name.find('\0') == std::string::npos;
}

/// Copies files between here and a session, part by part.
class copier {
public:
  copier(client& server, bool recursive)
    : server_(server)
    , recursive_(recursive) {}

  error up(const std::string& from, const place& to, bool into);
  error down(const place& from, const std::string& to, bool into);

  std::uint64_t files() const { return files_; }
  std::uint64_t bytes_copied() const { return bytes_; }
  const std::vector<std::string>& skipped() const { return skipped_; }

private:
  error up_file(int file, const std::string& name, const std::string& path, std::uint32_t mode);
  error up_tree(int directory, const std::string& name, const std::string& path);
  error down_file(const std::string& path, int file, const std::string& name);
  error down_tree(const std::string& path, int directory, const std::string& name);
  error down_entry(const file_info& from, int directory, const std::string& name);
  error make_remote(const std::string& path);

  client& server_;
  bool recursive_;
  std::string session_;
  std::uint64_t files_ = 0;
  std::uint64_t bytes_ = 0;
  std::vector<std::string> skipped_;
};

// --- to a session --------------------------------------------------------------------------------

error copier::up(const std::string& from, const place& to, bool into) {
  session_ = *to.session;
  struct stat info {};
  std::string target = to.path;
  auto there = server_.ask<file_info>(
      stat_file{.session = session_, .path = target.empty() ? "/work" : path_to_text(target)});
  if (!there && there.error() != ec::not_found)
    return there.error();
  bool inside = into || target.empty() || target.ends_with('/')
                || (there && there->kind == file_kind::directory);
  if (from == "-")
    return inside ? fail(ec::malformed, "what comes from standard input needs a file's name")
                  : up_file(0, "standard input", target, 0644);
  if (inside)
    target = join(target, last_part(from));
  owned_fd file{::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (!file || ::fstat(file.get(), &info) != 0)
    return here("open", from);
  if (S_ISDIR(info.st_mode) && !recursive_)
    return fail(ec::malformed, from + " is a directory; -r copies it with all that is in it");
  if (S_ISDIR(info.st_mode))
    return up_tree(file.get(), from, target);
  if (!S_ISREG(info.st_mode))
    return fail(ec::malformed, from + " is neither a file nor a directory");
  return up_file(file.get(), from, target, info.st_mode & 0777);
}

error copier::up_file(int file, const std::string& name, const std::string& path,
                      std::uint32_t mode) {
  write_file part{.session = session_, .path = path_to_text(path), .mode = mode};
  for (bool first = true;; first = false) {
    part.data.resize(limits::file_write_bytes_max);
    std::size_t size = 0;
    while (size < part.data.size()) {
      ssize_t got = ::read(file, part.data.data() + size, part.data.size() - size);
      if (got < 0 && errno == EINTR)
        continue;
      if (got < 0)
        return here("read", name);
      if (got == 0)
        break;
      size += static_cast<std::size_t>(got);
    }
    if (size == 0 && !first)
      break;
    part.data.resize(size);
    if (auto written = server_.ask<file_info>(part); !written)
      return written.error();
    part.offset += size;
    if (size < limits::file_write_bytes_max)
      break;
  }
  ++files_;
  bytes_ += part.offset;
  return {};
}

error copier::make_remote(const std::string& path) {
  auto made = server_.ask<file_info>(make_dir{.session = session_, .path = path_to_text(path)});
  return made || made.error() == ec::already_exists ? error{} : made.error();
}

error copier::up_tree(int directory, const std::string& name, const std::string& path) {
  if (error why = make_remote(path))
    return why;
  int own = ::fcntl(directory, F_DUPFD_CLOEXEC, 3);
  std::unique_ptr<DIR, int (*)(DIR*)> stream{own < 0 ? nullptr : ::fdopendir(own), ::closedir};
  if (!stream)
    return here("open", name);
  while (const dirent* found = ::readdir(stream.get())) {
    std::string entry = found->d_name;
    if (!is_plain_name(entry))
      continue;
    std::string full = join(name, entry);
    struct stat info {};
    owned_fd file;
    if (::fstatat(directory, entry.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return here("look at", full);
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
      skipped_.push_back(full);
      continue;
    }
    file.reset(::openat(directory, entry.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file)
      return here("open", full);
    error why = S_ISDIR(info.st_mode)
                    ? up_tree(file.get(), full, join(path, entry))
                    : up_file(file.get(), full, join(path, entry), info.st_mode & 0777);
    if (why)
      return why;
  }
  return {};
}

// --- from a session ------------------------------------------------------------------------------

error copier::down(const place& from, const std::string& to, bool into) {
  session_ = *from.session;
  std::string path = from.path.empty() ? "/work" : from.path;
  auto told = server_.ask<file_info>(stat_file{.session = session_, .path = path_to_text(path)});
  if (!told)
    return told.error();
  if (to == "-")
    return down_file(path, 1, "standard output");
  if (told->kind == file_kind::directory && !recursive_)
    return fail(ec::malformed,
                session_ + ":" + path + " is a directory; -r copies it with all that is in it");
  // A link that is named itself is followed, as everywhere.
  if (told->kind == file_kind::symlink)
    told->kind = file_kind::file;
  struct stat info {};
  // Of the machine's root, `.` and `..` it is what is in them that is copied.
  bool named = is_plain_name(last_part(path));
  bool inside =
      into || to.ends_with('/') || (::stat(to.c_str(), &info) == 0 && S_ISDIR(info.st_mode));
  std::string target = inside && named ? join(to, last_part(path)) : to;
  std::string name = last_part(target);
  std::string above = target.substr(0, target.rfind(name));
  if (!is_plain_name(name)) {
    above = target;
    name = ".";
  }
  told->path = path_to_text(path);
  owned_fd directory{::open(above.empty() ? "." : above.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!directory)
    return here("open", above);
  return down_entry(*told, directory.get(), name);
}

/// Makes one thing in a directory here. The machine's word is not trusted: nothing is followed that
/// could have been put there by it.
error copier::down_entry(const file_info& from, int directory, const std::string& name) {
  std::string path = text_to_path(from.path);
  if (from.kind == file_kind::directory) {
    if (::mkdirat(directory, name.c_str(), 0777) != 0 && errno != EEXIST)
      return here("make", name);
    owned_fd below{
        ::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    return below ? down_tree(path, below.get(), name) : here("open", name);
  }
  if (from.kind == file_kind::symlink) {
    std::string target = text_to_path(from.target);
    if (::symlinkat(target.c_str(), directory, name.c_str()) != 0)
      return here("link", name);
    ++files_;
    return {};
  }
  if (from.kind == file_kind::other) {
    skipped_.push_back(session_ + ":" + from.path);
    return {};
  }
  owned_fd file{::openat(directory, name.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                         from.mode & 0777)};
  if (!file)
    return here("write", name);
  return down_file(path, file.get(), name);
}

error copier::down_file(const std::string& path, int file, const std::string& name) {
  read_file part{.session = session_, .path = path_to_text(path)};
  for (;;) {
    auto got = server_.ask<file_content>(part);
    if (!got)
      return got.error();
    if (!write_all(file, got->data))
      return here("write", name);
    part.offset += got->data.size();
    if (got->eof || got->data.empty())
      break;
  }
  ++files_;
  bytes_ += part.offset;
  return {};
}

error copier::down_tree(const std::string& path, int directory, const std::string& name) {
  auto listed = server_.ask<file_list>(
      list_files{.session = session_, .path = path_to_text(path), .depth = 1});
  if (!listed)
    return listed.error();
  if (listed->truncated)
    return fail(ec::too_large,
                session_ + ":" + path + " holds more than " + std::to_string(listed->entries.size())
                    + " entries; pack it in the session first, for example with tar");
  for (const file_info& each : listed->entries) {
    std::string entry = text_to_path(each.name);
    if (!is_plain_name(entry))
      return fail(ec::rejected, "the machine gave a name that is none, in " + name);
    if (error why = down_entry(each, directory, entry))
      return why;
  }
  return {};
}

int show_result(const common_options& common, const copier& done) {
  for (const auto& each : done.skipped())
    terminal::report(terminal::clean(each) + " is neither file nor directory, and was left out");
  if (common.json)
    std::printf("%s\n", json_text({{"files", done.files()},
                                   {"bytes", done.bytes_copied()},
                                   {"skipped", done.skipped()}})
                            .c_str());
  return 0;
}

} // namespace

int command_copy(const common_options& common, std::vector<std::string> paths, bool recursive) {
  place to = read_place(paths.back());
  paths.pop_back();
  for (const auto& each : paths)
    if (read_place(each).session.has_value() == to.session.has_value())
      return terminal::report("one side must be SESSION:PATH and the other a path here");
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  copier work{**server, recursive};
  for (const auto& each : paths) {
    place from = read_place(each);
    error why = to.session ? work.up(each, to, paths.size() > 1)
                           : work.down(from, to.path, paths.size() > 1);
    if (why)
      return terminal::report(why);
  }
  return show_result(common, work);
}

} // namespace berth
