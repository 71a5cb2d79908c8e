// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/cgroup.hpp"

#include "machines/namespace/directory.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sstream>

namespace berth::machines {

namespace {

struct mounted_hierarchy {
  std::string mount_point;
  std::string root;
  bool v2 = false;
  std::vector<std::string> controllers;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in{text};
  for (std::string part; std::getline(in, part, at);)
    parts.push_back(part);
  return parts;
}

bool contains(const std::vector<std::string>& all, std::string_view one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

/// The cgroup file systems this process sees.
std::vector<mounted_hierarchy> mounted() {
  std::vector<mounted_hierarchy> found;
  std::ifstream in{"/proc/self/mountinfo"};
  for (std::string line; std::getline(in, line);) {
    auto fields = split(line, ' ');
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 5 || fields.end() - dash < 4)
      continue;
    bool v2 = dash[1] == "cgroup2";
    if (v2 || dash[1] == "cgroup")
      found.push_back({fields[4], fields[3], v2, split(dash[3], ',')});
  }
  return found;
}

/// Where this process is in a hierarchy, as a directory; empty when the mount does not show it.
std::string own_directory(const mounted_hierarchy& mount) {
  std::ifstream in{"/proc/self/cgroup"};
  for (std::string line; std::getline(in, line);) {
    auto first = line.find(':');
    auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos)
      continue;
    auto controllers = split(line.substr(first + 1, second - first - 1), ',');
    std::string path = line.substr(second + 1);
    bool mine = mount.v2 ? line.starts_with("0::")
                         : std::any_of(controllers.begin(), controllers.end(), [&](const auto& c) {
                             return !c.empty() && contains(mount.controllers, c);
                           });
    if (!mine)
      continue;
    if (mount.root != "/" && path.starts_with(mount.root))
      path.erase(0, mount.root.size());
    std::string whole = mount.mount_point + (path == "/" ? "" : path);
    struct stat info {};
    return ::stat(whole.c_str(), &info) == 0 ? whole : std::string{};
  }
  return {};
}

int write_text_at(int dir, const char* name, std::string_view text) {
  owned_fd file{::openat(dir, name, O_WRONLY | O_CLOEXEC)};
  if (!file)
    return -errno;
  ssize_t count = ::write(file.get(), text.data(), text.size());
  return count == static_cast<ssize_t>(text.size()) ? 0 : count < 0 ? -errno : -EIO;
}

int write_number_at(int dir, const char* name, std::uint64_t value) {
  char text[24];
  auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return write_text_at(dir, name, {text, static_cast<std::size_t>(end - text)});
}

std::string read_text(const std::string& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::string machine_name(std::uint64_t number) {
  return "m" + std::to_string(number);
}

std::string why(const char* what, int error) {
  return std::string{what} + ": " + std::strerror(error);
}

/// Rounds of a millisecond that the end of an instance's groups may take.
constexpr int instance_tries = 3'000;

/// Ends every process of a machine's group. On v1 one that is forking may slip through: whoever
/// removes the group tries again.
void kill_group(const cgroup_hierarchy& at, const std::string& name) {
  if (at.version == cgroup_version::v2
      && write_text_at(at.instance.get(), (name + "/cgroup.kill").c_str(), "1") == 0)
    return;
  owned_fd procs{
      ::openat(at.instance.get(), (name + "/cgroup.procs").c_str(), O_RDONLY | O_CLOEXEC)};
  char text[16 * 1024];
  ssize_t count = procs ? ::read(procs.get(), text, sizeof text - 1) : 0;
  text[count > 0 ? count : 0] = '\0';
  for (char* at_text = text; *at_text != '\0';) {
    char* end = at_text;
    long pid = std::strtol(at_text, &end, 10);
    if (end == at_text)
      return;
    if (pid > 0)
      ::kill(static_cast<pid_t>(pid), SIGKILL);
    for (at_text = end; *at_text == '\n';)
      ++at_text;
  }
}

/// Undoes hand_down_controllers when the machines are gone; not while another server has handed
/// down what it has in the same group.
bool leave_leaf(int own, const std::string& leaf, pid_t server) {
  if (write_text_at(own, "cgroup.subtree_control", "-memory -pids -cpu") != 0)
    (void)write_text_at(own, "cgroup.subtree_control", "-memory -pids");
  // A server that died is nobody's parent any more; its number may be another's.
  if (::getppid() == server)
    (void)write_number_at(own, "cgroup.procs", static_cast<std::uint64_t>(server));
  (void)write_number_at(own, "cgroup.procs", static_cast<std::uint64_t>(::getpid()));
  return ::unlinkat(own, leaf.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT;
}

/// Names of the groups below an open one.
std::vector<std::string> groups_below(int group) {
  std::vector<std::string> names;
  open_dir dir = read_directory(owned_fd{::openat(group, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)});
  if (!dir)
    return names;
  while (dirent* entry = ::readdir(dir.get()))
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
      names.emplace_back(entry->d_name);
  return names;
}

/// Moves the server and this process into a leaf of their own and hands the controllers down.
/// Returns an empty text, or why that failed.
std::string hand_down_controllers(cgroup_hierarchy& at, const std::string& leaf) {
  if (at.own_path.empty())
    return "no group";
  owned_fd own{::open(at.own_path.c_str(), O_DIRECTORY | O_PATH | O_CLOEXEC)};
  const char* wanted = "+memory +pids +cpu";
  const char* least = "+memory +pids";
  auto enable = [&](int dir) {
    int error = write_text_at(dir, "cgroup.subtree_control", wanted);
    return error == 0 ? 0 : write_text_at(dir, "cgroup.subtree_control", least);
  };
  if (enable(own.get()) != 0) {
    std::string path = at.own_path + "/" + leaf;
    if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
      return why("cannot make a leaf for the server", errno);
    owned_fd home{::open(path.c_str(), O_DIRECTORY | O_PATH | O_CLOEXEC)};
    for (pid_t pid : {::getppid(), ::getpid()})
      if (int error = write_number_at(home.get(), "cgroup.procs", static_cast<std::uint64_t>(pid)))
        return why("cannot move the server into a leaf", -error);
    at.in_leaf = true;
    if (int error = enable(own.get()))
      return why("cannot hand controllers down (other processes in the server's group?)", -error);
  }
  if (int error = enable(at.instance.get()))
    return why("cannot hand controllers to the machines", -error);
  return {};
}

} // namespace

std::string_view to_string(cgroup_version version) {
  switch (version) {
  case cgroup_version::v1:
    return "v1";
  case cgroup_version::v2:
    return "v2";
  default:
    return "none";
  }
}

bool cgroup_tree::has(bool cgroup_hierarchy::*what) const {
  return std::any_of(hierarchies_.begin(), hierarchies_.end(),
                     [&](const auto& one) { return one.*what; });
}

cgroup_tree cgroup_tree::open(std::string_view instance) {
  cgroup_tree tree;
  tree.instance_name_ = "berth-" + std::string{instance};
  tree.server_ = ::getppid();
  auto mounts = mounted();
  // v2 first: where it has a controller, no v1 hierarchy can have it.
  std::stable_sort(mounts.begin(), mounts.end(),
                   [](const auto& a, const auto& b) { return a.v2 && !b.v2; });
  cgroup_fact memory{"memory", cgroup_version::none, "no hierarchy has the controller"};
  cgroup_fact pids{"pids", cgroup_version::none, "no hierarchy has the controller"};
  cgroup_fact cpu{"cpu usage", cgroup_version::none, "no hierarchy counts it"};
  for (const auto& mount : mounts) {
    cgroup_hierarchy at;
    at.version = mount.v2 ? cgroup_version::v2 : cgroup_version::v1;
    at.own_path = own_directory(mount);
    if (at.own_path.empty())
      continue;
    auto offered =
        mount.v2 ? split(read_text(at.own_path + "/cgroup.controllers"), ' ') : mount.controllers;
    for (auto& name : offered)
      name.erase(std::remove(name.begin(), name.end(), '\n'), name.end());
    at.memory = contains(offered, "memory") && !tree.memory();
    at.pids = contains(offered, "pids") && !tree.pids();
    at.cpu_usage =
        (mount.v2 || contains(offered, "cpuacct")) && !tree.has(&cgroup_hierarchy::cpu_usage);
    if (!at.memory && !at.pids && !at.cpu_usage)
      continue;
    std::string path = at.own_path + "/" + tree.instance_name_;
    std::string problem;
    bool made = ::mkdir(path.c_str(), 0755) == 0;
    if (!made)
      problem = why(("cannot make " + path).c_str(), errno);
    else
      at.instance.reset(::open(path.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
    if (made && mount.v2 && (at.memory || at.pids)) {
      problem = hand_down_controllers(at, tree.instance_name_ + ".server");
      if (!problem.empty()) {
        // The group still counts time and kills all at once.
        (at.memory ? memory : pids).detail = problem;
        at.memory = at.pids = false;
        problem.clear();
      } else {
        tree.paths_.push_back(path + ".server");
      }
    }
    if (made && !mount.v2 && at.memory)
      // Inherited by the machines' groups: what is over the limit is stopped, not swapped.
      (void)write_text_at(at.instance.get(), "memory.swappiness", "0");
    auto note = [&](bool wanted, cgroup_fact& fact) {
      if (!wanted)
        return;
      fact.version = problem.empty() ? at.version : cgroup_version::none;
      fact.detail = problem.empty() ? at.own_path : problem;
    };
    note(at.memory, memory);
    note(at.pids, pids);
    note(at.cpu_usage, cpu);
    if (!problem.empty() || !at.instance)
      continue;
    tree.paths_.push_back(path);
    tree.hierarchies_.push_back(std::move(at));
  }
  tree.facts_ = {memory, pids, cpu};
  return tree;
}

std::vector<int> cgroup_tree::descriptors() const {
  std::vector<int> all;
  for (const auto& at : hierarchies_)
    all.push_back(at.instance.get());
  return all;
}

int cgroup_tree::enter(std::uint64_t number, const machine_limits& limits,
                       cgroup_handles& handles) const {
  const std::string name = machine_name(number);
  std::size_t joined = 0;
  for (const auto& at : hierarchies_) {
    // It may be there for the sake of what was restored to the machine's disk.
    if (::mkdirat(at.instance.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
      return -errno;
    owned_fd dir{::openat(at.instance.get(), name.c_str(), O_DIRECTORY | O_PATH | O_CLOEXEC)};
    if (!dir)
      return -errno;
    bool v2 = at.version == cgroup_version::v2;
    auto keep = [&](spawner::handle_bit bit, const char* file, int flags) {
      handles[bit].reset(::openat(dir.get(), file, flags | O_CLOEXEC));
      return handles.get(bit);
    };
    if (at.memory) {
      int limit =
          keep(spawner::handle_memory_limit, v2 ? "memory.max" : "memory.limit_in_bytes", O_RDWR);
      if (int error = write_group_number(limit, group_memory_limit(limits)))
        return error;
      if (v2)
        (void)write_text_at(dir.get(), "memory.swap.max", "0");
      keep(spawner::handle_memory_usage, v2 ? "memory.current" : "memory.usage_in_bytes", O_RDONLY);
      keep(spawner::handle_memory_peak, v2 ? "memory.peak" : "memory.max_usage_in_bytes", O_RDONLY);
      keep(spawner::handle_memory_events, v2 ? "memory.events" : "memory.oom_control", O_RDONLY);
      keep(spawner::handle_memory_stat, "memory.stat", O_RDONLY);
    }
    if (at.pids) {
      int limit = keep(spawner::handle_pids_limit, "pids.max", O_RDWR);
      if (int error = write_group_number(limit, limits.processes + machine_overhead_processes))
        return error;
      keep(spawner::handle_pids_usage, "pids.current", O_RDONLY);
    }
    if (at.cpu_usage)
      keep(spawner::handle_cpu_usage, v2 ? "cpu.stat" : "cpuacct.usage", O_RDONLY);
    owned_fd procs{::openat(dir.get(), "cgroup.procs", O_RDWR | O_CLOEXEC)};
    if (!procs || ::write(procs.get(), "0", 1) != 1)
      return -errno;
    handles.procs[joined++] = std::move(procs);
  }
  return 0;
}

bool cgroup_tree::remove(std::uint64_t number) const {
  const std::string name = machine_name(number);
  bool all = true;
  for (const auto& at : hierarchies_)
    if (::unlinkat(at.instance.get(), name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
      all = false;
  return all;
}

void cgroup_tree::kill(std::uint64_t number) const {
  for (const auto& at : hierarchies_)
    kill_group(at, machine_name(number));
}

bool cgroup_tree::remove_instance() {
  bool all = true;
  for (auto& at : hierarchies_) {
    // The mounts may be out of sight by now: the group is reached through its own descriptor.
    owned_fd own{::openat(at.instance.get(), "..", O_DIRECTORY | O_PATH | O_CLOEXEC)};
    bool removed = false;
    for (int tries = 0; !removed && tries < instance_tries; ++tries) {
      if (tries > 0)
        ::usleep(1'000);
      for (const auto& name : groups_below(at.instance.get())) {
        kill_group(at, name);
        ::unlinkat(at.instance.get(), name.c_str(), AT_REMOVEDIR);
      }
      removed = ::unlinkat(own.get(), instance_name_.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT;
    }
    if (removed && at.in_leaf)
      removed = leave_leaf(own.get(), instance_name_ + ".server", server_);
    all = all && removed;
  }
  hierarchies_.clear();
  return all;
}

std::vector<cgroup_fact> probe_cgroups() {
  std::vector<cgroup_fact> facts;
  auto mounts = mounted();
  for (std::string_view controller : {"memory", "pids", "cpu"}) {
    cgroup_fact fact{std::string{controller}, cgroup_version::none, "no hierarchy has it"};
    for (const auto& mount : mounts) {
      std::string own = own_directory(mount);
      auto offered =
          mount.v2 ? split(read_text(own + "/cgroup.controllers"), ' ') : mount.controllers;
      for (auto& name : offered)
        name.erase(std::remove(name.begin(), name.end(), '\n'), name.end());
      if (own.empty() || !contains(offered, controller))
        continue;
      std::string trial = own + "/berth-probe-" + std::to_string(::getpid());
      if (::mkdir(trial.c_str(), 0755) == 0) {
        ::rmdir(trial.c_str());
        fact.version = mount.v2 ? cgroup_version::v2 : cgroup_version::v1;
        fact.detail = own;
      } else {
        fact.detail = why(("cannot make a group below " + own).c_str(), errno);
      }
    }
    facts.push_back(std::move(fact));
  }
  return facts;
}

std::size_t clear_cgroup(const std::string& path, int tries, bool& removed) {
  std::size_t killed = 0;
  if (open_dir dir{::opendir(path.c_str())})
    while (dirent* entry = ::readdir(dir.get())) {
      bool below = false;
      if (entry->d_type == DT_DIR && !is_dots(entry->d_name))
        killed += clear_cgroup(path + "/" + entry->d_name, tries, below);
    }
  for (removed = ::rmdir(path.c_str()) == 0 || errno == ENOENT; !removed && tries > 0; --tries) {
    std::ifstream in{path + "/cgroup.procs"};
    for (pid_t pid = 0; in >> pid;)
      if (pid > 0 && pid != ::getpid() && ::kill(pid, SIGKILL) == 0)
        ++killed;
    ::usleep(1000);
    removed = ::rmdir(path.c_str()) == 0;
  }
  return killed;
}

std::uint32_t cgroup_handles::list(std::vector<int>& fds) const {
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!files[i])
      continue;
    bits |= 1U << i;
    fds.push_back(files[i].get());
  }
  return bits;
}

std::size_t cgroup_handles::take(std::uint32_t bits, std::vector<owned_fd>& fds) {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < files.size() && taken < fds.size(); ++i)
    if ((bits & 1U << i) != 0)
      files[i] = std::move(fds[taken++]);
  return taken;
}

machine_usage cgroup_handles::usage() const {
  machine_usage used;
  used.memory_bytes = read_group_number(get(spawner::handle_memory_usage));
  used.memory_peak_bytes =
      std::max(read_group_number(get(spawner::handle_memory_peak)), used.memory_bytes);
  used.processes = read_group_number(get(spawner::handle_pids_usage));
  used.oom_kills = read_group_key(get(spawner::handle_memory_events), "oom_kill");
  int cpu = get(spawner::handle_cpu_usage);
  used.cpu_us = read_group_key(cpu, "usage_usec");
  if (used.cpu_us == 0)
    used.cpu_us = read_group_number(cpu) / 1000;
  return used;
}

std::uint64_t read_group_number(int fd) {
  char text[32];
  ssize_t count = fd < 0 ? -1 : ::pread(fd, text, sizeof text, 0);
  std::uint64_t value = 0;
  if (count > 0)
    std::from_chars(text, text + count, value);
  return value;
}

std::uint64_t read_group_key(int fd, std::string_view key) {
  char text[4096];
  ssize_t count = fd < 0 ? -1 : ::pread(fd, text, sizeof text, 0);
  std::string_view rest{text, count > 0 ? static_cast<std::size_t>(count) : 0};
  while (!rest.empty()) {
    auto end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      std::uint64_t value = 0;
      std::from_chars(line.data() + key.size() + 1, line.data() + line.size(), value);
      return value;
    }
  }
  return 0;
}

int write_group_number(int fd, std::uint64_t value) {
  if (fd < 0)
    return -EBADF;
  char text[24];
  auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return ::pwrite(fd, text, static_cast<std::size_t>(end - text), 0) < 0 ? -errno : 0;
}

} // namespace berth::machines
