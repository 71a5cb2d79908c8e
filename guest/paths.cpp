// SPDX-License-Identifier: Apache-2.0
#include "guest/paths.hpp"

#include "messages/limits.hpp"
#include "messages/path_text.hpp"

#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace berth::guest {

namespace {

ec code_of(int number) {
  switch (number) {
  case ENOENT:
    return ec::not_found;
  case EEXIST:
    return ec::already_exists;
  case ENOSPC:
  case EDQUOT:
  case ENOMEM:
  case EMFILE:
  case ENFILE:
    return ec::no_capacity;
  case EACCES:
  case EPERM:
  case EROFS:
  case ELOOP:
  case ENXIO:
  case ENODEV:
    return ec::rejected;
  case EFBIG:
    return ec::too_large;
  case ENAMETOOLONG:
    return ec::malformed;
  case EIO:
    return ec::machine_failed;
  default:
    return ec::conflict;
  }
}

const char* words_of(int number) {
  switch (number) {
  case ELOOP:
    return "leads through too many links, or through one of the kernel's own";
  case EXDEV:
    return "is on another file system; copy it and remove it instead";
  case EAGAIN:
    return "is leased by a program";
  case EISDIR:
    return "is a directory";
  default:
    return std::strerror(number);
  }
}

const char* kind_of(mode_t mode) {
  switch (mode & S_IFMT) {
  case S_IFDIR:
    return "a directory";
  case S_IFIFO:
    return "a pipe";
  case S_IFSOCK:
    return "a socket";
  case S_IFCHR:
  case S_IFBLK:
    return "a device";
  default:
    return "not a file that can be read or written";
  }
}

/// Why what was opened is not a regular file; nothing when it is one.
path_error look_at(const std::string& path, int fd, struct stat& info) {
  if (fstat(fd, &info) != 0)
    return error_of(path, errno);
  if (S_ISDIR(info.st_mode))
    return error_of(path, EISDIR);
  if (!S_ISREG(info.st_mode))
    return {ec::rejected, path + ": is " + kind_of(info.st_mode) + ", not a regular file"};
  if (is_made_up(fd))
    return {ec::rejected, path + ": is made up by the kernel, not a regular file"};
  return {};
}

/// Opens what exists. It is looked at before it is opened, for opening a pipe or a device does
/// something to it, and after, for it may have been swapped.
opened_file open_existing(const std::string& path, int flags) {
  opened_file result;
  owned_fd seen{open_at(AT_FDCWD, path, O_PATH)};
  if (!seen) {
    result.error = error_of(path, errno);
    return result;
  }
  result.error = look_at(path, seen.get(), result.info);
  if (result.error)
    return result;
  result.file.reset(open_at(AT_FDCWD, path, flags | O_NONBLOCK | O_NOCTTY));
  result.error =
      result.file ? look_at(path, result.file.get(), result.info) : error_of(path, errno);
  return result;
}

} // namespace

path_error error_of(const std::string& path, int number) {
  return {code_of(number), path_to_text(path) + ": " + words_of(number)};
}

request_path path_of(std::string_view text, const std::string& cwd) {
  std::string path = text_to_path(text);
  if (path.empty())
    return {{}, {ec::malformed, "is empty"}};
  if (path.find('\0') != std::string::npos)
    return {{}, {ec::malformed, "contains a NUL byte"}};
  std::string whole;
  if (!path.starts_with('/')) {
    if (!cwd.starts_with('/'))
      whole = std::string{default_directory} + "/";
    whole += cwd.empty() ? "" : cwd + "/";
  }
  whole += path;
  if (whole.size() > limits::path_bytes_max)
    return {{}, {ec::malformed, "is longer than " + std::to_string(limits::path_bytes_max)}};
  return {whole, {}};
}

split_path split(const std::string& path) {
  std::size_t end = path.find_last_not_of('/');
  if (end == std::string::npos)
    return {"/", {}};
  std::size_t slash = path.rfind('/', end);
  std::size_t from = slash == std::string::npos ? 0 : slash + 1;
  std::string directory = path.substr(0, from);
  return {directory.empty() ? "." : directory, path.substr(from, end + 1 - from)};
}

int open_at(int directory, const std::string& path, int flags, unsigned mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  long fd = syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how);
  // Kernels and filters without it: what it would keep out is found by looking at what was opened.
  if (fd < 0 && errno == ENOSYS)
    fd = openat(directory, path.c_str(), flags | O_CLOEXEC, mode);
  return static_cast<int>(fd);
}

owned_fd open_directory(const std::string& path, int flags) {
  return owned_fd{open_at(AT_FDCWD, path, flags | O_DIRECTORY)};
}

bool is_made_up(int fd) {
  struct statfs system {};
  return fstatfs(fd, &system) == 0
         && (system.f_type == PROC_SUPER_MAGIC || system.f_type == SYSFS_MAGIC
             || system.f_type == CGROUP2_SUPER_MAGIC);
}

opened_file open_for_reading(const std::string& path) {
  return open_existing(path, O_RDONLY);
}

opened_file open_for_writing(const std::string& path, bool create) {
  if (!create)
    return open_existing(path, O_WRONLY);
  // Another may make it, or remove it, between the two attempts; not for ever.
  constexpr int attempts = 8;
  opened_file result;
  for (int i = 0; i < attempts; ++i) {
    result = open_existing(path, O_WRONLY | O_TRUNC);
    if (result.error.code != ec::not_found)
      return result;
    bool made = false;
    result.error = make_directory_path(split(path).directory, made);
    if (result.error)
      return result;
    result.file.reset(
        open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | O_EXCL, 0600));
    result.made = static_cast<bool>(result.file);
    if (result.file || errno != EEXIST) {
      result.error =
          result.file ? look_at(path, result.file.get(), result.info) : error_of(path, errno);
      return result;
    }
  }
  // A link that leads nowhere: there is something, and nothing to open.
  result.error = {ec::conflict, path_to_text(path) + ": is a link that leads nowhere"};
  return result;
}

path_error make_directory_path(const std::string& path, bool& made) {
  made = false;
  if (open_directory(path, O_PATH))
    return {};
  if (errno != ENOENT)
    return error_of(path, errno);
  owned_fd here = open_directory(path.starts_with('/') ? "/" : ".", O_PATH);
  for (std::size_t from = 0; here && from < path.size();) {
    std::size_t slash = std::min(path.find('/', from), path.size());
    std::string part = path.substr(from, slash - from);
    from = slash + 1;
    if (part.empty())
      continue;
    made = mkdirat(here.get(), part.c_str(), 0755) == 0;
    if (!made && errno != EEXIST)
      return error_of(path.substr(0, slash), errno);
    here.reset(open_at(here.get(), part, O_PATH | O_DIRECTORY));
    if (!here)
      return error_of(path.substr(0, slash), errno);
  }
  return here ? path_error{} : error_of(path, errno);
}

} // namespace berth::guest
