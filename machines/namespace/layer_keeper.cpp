// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layer_keeper.hpp"

#include "machines/namespace/archive.hpp"
#include "machines/namespace/directory.hpp"
#include "machines/namespace/house.hpp"
#include "machines/namespace/layer_restore.hpp"
#include "machines/namespace/layer_switch.hpp"
#include "machines/namespace/layer_walk.hpp"
#include "machines/namespace/packet_link.hpp"

#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sched.h>

namespace berth::machines {

using spawner::report;
using spawner::report_kind;
using spawner::request;
using spawner::request_kind;

namespace {

/// A save is waited for; what tidies up is not.
constexpr int save_niceness = 5;
constexpr int tidy_niceness = 19;
/// Inodes that a state takes for itself, when the disk has none left.
constexpr std::uint64_t inodes_at_a_time = 64;
/// Whoever asked for a step goes on after it: what is to be tidied waits so long.
constexpr std::chrono::milliseconds tidy_pause{30};
/// Processes and descriptors that are looked at for a writer.
constexpr int lines_of_proc_max = 4'096;
/// A state is taken between two writes: how often, and how long after, it is tried again while
/// somebody writes who has no file open, because he makes a directory or reads a time.
constexpr int busy_tries = 20;
constexpr useconds_t busy_pause_us = 500;
/// Of a disk so full, one part in so many free, a rollback waits for what it discards.
constexpr std::uint64_t full_when_free_below = 16;

/// The answer to a step.
report report_of(const request& asked, int error, std::string_view why) {
  report note{.kind = report_kind::files,
              .number = asked.number,
              .error = error,
              .step = asked.kind,
              .checkpoint = asked.checkpoint};
  if (error != 0)
    spawner::copy_text(note.text, why);
  return note;
}

/// Opens the trees of layers. Empty when one cannot be.
std::vector<owned_fd> open_trees(const layer_stack& layers) {
  std::vector<owned_fd> trees;
  for (const auto& one : layers) {
    trees.emplace_back(::openat(one->disk()->root.get(), one->tree().c_str(), directory_flags));
    if (!trees.back())
      return {};
  }
  return trees;
}

std::vector<int> numbers_of(const std::vector<owned_fd>& fds) {
  std::vector<int> numbers;
  for (const auto& one : fds)
    numbers.push_back(one.get());
  return numbers;
}

/// Layers of a stack, and what they lie on, open for a chore.
struct opened_layers {
  std::vector<owned_fd> trees;
  std::vector<owned_fd> below;
  /// All are open.
  bool whole = false;

  opened_layers(const layer_stack& layers, const layer_stack& rest)
    : trees(open_trees(layers))
    , below(open_trees(rest)) {
    // The house is below all.
    bool open = trees.size() == layers.size() && below.size() == rest.size();
    below.emplace_back(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    whole = open && !trees.empty() && below.back();
  }
  std::vector<int> numbers() const {
    auto all = numbers_of(trees);
    for (const auto& one : below)
      all.push_back(one.get());
    return all;
  }
  void close() {
    trees.clear();
    below.clear();
  }
};

/// A tmpfs that is nowhere yet.
int make_disk(const std::string& options) {
  owned_fd disk{::fsopen("tmpfs", FSOPEN_CLOEXEC)};
  if (!disk || ::fsconfig(disk.get(), FSCONFIG_SET_STRING, "source", "disk", 0) != 0)
    return -errno;
  for (std::size_t at = 0; at < options.size();) {
    auto end = std::min(options.find(',', at), options.size());
    std::string option = options.substr(at, end - at);
    auto equals = std::min(option.find('='), option.size() - 1);
    if (::fsconfig(disk.get(), FSCONFIG_SET_STRING, option.substr(0, equals).c_str(),
                   option.c_str() + equals + 1, 0)
        != 0)
      return -errno;
    at = end + 1;
  }
  if (::fsconfig(disk.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return -errno;
  int mount = ::fsmount(disk.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
  return mount >= 0 ? mount : -errno;
}

std::string numbered(const char* kind, std::uint64_t index) {
  return std::string{kind} + "/" + std::to_string(index);
}

/// A layer's tree as a machine's disk has it.
std::string place_of(const layer_dir& layer, const std::shared_ptr<layer_disk>& disk,
                     const leaned_disks& leaned) {
  if (layer.disk() == disk)
    return layer.tree();
  // An ordinary user's files are all of one id: nothing is mapped.
  return numbered("mapped", leaned.at(layer.disk())) + "/" + layer.tree();
}

/// The trees of layers, for an overlay.
std::string join(const layer_stack& layers, const std::shared_ptr<layer_disk>& disk,
                 const leaned_disks& leaned) {
  std::string text;
  for (const auto& layer : layers)
    text += (text.empty() ? "" : ":") + place_of(*layer, disk, leaned);
  return text;
}

/// Text that a program may have chosen, for a message.
std::string printable(std::string_view text) {
  std::string clean{text};
  for (char& c : clean)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      c = '?';
  return clean;
}

std::string read_line(int dir, const std::string& path) {
  owned_fd file{::openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC)};
  char text[256];
  ssize_t size = file ? ::read(file.get(), text, sizeof text) : 0;
  std::string_view all{text, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  return std::string{all.substr(0, all.find('\n'))};
}

/// Calls for each name in a directory until it says stop.
template <class F>
void each_name(int at, const std::string& path, F call) {
  open_dir dir =
      read_directory(owned_fd{::openat(at, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)});
  if (!dir)
    return;
  int count = 0;
  while (dirent* entry = ::readdir(dir.get()))
    if (++count > lines_of_proc_max || call(entry->d_name))
      break;
}

bool is_nearly_full(int disk) {
  struct statfs info {};
  return ::fstatfs(disk, &info) == 0
         && (info.f_bfree < info.f_blocks / full_when_free_below
             || info.f_ffree < info.f_files / full_when_free_below);
}

/// A named file that a process maps so that it can write to it.
std::string written_by_map(int proc, const std::string& pid) {
  owned_fd fd{::openat(proc, (pid + "/maps").c_str(), O_RDONLY | O_CLOEXEC)};
  std::FILE* maps = fd ? ::fdopen(fd.get(), "r") : nullptr;
  if (maps == nullptr)
    return {};
  (void)fd.release();
  std::string found;
  char line[512];
  for (int count = 0; found.empty() && count < lines_of_proc_max; ++count) {
    if (std::fgets(line, sizeof line, maps) == nullptr)
      break;
    const char* rights = std::strchr(line, ' ');
    const char* path = std::strchr(line, '/');
    if (rights == nullptr || path == nullptr || std::string_view{rights + 1, 4} != "rw-s"
        || std::strncmp(path, "/memfd:", 7) == 0 || std::strncmp(path, "/dev/zero", 9) == 0)
      continue;
    found.assign(path, std::strcspn(path, "\n"));
  }
  std::fclose(maps);
  return found;
}

/// Whether a descriptor of a process can be written to and is a named file.
bool writes(int proc, const std::string& pid, const std::string& fd, std::string& path) {
  owned_fd info{::openat(proc, (pid + "/fdinfo/" + fd).c_str(), O_RDONLY | O_CLOEXEC)};
  char text[512] = {};
  unsigned flags = 0;
  if (!info || ::read(info.get(), text, sizeof text - 1) <= 0)
    return false;
  const char* line = std::strstr(text, "flags:");
  if (line == nullptr || std::sscanf(line, "flags: %o", &flags) != 1
      || (flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) != 0)
    return false;
  struct stat about {};
  if (::fstatat(proc, (pid + "/fd/" + fd).c_str(), &about, 0) != 0 || !S_ISREG(about.st_mode))
    return false;
  char target[256];
  ssize_t size = ::readlinkat(proc, (pid + "/fd/" + fd).c_str(), target, sizeof target);
  std::string_view named{target, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  if (!named.starts_with('/') || named.starts_with("/memfd:"))
    return false;
  path = named;
  return true;
}

} // namespace

std::string probe_layers(bool ordinary_user, bool& forks) {
  owned_fd disk{make_disk("size=64k")};
  if (!disk)
    return "a detached tmpfs cannot be made";
  owned_fd dir;
  if (::mkdirat(disk.get(), "probe", 0700) == 0)
    dir.reset(::openat(disk.get(), "probe", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir || ::fsetxattr(dir.get(), opaque_attribute(ordinary_user), "y", 1, 0) != 0)
    return ordinary_user ? "tmpfs keeps no attributes of ordinary users here (Linux 6.6 has them): "
                           "states of files need root"
                         : "tmpfs keeps no attributes here (CONFIG_TMPFS_XATTR)";
  forks = ordinary_user;
  if (!ordinary_user) {
    owned_fd ids{make_id_map(1, 2)};
    mount_attr wanted{};
    wanted.attr_set = MOUNT_ATTR_IDMAP;
    wanted.userns_fd = static_cast<std::uint64_t>(std::max(ids.get(), 0));
    forks = ids && ::mount_setattr(disk.get(), "", AT_EMPTY_PATH, &wanted, sizeof wanted) == 0;
  }
  return {};
}

std::string find_writer(int proc) {
  std::string found;
  each_name(proc, ".", [&](const char* pid) {
    if (*pid < '1' || *pid > '9')
      return false;
    std::string path;
    each_name(proc, std::string{pid} + "/fd",
              [&](const char* fd) { return writes(proc, pid, fd, path); });
    if (path.empty())
      path = written_by_map(proc, pid);
    if (!path.empty())
      found = read_line(proc, std::string{pid} + "/comm") + " (" + pid + ") has " + path
              + " open for writing";
    return !found.empty();
  });
  return printable(found);
}

int make_id_map(std::uint32_t from, std::uint32_t to) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return -errno;
  owned_fd reading{ends[0]};
  owned_fd writing{ends[1]};
  // Its first process only has to be there until the namespace is open.
  alignas(16) static char stack[16 * 1024];
  auto wait = [](void* fd) {
    char byte = 0;
    (void)!::read(*static_cast<int*>(fd), &byte, 1);
    ::syscall(SYS_exit_group, 0);
    return 0;
  };
  int end = reading.get();
  pid_t pid =
      ::clone(wait, stack + sizeof stack, CLONE_NEWUSER | CLONE_VM | CLONE_FILES | SIGCHLD, &end);
  if (pid < 0)
    return -errno;
  auto write = [&](const char* name, const std::string& text) {
    owned_fd file{
        ::open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_WRONLY | O_CLOEXEC)};
    return file
           && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  };
  const std::string map = "0 0 1\n" + std::to_string(from) + " " + std::to_string(to) + " 1\n";
  int result = -EPERM;
  if (write("uid_map", map) && write("gid_map", map)) {
    result = ::open(("/proc/" + std::to_string(pid) + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC);
    if (result < 0)
      result = -errno;
  }
  (void)!::write(writing.get(), "", 1);
  ::waitpid(pid, nullptr, 0);
  return result;
}

// --- before a machine is there -------------------------------------------------------------------

void layer_keeper::restore(std::uint64_t number, std::vector<arriving_layer> layers,
                           std::string disk_options, std::uint32_t uid, std::function<int()> join,
                           std::vector<int> keep, std::function<void(const std::string&)> done) {
  if (!around_.obstacle.empty())
    return done(around_.obstacle);
  // The disk is handed over by a socket, since the process that makes it pays for it.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return done(std::string{"socketpair: "} + std::strerror(errno));
  auto ours = std::make_shared<spawner::packet_link>(owned_fd{ends[0]});
  auto theirs = std::make_shared<owned_fd>(ends[1]);
  auto archives = std::make_shared<std::vector<arriving_layer>>(std::move(layers));
  auto plan = std::make_shared<std::vector<restored_layer>>();
  std::uint64_t next = 1;
  for (const auto& one : *archives) {
    plan->push_back({one.archive.get(), next});
    next += one.checkpoint != 0;
  }
  chore work{.machine = number, .urgent = true, .keep = {theirs->get()}, .work = {}, .done = {}};
  for (const auto& one : *archives)
    work.keep.push_back(one.archive.get());
  work.keep.insert(work.keep.end(), keep.begin(), keep.end());
  work.work = [=, ordinary = around_.ordinary_user](chore_result& result) {
    auto fail = [&](int error, const std::string& text) {
      result.error = error;
      std::snprintf(result.text, sizeof result.text, "%s", text.c_str());
    };
    if (int error = join())
      return fail(-error, std::string{"cgroups: "} + std::strerror(-error));
    int mount = make_disk(disk_options);
    spawner::packet_link link{owned_fd{theirs->get()}};
    char byte = 'd';
    if (mount < 0 || !link.send_pod(byte, std::span{&mount, 1}))
      return fail(mount < 0 ? -mount : EPIPE, "a disk for what is restored");
    owned_fd root{::openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    owned_fd house{::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (int error = confine_restorer())
      return fail(error, "confinement of what restores");
    std::string why = restore_layers({root.get(), house.get(), uid, ordinary}, *plan);
    if (!why.empty())
      fail(EBADMSG, why);
  };
  work.done = [=, this](const chore_result& result) {
    char byte = 0;
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    bool got = ours->receive(std::as_writable_bytes(std::span{&byte, 1}), size, fds)
                   == spawner::packet_link::received::packet
               && fds.size() == 1;
    if (result.error != 0 || !got)
      return done(result.text[0] != '\0' ? result.text : "it was ended");
    prepared_tree& made = prepared_[number];
    made.mount = std::move(fds.front());
    made.disk = std::make_shared<layer_disk>();
    made.disk->next_number = plan->back().number + 1;
    for (std::size_t i = 0; i < plan->size(); ++i)
      if (i + 1 == plan->size() || (*plan)[i + 1].number != (*plan)[i].number)
        made.states.push_back({(*archives)[i].checkpoint,
                               {std::make_shared<layer_dir>(made.disk, (*plan)[i].number)}});
    done({});
  };
  chores_.add(std::move(work));
}

std::string layer_keeper::lean(std::uint64_t number, std::uint64_t parent,
                               checkpoint_number checkpoint, std::uint32_t uid) {
  if (!around_.obstacle.empty())
    return around_.obstacle;
  auto found = machines_.find(parent);
  if (found == machines_.end())
    return "the machine to fork from is not there";
  const held& from = found->second;
  layer_stack layers = from.tree->stack_of(checkpoint);
  if (layers.empty())
    return "the machine to fork from has no such state";
  prepared_tree made;
  made.parent = parent;
  for (const auto& one : layers) {
    if (made.leaned.contains(one->disk()))
      continue;
    if (made.leaned.size() >= disks_max)
      return "forks of forks lean on too many disks";
    owned_fd ids;
    if (!around_.ordinary_user && one->disk()->uid != uid) {
      int map = make_id_map(one->disk()->uid, uid);
      if (map < 0)
        return std::string{"a map of ids: "} + std::strerror(-map);
      ids.reset(map);
    }
    made.leaned.emplace(one->disk(), made.leaned.size());
    made.ids.emplace(one->disk(), std::move(ids));
  }
  made.disk = std::make_shared<layer_disk>();
  made.states.push_back({checkpoint, std::move(layers)});
  prepared_[number] = std::move(made);
  return {};
}

tree_beginning layer_keeper::beginning(std::uint64_t number) const {
  tree_beginning wanted;
  auto found = prepared_.find(number);
  if (found == prepared_.end())
    return wanted;
  const prepared_tree& made = found->second;
  layer_stack all;
  for (auto one = made.states.rbegin(); one != made.states.rend(); ++one)
    all.insert(all.end(), one->second.begin(), one->second.end());
  wanted.lowers = join(all, made.disk, made.leaned);
  wanted.disk = made.mount.get();
  if (auto parent = machines_.find(made.parent); parent != machines_.end()) {
    wanted.parent_pidfd = parent->second.machine.pidfd;
    for (const auto& [disk, index] : made.leaned) {
      auto there = parent->second.leaned.find(disk);
      wanted.disks.push_back(
          {.from = there == parent->second.leaned.end()
                       ? std::string{base_disk}
                       : std::string{base_disk} + "/" + numbered("disks", there->second),
           .index = index,
           .ids = made.ids.at(disk).get()});
    }
  }
  return wanted;
}

// --- while it is there ---------------------------------------------------------------------------

void layer_keeper::begin(const layered_machine& machine) {
  held& one = machines_[machine.number];
  one.machine = machine;
  prepared_tree made;
  if (auto found = prepared_.find(machine.number); found != prepared_.end()) {
    made = std::move(found->second);
    prepared_.erase(found);
  }
  one.disk = made.disk ? made.disk : std::make_shared<layer_disk>();
  one.disk->root.reset(::fcntl(machine.disk, F_DUPFD_CLOEXEC, 3));
  one.disk->uid = machine.uid;
  one.leaned = std::move(made.leaned);
  one.tree = std::make_unique<layer_tree>(std::make_shared<layer_dir>(one.disk, 0));
  for (auto& [checkpoint, layers] : made.states)
    one.tree->adopt(checkpoint, std::move(layers));
  if (!one.tree->below().empty())
    tidy_later(one.disk);
}

void layer_keeper::ask(const request& asked, owned_fd fd) {
  auto found = machines_.find(asked.number);
  if (found == machines_.end())
    return answer(asked, ESRCH, "the machine is not ready");
  if (!around_.obstacle.empty())
    return answer(asked, ENOTSUP, around_.obstacle);
  if (found->second.waiting.size() >= states_max)
    return answer(asked, EAGAIN, "too many steps wait");
  found->second.waiting.emplace_back(asked, std::move(fd));
  go_on(asked.number);
}

void layer_keeper::go_on(std::uint64_t number) {
  for (;;) {
    auto found = machines_.find(number);
    if (found == machines_.end() || found->second.waiting.empty() || found->second.settling
        || around_.busy(number))
      return;
    auto [asked, fd] = std::move(found->second.waiting.front());
    found->second.waiting.pop_front();
    take(found->second, asked, std::move(fd));
  }
}

void layer_keeper::answer(const request& asked, int error, std::string_view text) {
  around_.tell(report_of(asked, error, text));
}

void layer_keeper::take(held& one, const request& asked, owned_fd fd) {
  bool known = one.tree->knows(asked.checkpoint);
  switch (asked.kind) {
  case request_kind::freeze:
    if (asked.checkpoint == 0 || known)
      return answer(asked, EEXIST, "a state of that number is there");
    if (one.tree->full())
      return answer(asked, ENOSPC, "the machine has as many states as it can");
    return switch_to(one, asked);
  case request_kind::roll_back:
    return known ? switch_to(one, asked) : answer(asked, ENOENT, "there is no such state");
  case request_kind::drop:
    if (!known)
      return answer(asked, ENOENT, "there is no such state");
    one.tree->drop(asked.checkpoint);
    answer(asked, 0, {});
    return tidy_later(one.disk);
  default:
    return known ? save(one, asked, std::move(fd))
                 : answer(asked, ENOENT, "there is no such state");
  }
}

int layer_keeper::give_inodes(held& one, std::uint64_t more) {
  one.extra_inodes += more;
  int error = around_.more_inodes(one.machine.number, one.extra_inodes);
  if (error != 0)
    one.extra_inodes -= more;
  return error;
}

void layer_keeper::switch_to(held& one, const request& asked) {
  bool freeze = asked.kind == request_kind::freeze;
  layer_stack layers = freeze ? one.tree->stack_of_present() : one.tree->stack_of(asked.checkpoint);
  auto fresh = std::make_shared<layer_dir>(one.disk, one.disk->next_number++);
  const std::string lowers = join(layers, one.disk, one.leaned);
  auto attempt = [&] {
    tree_switch wanted{.pidfd = one.machine.pidfd,
                       .ordinary_user = around_.ordinary_user,
                       .mounts = around_.mounts,
                       .top = one.tree->top()->number(),
                       .fresh = fresh->number(),
                       .freeze = freeze,
                       .lowers = lowers,
                       .old_tree = {}};
    switch_tree(wanted);
    return wanted;
  };
  tree_switch done = attempt();
  // Directories of ours are not the machine's: they fit on a disk that is full of its files.
  if (done.error == ENOSPC && !done.broken && give_inodes(one, inodes_at_a_time) == 0)
    done = attempt();
  std::string who;
  for (int tries = 0; done.error == EBUSY && !done.broken && tries < busy_tries; ++tries) {
    who = find_writer(one.machine.proc);
    if (!who.empty())
      break;
    ::usleep(busy_pause_us);
    done = attempt();
  }
  if (done.step != nullptr) {
    std::string text =
        who.empty() ? std::string{done.step} + ": " + std::strerror(done.error) : who;
    answer(asked, done.error, text);
    if (done.broken)
      around_.end_machine(one.machine.number);
    return;
  }
  if (freeze) {
    layers.insert(layers.begin(), one.tree->top());
    one.tree->froze(asked.checkpoint, std::move(fresh), std::move(layers));
  } else {
    one.tree->rolled_back(asked.checkpoint, std::move(fresh), std::move(layers));
  }
  // Whoever goes back because the disk is full wants room.
  one.settling = !freeze && !one.disk->garbage.empty() && is_nearly_full(one.disk->root.get());
  old_trees_.push_back(std::move(done.old_tree));
  if (!one.settling)
    return switched(one, asked);
  give_back({one.disk}, 0, [this, asked] {
    auto found = machines_.find(asked.number);
    if (found == machines_.end())
      return;
    found->second.settling = false;
    switched(found->second, asked);
    go_on(asked.number);
  });
}

void layer_keeper::switched(held& one, const request& asked) {
  answer(asked, 0, {});
  tidy_later(one.disk);
}

void layer_keeper::save(held& one, const request& asked, owned_fd to) {
  auto layers = one.tree->between(asked.since, asked.checkpoint);
  if (!layers || layers->empty())
    return answer(asked, EINVAL, "the state does not descend from the other");
  auto open = std::make_shared<opened_layers>(*layers, one.tree->stack_of(asked.since));
  if (!to || !open->whole)
    return answer(asked, EBADF, "the layers cannot be read, or there is nowhere to write them");
  auto target = std::make_shared<owned_fd>(std::move(to));
  chore work{.machine = asked.number,
             .niceness = save_niceness,
             .keep = open->numbers(),
             .work = {},
             .done = {}};
  work.keep.push_back(target->get());
  work.work = [=, ordinary = around_.ordinary_user](chore_result& result) {
    auto trees = numbers_of(open->trees);
    auto below = numbers_of(open->below);
    auto written = archive::write({trees, below, ordinary}, target->get(), asked.bytes_max);
    result.error = written.error;
    result.bytes = written.bytes;
    result.count = written.skipped;
  };
  work.done = [=, this, kept = *layers](const chore_result& result) mutable {
    const char* why = result.error == EFBIG    ? "the archive would be larger than allowed"
                      : result.text[0] != '\0' ? result.text
                                               : std::strerror(result.error);
    report note = report_of(asked, result.error, why);
    note.bytes = result.bytes;
    note.skipped = result.count;
    around_.tell(note);
    // What was dropped meanwhile is free now.
    std::vector<std::shared_ptr<layer_disk>> disks;
    for (const auto& layer : kept)
      disks.push_back(layer->disk());
    kept.clear();
    for (const auto& disk : disks)
      tidy_later(disk);
  };
  chores_.add(std::move(work));
}

/// Starts the next merge that is due, if there is one: one of a machine at a time.
void layer_keeper::merge(held& one) {
  auto next = one.merging ? std::nullopt : one.tree->next_merge();
  if (!next)
    return;
  auto open = std::make_shared<opened_layers>(next->layers, next->below);
  auto into = std::make_shared<layer_dir>(one.disk, one.disk->next_number++);
  struct statfs used {};
  bool ready = open->whole && ::fstatfs(one.disk->root.get(), &used) == 0;
  std::uint64_t given = used.f_files - used.f_ffree + inodes_at_a_time;
  if (!ready || give_inodes(one, given) != 0)
    return one.tree->could_not_merge();
  one.merging = true;
  chore work{.machine = one.machine.number,
             .niceness = tidy_niceness,
             .keep = open->numbers(),
             .work = {},
             .done = {}};
  int root = one.disk->root.get();
  work.keep.push_back(root);
  for (int procs : one.machine.procs)
    work.keep.push_back(procs);
  work.work = [=, ordinary = around_.ordinary_user, procs = one.machine.procs,
               name = std::to_string(into->number())](chore_result& result) {
    // The names take the kernel's memory, on the machine's account.
    for (int fd : procs)
      (void)!::write(fd, "0", 1);
    const std::string tree = name + "/tree";
    owned_fd target;
    ::umask(0);
    if (::mkdirat(root, name.c_str(), 0755) == 0 && ::mkdirat(root, tree.c_str(), 0755) == 0)
      target.reset(::openat(root, tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto trees = numbers_of(open->trees);
    auto below = numbers_of(open->below);
    result.error =
        target ? merge_layers({trees, below, ordinary}, target.get(), result.count) : errno;
  };
  work.done = [this, number = one.machine.number, what = std::move(*next), into, given,
               open](const chore_result& result) mutable {
    open->close();
    what.below.clear();
    if (auto found = machines_.find(number); found != machines_.end()) {
      found->second.merging = false;
      // What was given for the worst case comes back, but for what was used.
      std::uint64_t kept = std::min(result.error == 0 ? result.count + 2 : 0, given);
      found->second.extra_inodes -= given - kept;
      (void)around_.more_inodes(number, found->second.extra_inodes);
    }
    merged(number, what, std::move(into), result);
  };
  chores_.add(std::move(work));
}

void layer_keeper::merged(std::uint64_t number, const layer_tree::merge& what,
                          std::shared_ptr<layer_dir> into, const chore_result& result) {
  auto disk = into->disk();
  auto found = machines_.find(number);
  if (found != machines_.end()) {
    if (result.error == 0)
      found->second.tree->merged(what, std::move(into));
    else
      found->second.tree->could_not_merge();
  }
  into.reset();
  tidy_later(disk);
}

void layer_keeper::tidy_later(const std::shared_ptr<layer_disk>& disk) {
  untidy_.push_back(disk);
  if (next_tidy_ == clock::time_point::max() && !tidying_)
    next_tidy_ = clock::now() + tidy_pause;
}

void layer_keeper::tidy() {
  next_tidy_ = clock::time_point::max();
  std::vector<std::shared_ptr<layer_disk>> disks;
  for (const auto& one : std::exchange(untidy_, {}))
    if (auto disk = one.lock(); disk && std::find(disks.begin(), disks.end(), disk) == disks.end())
      disks.push_back(std::move(disk));
  for (auto& [number, one] : machines_)
    if (std::find(disks.begin(), disks.end(), one.disk) != disks.end())
      merge(one);
  bool any = !old_trees_.empty();
  for (const auto& disk : disks)
    any = any || !disk->garbage.empty();
  if (!any)
    return;
  tidying_ = true;
  give_back(disks, tidy_niceness, [this] {
    tidying_ = false;
    if (!untidy_.empty())
      next_tidy_ = clock::now() + tidy_pause;
  });
}

/// Closes old trees, and removes directories that nobody needs, in a process that starts at once.
void layer_keeper::give_back(const std::vector<std::shared_ptr<layer_disk>>& disks, int niceness,
                             std::function<void()> then) {
  chore work{
      .machine = 0, .niceness = niceness, .urgent = true, .keep = {}, .work = {}, .done = {}};
  std::vector<std::pair<int, std::string>> names;
  for (const auto& disk : disks) {
    if (!disk->root)
      continue;
    work.keep.push_back(disk->root.get());
    for (std::uint64_t number : std::exchange(disk->garbage, {}))
      names.emplace_back(disk->root.get(), std::to_string(number));
  }
  // They are closed by the end of the process.
  std::vector<owned_fd> trees = std::exchange(old_trees_, {});
  for (const auto& one : trees)
    work.keep.push_back(one.get());
  work.work = [names = std::move(names)](chore_result& result) {
    for (const auto& [root, name] : names)
      if (int error = remove_tree(root, name.c_str(), root); error != 0 && error != ENOENT)
        result.error = error;
  };
  work.done = [then = std::move(then)](const chore_result&) { then(); };
  chores_.add(std::move(work));
}

void layer_keeper::forget(std::uint64_t number) {
  prepared_.erase(number);
  chores_.end_of(number);
  auto found = machines_.find(number);
  if (found == machines_.end())
    return;
  std::shared_ptr<layer_disk> disk = found->second.disk;
  std::vector<std::shared_ptr<layer_disk>> all{disk};
  for (const auto& [leaned, index] : found->second.leaned)
    all.push_back(leaned);
  machines_.erase(found);
  // A disk that a living machine leans on is rid of what only the dead one used.
  disk.reset();
  for (auto& one : all) {
    if (one.use_count() > 1)
      tidy_later(one);
    one.reset();
  }
}

std::uint64_t layer_keeper::extra_inodes(std::uint64_t number) const {
  auto found = machines_.find(number);
  return found == machines_.end() ? 0 : found->second.extra_inodes;
}

} // namespace berth::machines
