// SPDX-License-Identifier: Apache-2.0
#include "guest/files.hpp"

#include "guest/workspace.hpp"
#include "messages/fd.hpp"

#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <limits>

namespace berth::guest {

namespace {

/// A regular file, or why there is none.
struct opened {
  owned_fd file;
  std::uint64_t size = 0;
  std::string error;
};

std::string absolute(const std::string& path, const std::string& cwd) {
  if (path.starts_with('/'))
    return path;
  std::string base = cwd.empty() ? default_directory : cwd;
  return (base.starts_with('/') ? base : std::string{default_directory} + "/" + base) + "/" + path;
}

std::string why_unusable(const std::string& path) {
  if (path.empty())
    return "the path is empty";
  if (path.size() > limits::path_bytes_max)
    return "the path is too long";
  if (path.find('\0') != std::string::npos)
    return "the path contains a NUL byte";
  return {};
}

std::string describe(const std::string& path, int error) {
  switch (error) {
  case ELOOP:
    return path + ": is a symbolic link, or leads through one of the kernel's own";
  case ENXIO:
    return path + ": is not a regular file";
  default:
    return path + ": " + std::strerror(error);
  }
}

int open_in_root(const std::string& path, int flags, unsigned mode) {
  static const int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.mode = mode;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  long fd = syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
  // Kernels and filters without it: what it would keep out is found by looking at what was opened.
  if (fd < 0 && errno == ENOSYS)
    fd = open(path.c_str(), flags, mode);
  return static_cast<int>(fd);
}

opened open_regular(const std::string& path, int flags, unsigned mode) {
  opened result;
  result.file.reset(
      open_in_root(path, flags | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, mode));
  if (!result.file) {
    result.error = describe(path, errno);
    return result;
  }
  struct stat info;
  struct statfs system;
  if (fstat(result.file.get(), &info) != 0 || fstatfs(result.file.get(), &system) != 0)
    result.error = describe(path, errno);
  else if (S_ISDIR(info.st_mode))
    result.error = describe(path, EISDIR);
  else if (!S_ISREG(info.st_mode) || system.f_type == PROC_SUPER_MAGIC)
    result.error = path + ": is not a regular file";
  else
    result.size = static_cast<std::uint64_t>(info.st_size);
  return result;
}

std::string make_parents(const std::string& path) {
  std::size_t slash = path.rfind('/');
  return slash == 0 ? std::string{} : make_directories(path.substr(0, slash));
}

std::string write_at(int file, std::uint64_t offset, const bytes& data) {
  std::size_t done = 0;
  while (done < data.size()) {
    ssize_t count =
        pwrite(file, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return std::strerror(count < 0 ? errno : EIO);
    done += static_cast<std::size_t>(count);
  }
  return {};
}

constexpr auto offset_max = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

} // namespace

file_put put(const put_file& request) {
  file_put answer{request.request, why_unusable(request.path)};
  if (!answer.error.empty())
    return answer;
  std::string path = absolute(request.path, request.cwd);
  answer.error = why_unusable(path);
  if (answer.error.empty() && path.ends_with('/'))
    answer.error = path + ": " + std::strerror(EISDIR);
  if (answer.error.empty() && request.offset > offset_max - request.data.size())
    answer.error = path + ": " + std::strerror(EFBIG);
  bool first = request.offset == 0;
  if (answer.error.empty() && first)
    answer.error = make_parents(path);
  if (!answer.error.empty())
    return answer;
  opened target = open_regular(path, first ? O_WRONLY | O_CREAT : O_WRONLY, first ? 0600 : 0);
  answer.error = target.error;
  if (!answer.error.empty())
    return answer;
  if (first
      && (ftruncate(target.file.get(), 0) != 0
          || fchmod(target.file.get(), request.mode & 0777) != 0))
    answer.error = describe(path, errno);
  if (answer.error.empty()) {
    answer.error = write_at(target.file.get(), request.offset, request.data);
    if (!answer.error.empty())
      answer.error = path + ": " + answer.error;
  }
  return answer;
}

file_data get(const get_file& request) {
  file_data answer;
  answer.request = request.request;
  answer.error = why_unusable(request.path);
  if (!answer.error.empty())
    return answer;
  std::string path = absolute(request.path, {});
  opened source = open_regular(path, O_RDONLY, 0);
  answer.error = source.error;
  if (!answer.error.empty())
    return answer;
  answer.size = source.size;
  std::size_t wanted = std::min<std::size_t>(request.bytes_max, limits::chunk_bytes_max);
  answer.data.resize(wanted);
  std::size_t done = 0;
  while (done < wanted && request.offset <= offset_max - wanted) {
    ssize_t count = pread(source.file.get(), answer.data.data() + done, wanted - done,
                          static_cast<off_t>(request.offset + done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      answer.error = describe(path, errno);
    if (count <= 0)
      break;
    done += static_cast<std::size_t>(count);
  }
  answer.data.resize(done);
  answer.eof = done < wanted || request.offset + done >= answer.size;
  return answer;
}

} // namespace berth::guest
