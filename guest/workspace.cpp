// SPDX-License-Identifier: Apache-2.0
#include "guest/workspace.hpp"

#include "messages/fd.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>

namespace berth::guest {

const std::string& workspace::base() {
  struct stat info;
  if (base_.empty() || lstat(base_.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    std::string pattern = root_ + "/.berth-XXXXXX";
    base_ = mkdtemp(pattern.data()) != nullptr ? pattern : std::string{};
  }
  return base_;
}

std::string workspace::make_directory() {
  if (base().empty())
    return {};
  std::string path = base_ + "/" + std::to_string(++count_);
  return mkdir(path.c_str(), 0700) == 0 ? path : std::string{};
}

bool write_file(const std::string& path, std::string_view content, unsigned mode) {
  owned_fd file{open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode)};
  while (file && !content.empty()) {
    ssize_t count = write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0) {
      // Half a file would be taken for a whole one later.
      int error = errno;
      unlink(path.c_str());
      errno = error;
      return false;
    }
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  return static_cast<bool>(file);
}

std::string make_directories(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0)
    return S_ISDIR(info.st_mode) ? std::string{} : path + ": Not a directory";
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST)
      return part + ": " + std::strerror(errno);
    if (slash == std::string::npos)
      break;
  }
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) ? std::string{}
                                                                 : path + ": Not a directory";
}

void remove_directory(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr)
    return;
  while (const dirent* entry = readdir(directory))
    unlinkat(dirfd(directory), entry->d_name, 0);
  closedir(directory);
  rmdir(path.c_str());
}

} // namespace berth::guest
