// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/process_memory.hpp"

#include "machines/namespace/directory.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

namespace {

constexpr std::uint64_t kib = 1024;
/// Descriptors of a machine that are looked at in one round.
constexpr std::size_t descriptors_max = 65'536;
/// Processes below one that are looked at.
constexpr std::size_t processes_max = 65'536;

std::string text_of(int dir, const std::string& path) {
  owned_fd file{::openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string text(4096, '\0');
  ssize_t count = file ? ::read(file.get(), text.data(), text.size()) : 0;
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return text;
}

/// The number after a name at the start of a line, in bytes; the kernel gives KiB.
std::uint64_t bytes_after(std::string_view text, std::string_view name) {
  for (auto at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1))
    if (at == 0 || text[at - 1] == '\n')
      return std::strtoull(text.data() + at + name.size(), nullptr, 10) * kib;
  return 0;
}

std::vector<std::string> numbers_in(int dir, const std::string& path) {
  std::vector<std::string> names;
  open_dir all =
      read_directory(owned_fd{::openat(dir, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)});
  if (!all)
    return names;
  while (dirent* entry = ::readdir(all.get()))
    if (std::isdigit(static_cast<unsigned char>(entry->d_name[0])) != 0)
      names.emplace_back(entry->d_name);
  return names;
}

struct memory {
  std::uint64_t anonymous = 0;
  std::uint64_t shared = 0;

  std::uint64_t used(std::uint64_t disk, std::uint64_t nameless) const {
    return anonymous + std::max(shared > disk ? shared - disk : 0, nameless);
  }
};

memory sum(int proc, const std::vector<std::string>& pids, const char* file, std::string_view anon,
           std::string_view shmem) {
  memory total;
  for (const auto& pid : pids) {
    std::string text = text_of(proc, pid + file);
    total.anonymous += bytes_after(text, anon);
    total.shared += bytes_after(text, shmem);
  }
  return total;
}

/// Bytes of memfds and their like, each counted once.
std::uint64_t nameless_files(int proc, const std::vector<std::string>& pids) {
  std::set<std::pair<dev_t, ino_t>> seen;
  std::uint64_t total = 0;
  std::size_t looked = 0;
  for (const auto& pid : pids)
    for (const auto& number : numbers_in(proc, pid + "/fd")) {
      struct stat info {};
      if (++looked > descriptors_max)
        return total;
      const std::string path = pid + "/fd/" + number;
      if (::fstatat(proc, path.c_str(), &info, 0) != 0 || !S_ISREG(info.st_mode))
        continue;
      char name[16] = {};
      if (::readlinkat(proc, path.c_str(), name, sizeof name - 1) > 0
          && std::strncmp(name, "/memfd:", 7) == 0 && seen.emplace(info.st_dev, info.st_ino).second)
        total += static_cast<std::uint64_t>(info.st_blocks) * 512;
    }
  return total;
}

} // namespace

std::uint64_t memory_of_processes(int proc, std::uint64_t allowed, std::uint64_t disk) {
  auto pids = numbers_in(proc, ".");
  std::uint64_t nameless = nameless_files(proc, pids);
  std::uint64_t used = sum(proc, pids, "/status", "RssAnon:", "RssShmem:").used(disk, nameless);
  if (used <= allowed)
    return used;
  return sum(proc, pids, "/smaps_rollup", "Pss_Anon:", "Pss_Shmem:").used(disk, nameless);
}

void limit_processes_of(int pid, std::uint64_t processes) {
  if (pid <= 0)
    return;
  std::vector<int> all{pid};
  rlimit limit{processes, processes};
  for (std::size_t i = 0; i < all.size() && i < processes_max; ++i) {
    ::prlimit(all[i], RLIMIT_NPROC, &limit, nullptr);
    const std::string task = "/proc/" + std::to_string(all[i]) + "/task";
    for (const auto& thread : numbers_in(AT_FDCWD, task)) {
      std::string children = text_of(AT_FDCWD, task + "/" + thread + "/children");
      for (char* at = children.data(); *at != '\0';) {
        char* end = at;
        long child = std::strtol(at, &end, 10);
        if (end == at)
          break;
        all.push_back(static_cast<int>(child));
        at = end;
      }
    }
  }
}

} // namespace berth::machines
