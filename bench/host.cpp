// SPDX-License-Identifier: Apache-2.0
#include "bench/host.hpp"

#include "bench/process.hpp"

#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <unistd.h>

namespace berth::bench {

namespace fs = std::filesystem;

namespace {

std::string proc(pid_t pid, const char* what) {
  return "/proc/" + std::to_string(pid) + "/" + what;
}

/// Fields of /proc/PID/stat after the name, the state first.
std::vector<std::string> stat_fields(pid_t pid) {
  std::string text = read_text(proc(pid, "stat"));
  auto end = text.rfind(')');
  if (end == std::string::npos)
    return {};
  std::istringstream rest{text.substr(end + 1)};
  return {std::istream_iterator<std::string>{rest}, {}};
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> all;
  std::error_code failed;
  for (const auto& place : fs::directory_iterator{"/proc", failed}) {
    std::string name = place.path().filename();
    pid_t pid = 0;
    auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error == std::errc{} && end == name.data() + name.size())
      all.push_back(pid);
  }
  return all;
}

/// The number of KiB after a key in a file of "Key:   123 kB" lines, as bytes.
std::uint64_t kib_after(const std::string& path, std::string_view key) {
  std::istringstream lines{read_text(path)};
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(key))
      return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  return 0;
}

std::string pid_namespace(pid_t pid) {
  std::error_code failed;
  return fs::read_symlink(proc(pid, "ns/pid"), failed).string();
}

std::vector<std::string> cgroup_roots() {
  std::vector<std::string> roots;
  std::istringstream lines{read_text("/proc/self/mounts")};
  for (std::string source, where, type, rest; lines >> source >> where >> type;) {
    std::getline(lines, rest);
    if (type == "cgroup" || type == "cgroup2")
      roots.push_back(where);
  }
  return roots;
}

} // namespace

std::vector<pid_t> process_tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  for (pid_t pid : all_processes())
    if (auto fields = stat_fields(pid); fields.size() > 1)
      children.emplace(static_cast<pid_t>(std::atoi(fields[1].c_str())), pid);
  std::vector<pid_t> tree{root};
  for (std::size_t i = 0; i < tree.size(); ++i) {
    auto [begin, end] = children.equal_range(tree[i]);
    for (auto one = begin; one != end; ++one)
      tree.push_back(one->second);
  }
  return tree;
}

std::uint64_t resident_bytes(pid_t pid) {
  return kib_after(proc(pid, "status"), "VmRSS:");
}

std::uint64_t proportional_bytes(pid_t pid) {
  return kib_after(proc(pid, "smaps_rollup"), "Pss:");
}

std::size_t open_descriptors(pid_t pid) {
  std::error_code failed;
  fs::directory_iterator place{proc(pid, "fd"), failed};
  return failed ? 0 : static_cast<std::size_t>(std::distance(begin(place), end(place)));
}

std::size_t mounts_seen(pid_t pid) {
  std::string text = read_text(proc(pid, "mounts"));
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

std::uint64_t start_ticks(pid_t pid) {
  auto fields = stat_fields(pid);
  return fields.size() > 19 ? std::strtoull(fields[19].c_str(), nullptr, 10) : 0;
}

std::set<std::string> instance_names(pid_t server) {
  constexpr std::string_view mark = "/berth-";
  std::set<std::string> names;
  for (pid_t pid : process_tree(server)) {
    std::istringstream lines{read_text(proc(pid, "cgroup"))};
    for (std::string line; std::getline(lines, line);)
      if (auto begin = line.find(mark); begin != std::string::npos) {
        auto end = line.find('/', begin + 1);
        names.insert(line.substr(begin + 1, end == std::string::npos ? end : end - begin - 1));
      }
  }
  return names;
}

std::set<std::string> cgroups_of(const std::set<std::string>& names) {
  std::set<std::string> found;
  for (const auto& root : cgroup_roots()) {
    std::error_code failed;
    fs::recursive_directory_iterator place{root, fs::directory_options::skip_permission_denied,
                                           failed};
    for (; !failed && place != fs::recursive_directory_iterator{}; place.increment(failed)) {
      std::error_code gone;
      if (!place->is_directory(gone))
        continue;
      if (std::ranges::any_of(place->path(),
                              [&](const fs::path& step) { return names.contains(step.native()); }))
        found.insert(place->path().native());
    }
  }
  return found;
}

std::map<std::string, std::vector<pid_t>> machine_processes(pid_t root) {
  std::map<std::string, std::vector<pid_t>> machines;
  std::string home = pid_namespace(root);
  for (pid_t pid : process_tree(root)) {
    std::string place = pid_namespace(pid);
    if (!place.empty() && place != home)
      machines[place].push_back(pid);
  }
  return machines;
}

footprint take_footprint(pid_t server) {
  footprint all;
  std::string home = pid_namespace(server);
  std::set<std::string> mount_namespaces;
  for (pid_t pid : process_tree(server)) {
    ++all.processes;
    if (pid_namespace(pid) != home)
      continue;
    all.resident_bytes += resident_bytes(pid);
    all.descriptors += open_descriptors(pid);
    std::error_code failed;
    if (mount_namespaces.insert(fs::read_symlink(proc(pid, "ns/mnt"), failed).string()).second)
      all.mounts += mounts_seen(pid);
  }
  all.cgroups = cgroups_of(instance_names(server)).size();
  return all;
}

std::string kernel_release() {
  utsname name{};
  return uname(&name) == 0 ? name.release : "unknown";
}

std::string source_commit() {
  try {
    std::vector<std::string> environment{"PATH=/usr/bin:/bin", "GIT_OPTIONAL_LOCKS=0"};
    auto head = run_command({"/usr/bin/git", "rev-parse", "--short=12", "HEAD"}, environment,
                            BERTH_SOURCE_DIR);
    if (head.status != 0 || head.out.size() < 2)
      return "unknown";
    auto changes = run_command({"/usr/bin/git", "status", "--porcelain", "--untracked-files=no"},
                               environment, BERTH_SOURCE_DIR);
    head.out.pop_back();
    return head.out + (changes.out.empty() ? "" : "+");
  } catch (const failure&) {
    return "unknown";
  }
}

} // namespace berth::bench
