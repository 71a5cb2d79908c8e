// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/sweep.hpp"

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/directory.hpp"

#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>

namespace berth::machines {

namespace {

constexpr long cgroup_v1_magic = 0x27e0eb;
constexpr long cgroup_v2_magic = 0x63677270;
/// Rounds of a millisecond to wait for killed processes of a dead instance.
constexpr int clear_tries = 500;
/// Rounds of ten milliseconds to wait for locks, of one sweep: a process that was killed a moment
/// ago may hold one still.
constexpr int lock_tries = 100;

bool is_id(std::string_view name) {
  return name.size() == 12 && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string base_name(std::string path) {
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

/// Claiming and sweeping exclude each other: a directory without its lock yet is not a dead one.
/// The last instance takes the lock's file away with it; who waited for that one has to look again.
owned_fd lock_runtime_dir(int runtime_dir) {
  for (;;) {
    owned_fd lock{::openat(runtime_dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!lock || ::flock(lock.get(), LOCK_EX) != 0)
      return {};
    struct stat ours {};
    struct stat there {};
    if (::fstat(lock.get(), &ours) == 0
        && ::fstatat(runtime_dir, "lock", &there, AT_SYMLINK_NOFOLLOW) == 0
        && ours.st_ino == there.st_ino)
      return lock;
  }
}

/// Whether a runtime directory holds nothing but its lock.
bool is_bare(int runtime_dir) {
  open_dir dir =
      read_directory(owned_fd{::openat(runtime_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)});
  if (!dir)
    return false;
  bool bare = true;
  while (dirent* entry = ::readdir(dir.get()))
    bare = bare && (std::string_view{entry->d_name} == "lock" || entry->d_name[0] == '.');
  return bare;
}

/// Whether a listed path really is a group of that instance: the list is only text in a file.
bool is_group_of(const std::string& path, const std::string& id) {
  std::string name = path.substr(path.rfind('/') + 1);
  struct statfs info {};
  return path.starts_with("/") && path.find("/../") == std::string::npos
         && (name == "berth-" + id || name == "berth-" + id + ".server")
         && ::statfs(path.c_str(), &info) == 0
         && (info.f_type == cgroup_v1_magic || info.f_type == cgroup_v2_magic);
}

void remove_instance(int parent, const std::string& id) {
  owned_fd dir{::openat(parent, id.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
  if (!dir)
    return;
  // Firecrackers' directories: whoever could write there is dead. Links are not followed.
  std::error_code error;
  std::filesystem::remove_all("/proc/self/fd/" + std::to_string(dir.get()) + "/machines", error);
  ::unlinkat(dir.get(), "states", AT_REMOVEDIR);
  ::unlinkat(dir.get(), "root", AT_REMOVEDIR);
  ::unlinkat(dir.get(), "groups", 0);
  ::unlinkat(dir.get(), "lock", 0);
  ::unlinkat(parent, id.c_str(), AT_REMOVEDIR);
}

/// Whether nobody holds the lock of an instance, now or in a moment. `tries` is what is left of the
/// rounds.
bool is_dead(int lock, int& tries) {
  while (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (tries == 0)
      return false;
    --tries;
    ::usleep(10'000);
  }
  return true;
}

void sweep_instance(int parent, const std::string& path, const std::string& id, int& tries,
                    swept& total) {
  owned_fd lock{::open((path + "/lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW)};
  if (lock && !is_dead(lock.get(), tries))
    return;
  ++total.instances;
  std::ifstream groups{path + "/groups"};
  bool clean = true;
  for (std::string group; std::getline(groups, group);) {
    if (!is_group_of(group, id))
      continue;
    bool removed = false;
    total.processes += clear_cgroup(group, clear_tries, removed);
    removed ? ++total.groups : ++total.left;
    clean = clean && removed;
  }
  // What could not be cleared is tried again by the next start.
  if (clean)
    remove_instance(parent, id);
}

/// Makes, opens and locks the runtime directory. The last instance of another server may take it
/// away at each of these steps; `guard` stays empty then, and the caller begins anew. False: `why`.
bool enter_runtime_dir(const std::string& runtime_dir, owned_fd& parent, owned_fd& guard,
                       std::string& why) {
  auto fail = [&](const char* what) {
    why = what + runtime_dir + ": " + std::strerror(errno);
    return false;
  };
  if (::mkdir(runtime_dir.c_str(), 0700) != 0 && errno != EEXIST)
    return fail("cannot make ");
  parent.reset(::open(runtime_dir.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!parent && errno == ENOENT)
    return true;
  if (!parent || ::fstat(parent.get(), &info) != 0)
    return fail("cannot open ");
  if (info.st_uid != ::geteuid() || (info.st_mode & 022) != 0) {
    why = runtime_dir + " must be ours and writable for nobody else";
    return false;
  }
  owned_fd held = lock_runtime_dir(parent.get());
  if (!held)
    return errno == ENOENT || fail("cannot lock ");
  struct stat named {};
  if (::stat(runtime_dir.c_str(), &named) == 0 && named.st_ino == info.st_ino)
    guard = std::move(held);
  return true;
}

} // namespace

std::string swept::text() const {
  return std::to_string(instances) + " dead instances, " + std::to_string(processes)
         + " processes ended, " + std::to_string(groups) + " cgroups removed, "
         + std::to_string(left) + " left";
}

std::string default_runtime_dir() {
  if (::geteuid() == 0)
    return "/run/berth";
  const char* session = std::getenv("XDG_RUNTIME_DIR");
  if (session != nullptr && session[0] == '/')
    return std::string{session} + "/berth";
  return "/tmp/berth-" + std::to_string(::geteuid());
}

instance_dir instance_dir::claim(const std::string& runtime_dir, std::string& why) {
  auto fail = [&](const std::string& what) {
    why = what + ": " + std::strerror(errno);
    return instance_dir{};
  };
  instance_dir made;
  owned_fd guard;
  while (!guard)
    if (!enter_runtime_dir(runtime_dir, made.parent_, guard, why))
      return {};
  std::array<unsigned char, 6> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    return fail("no random numbers");
  for (unsigned char byte : random) {
    made.id_ += "0123456789abcdef"[byte >> 4];
    made.id_ += "0123456789abcdef"[byte & 15];
  }
  made.name_ = base_name(runtime_dir);
  made.path_ = runtime_dir + "/" + made.id_;
  if (::mkdir(made.path_.c_str(), 0755) != 0 || ::mkdir((made.path_ + "/root").c_str(), 0755) != 0)
    return fail("cannot make " + made.path_);
  made.dir_.reset(::open(made.path_.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC));
  made.lock_.reset(::openat(made.dir_.get(), "lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!made.lock_ || ::flock(made.lock_.get(), LOCK_EX | LOCK_NB) != 0)
    return fail("cannot lock " + made.path_);
  return made;
}

bool instance_dir::note_groups(const std::vector<std::string>& paths) const {
  std::ofstream out{path_ + "/groups"};
  for (const auto& path : paths)
    out << path << '\n';
  out.close();
  return out.good();
}

void instance_dir::remove() {
  if (!parent_)
    return;
  // Ours first: a server that starts holds the directory's while it waits for ours.
  lock_.reset();
  owned_fd guard = lock_runtime_dir(parent_.get());
  remove_instance(parent_.get(), id_);
  // By then the host's paths are out of sight: the directory is reached through itself.
  owned_fd above{::openat(parent_.get(), "..", O_DIRECTORY | O_PATH | O_CLOEXEC)};
  if (guard && is_bare(parent_.get()) && ::unlinkat(parent_.get(), "lock", 0) == 0)
    ::unlinkat(above.get(), name_.c_str(), AT_REMOVEDIR);
}

swept sweep(const std::string& runtime_dir, const std::string& own) {
  swept total;
  owned_fd parent{::open(runtime_dir.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
  if (!parent)
    return total;
  owned_fd guard = lock_runtime_dir(parent.get());
  if (!guard)
    return total;
  std::vector<std::string> ids;
  if (open_dir dir{::opendir(runtime_dir.c_str())})
    while (dirent* entry = ::readdir(dir.get()))
      if (is_id(entry->d_name))
        ids.emplace_back(entry->d_name);
  int tries = lock_tries;
  for (const auto& id : ids)
    if (id != own)
      sweep_instance(parent.get(), runtime_dir + "/" + id, id, tries, total);
  return total;
}

} // namespace berth::machines
