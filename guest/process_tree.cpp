// SPDX-License-Identifier: Apache-2.0
#include "guest/process_tree.hpp"

#include "messages/fd.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace berth::guest {

namespace {

bool read_all(const char* path, std::string& to) {
  owned_fd file{open(path, O_RDONLY | O_CLOEXEC)};
  if (!file)
    return false;
  to.clear();
  char buffer[4096];
  ssize_t count;
  while ((count = read(file.get(), buffer, sizeof buffer)) > 0)
    to.append(buffer, static_cast<std::size_t>(count));
  return count == 0;
}

/// The parent in the text of a /proc/PID/stat; 0 when there is none. The name before it may hold
/// anything, brackets too.
pid_t parent_in(const std::string& stat) {
  std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos || name_end + 4 >= stat.size())
    return 0;
  pid_t parent = 0;
  std::from_chars(stat.data() + name_end + 4, stat.data() + stat.size(), parent);
  return parent;
}

bool has_ended(const std::string& stat) {
  std::size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && name_end + 2 < stat.size() && stat[name_end + 2] == 'Z';
}

bool contains(std::span<const pid_t> pids, pid_t pid) {
  return std::find(pids.begin(), pids.end(), pid) != pids.end();
}

} // namespace

std::vector<pid_t> own_children() {
  std::vector<pid_t> children;
  std::string text;
  pid_t self = getpid();
  std::string path = "/proc/self/task/" + std::to_string(self) + "/children";
  if (read_all(path.c_str(), text)) {
    const char* at = text.data();
    const char* end = at + text.size();
    pid_t pid = 0;
    while (at < end) {
      auto [next, error] = std::from_chars(at, end, pid);
      if (error == std::errc{})
        children.push_back(pid);
      at = next + 1;
    }
    return children;
  }
  for (const kinship& process : all_processes())
    if (process.parent == self)
      children.push_back(process.pid);
  return children;
}

std::vector<kinship> all_processes() {
  std::vector<kinship> processes;
  DIR* directory = opendir("/proc");
  if (directory == nullptr)
    return processes;
  std::string stat;
  pid_t self = getpid();
  while (const dirent* entry = readdir(directory)) {
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, pid).ptr != end || pid == self)
      continue;
    if (read_all((std::string{"/proc/"} + entry->d_name + "/stat").c_str(), stat))
      processes.push_back({pid, parent_in(stat), has_ended(stat)});
  }
  closedir(directory);
  return processes;
}

std::vector<pid_t> strangers(std::span<const kinship> processes, std::span<const pid_t> kept) {
  std::unordered_map<pid_t, pid_t> parents;
  for (const kinship& process : processes)
    parents[process.pid] = process.parent;
  std::vector<pid_t> result;
  for (const kinship& process : processes) {
    pid_t at = process.pid;
    auto found = parents.find(at);
    // The count bounds a loop that a survey of a moving tree might contain.
    for (std::size_t i = 0; i < processes.size() && found != parents.end(); ++i) {
      if (contains(kept, at))
        break;
      at = found->second;
      found = parents.find(at);
    }
    // Parent 0 is outside the machine: a warm interpreter on its way in.
    if (at != 0 && !contains(kept, at))
      result.push_back(process.pid);
  }
  return result;
}

bool leftover_killer::pass(std::span<const pid_t> kept, bool alone) {
  std::vector<pid_t> children = own_children();
  std::erase_if(children, [&](pid_t pid) { return contains(kept, pid); });
  if (children.empty()) {
    passes_ = 0;
    return true;
  }
  if (alone)
    kill(-1, SIGKILL);
  else if (++passes_ > plain_passes)
    stop_and_kill(kept);
  else
    for (pid_t pid : children)
      kill(pid, SIGKILL);
  return false;
}

void leftover_killer::stop_and_kill(std::span<const pid_t> kept) {
  // Stopping keeps the places in the process limit occupied, so that nothing new comes to be while
  // the rest is found; killing one by one would make room for others.
  std::unordered_set<pid_t> stopped;
  for (int round = 0; round < stop_rounds; ++round) {
    bool news = false;
    for (pid_t pid : strangers(all_processes(), kept)) {
      news = stopped.insert(pid).second || news;
      kill(pid, SIGSTOP);
    }
    if (!news)
      break;
  }
  for (pid_t pid : stopped)
    kill(pid, SIGKILL);
  for (pid_t pid : own_children())
    if (!contains(kept, pid))
      kill(pid, SIGKILL);
}

} // namespace berth::guest
