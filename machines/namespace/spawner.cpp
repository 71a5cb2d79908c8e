// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/spawner.hpp"

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/confine/seccomp_policy.hpp"
#include "machines/namespace/contain.hpp"
#include "machines/namespace/house.hpp"
#include "machines/namespace/layer_keeper.hpp"
#include "machines/namespace/packet_link.hpp"
#include "machines/namespace/process_memory.hpp"
#include "machines/namespace/sweep.hpp"
#include "machines/namespace/template_keeper.hpp"

#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <poll.h>
#include <sched.h>
#include <set>

#ifdef __SANITIZE_ADDRESS__
#  include <sanitizer/asan_interface.h>
#endif

namespace berth::machines {

namespace {

using spawner::copy_text;
using spawner::packet_link;
using spawner::report;
using spawner::report_kind;
using spawner::request;
using spawner::request_kind;

/// How often the watchdog looks at each machine's memory.
constexpr std::chrono::milliseconds watch_every{50};
bool good_hostname(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}

/// One machine, from clone to nothing.
struct living {
  std::uint64_t number = 0;
  std::uint32_t index = 0; ///< its uid's distance from the base
  machine_limits limits;
  std::uint16_t port = 0; ///< where its way out listens
  owned_fd pidfd;
  owned_fd side;
  cgroup_handles handles;
  owned_fd proc;
  /// Its walls stand: from here on its side socket speaks for nobody.
  bool prepared = false;
  /// Its files are being restored: there is no process yet.
  bool restoring = false;
  bool dead = false;
  /// What it is started with, until it is.
  std::string hostname;
  owned_fd channel;
  std::string failed_step;
  int failed_error = 0;
  std::uint64_t watchdog_kills = 0;

  std::uint64_t oom_kills() const {
    return watchdog_kills + read_group_key(handles.get(spawner::handle_memory_events), "oom_kill");
  }
};

/// What an event is about.
enum class about : std::uint64_t { server, machine_end, template_socket, template_end, chore_end };

class spawner_process final : public privileged_process {
public:
  spawner_process(const namespace_settings& settings, owned_fd server)
    : privileged_process(std::move(server))
    , settings_(settings)
    , mounts_(house_mounts(settings))
    , templates_(
          [this](std::uint64_t machine, std::string_view language, int error, owned_fd guest_end) {
            on_injected(machine, language, error, std::move(guest_end));
          },
          [this](std::string_view language, int error) {
            report note{.kind = report_kind::template_state, .error = error};
            copy_text(note.text, language);
            tell(note);
          })
    , layers_({.mounts = &mounts_,
               .tell = [this](const report& what) { tell(what); },
               .busy = [this](std::uint64_t number) { return templates_.injecting(number); },
               .end_machine = [this](std::uint64_t number) { destroy(number); },
               .more_inodes =
                   [this](std::uint64_t number, std::uint64_t extra) {
                     auto found = machines_.find(number);
                     return found == machines_.end()
                                ? ESRCH
                                : resize_disk(found->second, found->second.limits.disk_bytes,
                                              extra);
                   }},
              [this](int fd, std::uint64_t id) { add(fd, about::chore_end, id); }) {}

  [[noreturn]] void run();

private:
  // Start.
  std::string prepare();
  std::string probe_requirements() const;
  std::string try_one_machine();
  void tell_ready();

  // Requests.
  void on_server(std::uint32_t events);
  void create(const request& asked, std::vector<owned_fd>& fds);
  void destroy(std::uint64_t number);
  void warm(const request& asked);
  void limit(const request& asked);

  // Machines.
  std::uint32_t uid_of(const living& one) const;
  int launch(living& one, std::string_view hostname, int channel);
  void start(living& one);
  void on_restored(std::uint64_t number, const std::string& error);
  void fail(living& one, int error, std::string_view why);
  void announce(living& one);
  bool take_report(living& one, std::vector<owned_fd>& fds);
  void on_end(std::uint64_t number);
  void on_gone(std::uint64_t number) override;
  void on_injected(std::uint64_t number, std::string_view language, int error, owned_fd guest_end);
  int resize_disk(const living& one, std::uint64_t bytes, std::uint64_t extra_inodes) const;

  // Memory.
  void watch_memory();
  void watch_group(living& one);
  void watch_processes(living& one);
  bool kill_largest(const living& one);

  // Loop.
  void tell(const report& what, std::span<const int> fds = {});
  void watch_templates();
  [[noreturn]] void end();

  const namespace_settings& settings_;
  const std::vector<std::string> mounts_;
  int dumpable_ = 1;
  std::vector<char> filter_;
  template_keeper templates_;
  layer_keeper layers_;
  /// Archives of machines that are yet to be created.
  std::map<std::uint64_t, std::vector<arriving_layer>> arriving_;
  std::map<std::uint64_t, living> machines_;
  clock::time_point next_watch_ = clock::time_point::max();
};

// --- start ---------------------------------------------------------------------------------------

std::string spawner_process::probe_requirements() const {
  if (settings_.require.distinct_uids && ordinary_user_)
    return "a host uid for each machine is required: run berth as root";
  if (settings_.require.landlock && berth_landlock_abi() == 0)
    return "landlock is required: this kernel has none (CONFIG_SECURITY_LANDLOCK, lsm=landlock)";
  if (settings_.require.cgroups && (!cgroups_.memory() || !cgroups_.pids())) {
    std::string text = "cgroups are required:";
    for (const auto& fact : cgroups_.facts())
      if (fact.version == cgroup_version::none)
        text += " " + fact.controller + " (" + fact.detail + ")";
    return text + ": run berth as root, or in a unit with Delegate=yes";
  }
  return {};
}

/// Each part returns why it cannot be; the first reason ends the spawner.
std::string spawner_process::prepare() {
  std::string why = claim(settings_.runtime_dir);
  if (!why.empty())
    return why;
  try {
    filter_ = build_seccomp_program();
  } catch (const std::system_error& error) {
    return std::string{"seccomp program: "} + error.what();
  }
  if (auto result = enter_house(settings_, instance_.path() + "/root"); !result.ok())
    return result.text();
  dumpable_ = ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
  bool forks = false;
  layers_.around().ordinary_user = ordinary_user_;
  layers_.around().obstacle = probe_layers(ordinary_user_, forks);
  facts_.push_back("states of files: "
                   + (!layers_.around().obstacle.empty() ? layers_.around().obstacle
                      : forks                            ? "layers, which forks share"
                              : "layers; forks need a tmpfs that maps ids (Linux 6.3)"));
  why = probe_requirements();
  return why.empty() ? try_one_machine() : why;
}

/// A machine whose server hung up already: its guest ends at once. Proves every step on this host.
std::string spawner_process::try_one_machine() {
  int channel[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
    return std::string{"socketpair: "} + std::strerror(errno);
  owned_fd theirs{channel[1]};
  ::close(channel[0]);
  living one;
  one.limits = settings_.defaults;
  one.index = take_index();
  if (int error = launch(one, "berth-trial", theirs.get()))
    return std::string{"clone of a machine: "} + std::strerror(error);
  theirs.reset();
  pollfd ready{one.pidfd.get(), POLLIN, 0};
  bool ended = ::poll(&ready, 1, 5'000) == 1;
  if (!ended)
    ::syscall(SYS_pidfd_send_signal, one.pidfd.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(one.pidfd.get()), &info, WEXITED);
  std::vector<owned_fd> fds;
  while (take_report(one, fds)) {
  }
  one.side.reset();
  for (int tries = 0; !cgroups_.remove(0) && tries < 500; ++tries)
    ::usleep(1'000);
  free_indices_.push_back(one.index);
  if (!one.prepared || one.failed_error != 0)
    return "a machine cannot be made here: "
           + (one.failed_step.empty() ? "its first process died" : one.failed_step) + ": "
           + std::strerror(one.failed_error);
  return {};
}

void spawner_process::tell_ready() {
  std::vector<std::string> lines{
      "namespaces: user, pid, mount, network (loopback only), ipc, uts, cgroup"};
  lines.push_back(ordinary_user_
                      ? "identity: all machines have the uid of the server's user, in user "
                        "namespaces of their own"
                      : "identity: a host uid of its own for each machine, from "
                            + std::to_string(settings_.uid_base));
  lines.push_back("system calls: seccomp allow-list of "
                  + std::to_string(filter_.size() / sizeof(sock_filter)) + " instructions");
  lines.push_back("privileges: no capabilities, no_new_privs");
  lines.emplace_back(
      "files: overlay over a read-only root, one tmpfs with a size and an inode cap");
  add_wall_lines(lines);
  if (!cgroups_.memory())
    lines.push_back("memory: no cgroup; a watchdog sums each machine's processes every 50 ms and "
                    "kills the machine");
  if (!cgroups_.pids())
    lines.push_back("processes: no cgroup; RLIMIT_NPROC of the machine's user namespace");
  for (auto& line : templates_.describe())
    lines.push_back(std::move(line));
  for (auto& line : facts_)
    lines.push_back(std::move(line));
  say_ready(lines);
}

// --- machines ------------------------------------------------------------------------------------

/// The first process of a machine borrows our memory until it becomes the guest, as by vfork: a
/// copy of the page tables, and a fault for each page that is written to, would cost more than most
/// of the walls.
alignas(16) char contain_stack[256 * 1024];

int build_walls(void* plan) {
  contain(*static_cast<const containment_plan*>(plan));
}

std::uint32_t spawner_process::uid_of(const living& one) const {
  return ordinary_user_ ? 0 : settings_.uid_base + one.index;
}

int spawner_process::launch(living& one, std::string_view hostname, int channel) {
  int side[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, side) != 0)
    return errno;
  one.side.reset(side[0]);
  owned_fd theirs{side[1]};
  std::uint32_t uid = uid_of(one);
  const tree_beginning beginning = layers_.beginning(one.number);
  containment_plan plan{
      .number = one.number,
      .hostname = std::string{hostname},
      .limits = one.limits,
      .disk_options = disk_options(settings_, one.limits.disk_bytes),
      .mounts = &mounts_,
      .cgroups = &cgroups_,
      .beginning = beginning,
      .ordinary_user = ordinary_user_,
      .port = one.port,
      .confinement = {.flags = BERTH_CONFINE_NEW_USER_NS
                               | (settings_.require.landlock ? BERTH_CONFINE_NEED_LANDLOCK : 0),
                      .uid = uid,
                      .gid = uid,
                      .inside_uid = agent_id,
                      .inside_gid = agent_id,
                      .oom_score_adj = 300,
                      .nice = 0,
                      .nofile = 16'384,
                      .nproc = cgroups_.pids() ? BERTH_LIMIT_KEEP
                                               : one.limits.processes + machine_overhead_processes,
                      .address_space = BERTH_LIMIT_KEEP,
                      .file_size = BERTH_LIMIT_KEEP,
                      .filter = reinterpret_cast<const sock_filter*>(filter_.data()),
                      .filter_length =
                          static_cast<std::uint16_t>(filter_.size() / sizeof(sock_filter))},
      .channel = channel,
      .side = theirs.get(),
  };
#ifdef __SANITIZE_ADDRESS__
  // It never returns from its frames, and what they marked would trip the next one.
  ASAN_UNPOISON_MEMORY_REGION(contain_stack, sizeof contain_stack);
#endif
  int pidfd = -1;
  if (::clone(build_walls, contain_stack + sizeof contain_stack,
              CLONE_NEWPID | CLONE_PIDFD | CLONE_VM | CLONE_VFORK | SIGCHLD, &plan, &pidfd)
      < 0) {
    int error = errno;
    one.side.reset();
    return error;
  }
  one.pidfd.reset(pidfd);
  // The memory was shared, and with it whether others may look into us.
  ::prctl(PR_SET_DUMPABLE, dumpable_, 0, 0, 0);
  return 0;
}

void spawner_process::create(const request& asked, std::vector<owned_fd>& fds) {
  report note{.kind = report_kind::died, .number = asked.number};
  std::string_view hostname{asked.text, ::strnlen(asked.text, sizeof asked.text)};
  bool known = machines_.contains(asked.number);
  // Taken whatever the answer: what a refused machine was to begin with is closed with it.
  auto layers = arriving_.extract(asked.number);
  living one;
  one.number = asked.number;
  one.limits = {asked.memory_bytes, asked.processes, asked.disk_bytes};
  one.port = asked.port;
  if (known || asked.number == 0 || asked.number >> kind_shift != 0 || fds.size() != 1
      || !good_hostname(hostname)) {
    note.error = EINVAL;
    copy_text(note.text, "the request for a machine is not one");
  } else if (machines_.size() >= settings_.machines_max) {
    note.error = EAGAIN;
    copy_text(note.text, "as many machines as uids");
  } else {
    one.index = take_index();
    one.hostname = hostname;
    one.channel = std::move(fds.front());
    living& made = machines_.emplace(asked.number, std::move(one)).first->second;
    std::string why;
    if (!layers.empty() && asked.parent != 0)
      why = "either archives or a machine to fork from";
    else if (asked.parent != 0)
      why = layers_.lean(made.number, asked.parent, asked.checkpoint, uid_of(made));
    if (!why.empty())
      return fail(made, EINVAL, why);
    if (layers.empty())
      return start(made);
    made.restoring = true;
    layers_.restore(
        made.number, std::move(layers.mapped()), disk_options(settings_, made.limits.disk_bytes),
        uid_of(made),
        [this, number = made.number, limits = made.limits] {
          cgroup_handles unused;
          return cgroups_.enter(number, limits, unused);
        },
        cgroups_.descriptors(),
        [this, number = made.number](const std::string& error) { on_restored(number, error); });
    return;
  }
  tell(note);
  if (!known)
    tell({.kind = report_kind::gone, .number = asked.number});
}

void spawner_process::start(living& one) {
  int error = launch(one, one.hostname, one.channel.get());
  one.channel.reset();
  if (error != 0)
    return fail(one, error, "clone");
  add(one.pidfd.get(), about::machine_end, one.number);
  if (next_watch_ == clock::time_point::max())
    next_watch_ = clock::now() + watch_every;
  announce(one);
}

void spawner_process::on_restored(std::uint64_t number, const std::string& error) {
  auto found = machines_.find(number);
  if (found == machines_.end() || !found->second.restoring)
    return;
  found->second.restoring = false;
  if (error.empty())
    start(found->second);
  else
    fail(found->second, EBADMSG, error);
}

/// A machine that never had a process.
void spawner_process::fail(living& one, int error, std::string_view why) {
  report note{.kind = report_kind::died, .number = one.number, .error = error};
  copy_text(note.text, why);
  tell(note);
  one.dead = true;
  layers_.forget(one.number);
  dying_.emplace(one.number, one.index);
  clear_dead();
}

/// Takes one report of a containment, if there is one.
bool spawner_process::take_report(living& one, std::vector<owned_fd>& fds) {
  wall_report said{};
  std::size_t size = 0;
  packet_link link{owned_fd{::fcntl(one.side.get(), F_DUPFD_CLOEXEC, 3)}};
  auto got = link.receive(std::as_writable_bytes(std::span{&said, 1}), size, fds);
  if (got != packet_link::received::packet || size != sizeof said)
    return false;
  if (said.step != walls_prepared) {
    one.failed_step = containment_failure(said);
    one.failed_error = said.error == 0 ? EPROTO : said.error;
    return true;
  }
  std::size_t wanted = static_cast<std::size_t>(__builtin_popcount(said.handles)) + said.procs + 1;
  if (one.prepared || fds.size() != wanted || said.procs > one.handles.procs.size())
    return false;
  std::size_t at = one.handles.take(said.handles, fds);
  for (std::uint32_t i = 0; i < said.procs; ++i)
    one.handles.procs[i] = std::move(fds[at++]);
  one.proc = std::move(fds[at]);
  one.prepared = true;
  return true;
}

/// Tells of a machine whose walls stand. A step that failed is told with the machine's end.
void spawner_process::announce(living& one) {
  std::vector<owned_fd> fds;
  if (!take_report(one, fds) || !one.prepared)
    return;
  report note{.kind = report_kind::created, .number = one.number};
  std::vector<int> handles;
  note.handles = one.handles.list(handles);
  tell(note, handles);
  layered_machine layered{.number = one.number,
                          .pidfd = one.pidfd.get(),
                          .disk = one.handles.get(spawner::handle_disk),
                          .proc = one.proc.get(),
                          .uid = uid_of(one),
                          .procs = {}};
  for (const auto& fd : one.handles.procs)
    if (fd)
      layered.procs.push_back(fd.get());
  layers_.begin(layered);
  // The limits and counters are the server's affair, and so is who listens.
  for (auto bit :
       {spawner::handle_memory_limit, spawner::handle_memory_peak, spawner::handle_pids_limit,
        spawner::handle_pids_usage, spawner::handle_cpu_usage, spawner::handle_listener})
    one.handles[bit].reset();
}

void spawner_process::destroy(std::uint64_t number) {
  auto found = machines_.find(number);
  if (found == machines_.end() || found->second.dead)
    return;
  if (found->second.restoring)
    return layers_.forget(number); // which ends it
  ::syscall(SYS_pidfd_send_signal, found->second.pidfd.get(), SIGKILL, nullptr, 0);
}

void spawner_process::on_end(std::uint64_t number) {
  auto found = machines_.find(number);
  if (found == machines_.end() || found->second.dead)
    return;
  living& one = found->second;
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(one.pidfd.get()), &info, WEXITED | WNOHANG) != 0
      || info.si_pid == 0)
    return;
  one.dead = true;
  layers_.forget(number);
  std::vector<owned_fd> fds;
  while (one.failed_error == 0 && take_report(one, fds)) {
  }
  report note{.kind = report_kind::died,
              .number = number,
              .error = one.failed_error,
              .oom_kills = one.oom_kills(),
              .status = info.si_status};
  bool killed = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  note.out_of_memory = killed && info.si_status == SIGKILL && note.oom_kills > 0;
  if (one.failed_error != 0)
    copy_text(note.text, one.failed_step);
  else
    copy_text(note.text, std::string{"the guest "}
                             + (killed ? "was ended by signal " : "ended with status ")
                             + std::to_string(info.si_status));
  tell(note);
  // The disk goes with its last descriptor.
  one.handles = {};
  one.proc.reset();
  one.side.reset();
  one.pidfd.reset();
  cgroups_.kill(number);
  dying_.emplace(number, one.index);
  clear_dead();
}

void spawner_process::on_gone(std::uint64_t number) {
  machines_.erase(number);
  tell({.kind = report_kind::gone, .number = number});
}

void spawner_process::warm(const request& asked) {
  std::string language{asked.text, ::strnlen(asked.text, sizeof asked.text)};
  auto found = machines_.find(asked.number);
  if (found == machines_.end() || found->second.dead)
    return;
  living& one = found->second;
  inject_target target{.machine = asked.number,
                       .pidfd = one.pidfd.get(),
                       .procs = {},
                       .nproc = cgroups_.pids()
                                    ? BERTH_LIMIT_KEEP
                                    : one.limits.processes + machine_overhead_processes};
  for (const auto& fd : one.handles.procs)
    if (fd)
      target.procs.push_back(fd.get());
  if (templates_.inject(language, target))
    watch_templates();
}

void spawner_process::on_injected(std::uint64_t number, std::string_view language, int error,
                                  owned_fd guest_end) {
  auto found = machines_.find(number);
  if (found == machines_.end() || found->second.dead)
    return;
  // What waited for the machine to hold still.
  layers_.go_on(number);
  if (error == 0) {
    // A guest that does not take its interpreters loses them.
    packet_link link{owned_fd{::fcntl(found->second.side.get(), F_DUPFD_CLOEXEC, 3)}};
    int fd = guest_end.get();
    bool sent = link.send(std::as_bytes(std::span{language}), std::span{&fd, 1});
    if (sent && !link.has_waiting())
      return;
    error = EPIPE;
  }
  report note{.kind = report_kind::not_warmed, .number = number, .error = error};
  copy_text(note.text, language);
  tell(note);
}

/// The process that a pidfd stands for, as we see it; 0 when it is gone.
pid_t pid_of(int pidfd) {
  owned_fd file{
      ::open(("/proc/self/fdinfo/" + std::to_string(pidfd)).c_str(), O_RDONLY | O_CLOEXEC)};
  char text[512] = {};
  if (!file || ::read(file.get(), text, sizeof text - 1) <= 0)
    return 0;
  const char* line = std::strstr(text, "\nPid:");
  return line == nullptr ? 0 : std::max(0, std::atoi(line + 5));
}

int spawner_process::resize_disk(const living& one, std::uint64_t bytes,
                                 std::uint64_t extra_inodes) const {
  owned_fd disk{
      ::fspick(one.handles.get(spawner::handle_disk), "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC)};
  if (!disk)
    return errno;
  const std::string size = std::to_string(bytes);
  const std::string inodes = std::to_string(disk_inodes(settings_, bytes) + extra_inodes);
  if (::fsconfig(disk.get(), FSCONFIG_SET_STRING, "size", size.c_str(), 0) != 0
      || ::fsconfig(disk.get(), FSCONFIG_SET_STRING, "nr_inodes", inodes.c_str(), 0) != 0
      || ::fsconfig(disk.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0)
    return errno;
  return 0;
}

void spawner_process::limit(const request& asked) {
  report note{.kind = report_kind::limited, .ticket = asked.ticket, .number = asked.number};
  auto found = machines_.find(asked.number);
  if (found == machines_.end() || found->second.dead || !found->second.prepared) {
    note.error = ESRCH;
  } else {
    living& one = found->second;
    if (asked.disk_bytes != one.limits.disk_bytes)
      note.error = resize_disk(one, asked.disk_bytes, layers_.extra_inodes(one.number));
    std::uint64_t disk = note.error == 0 ? asked.disk_bytes : one.limits.disk_bytes;
    if (!cgroups_.pids() && asked.processes != one.limits.processes)
      limit_processes_of(pid_of(one.pidfd.get()), asked.processes + machine_overhead_processes);
    one.limits = {asked.memory_bytes, asked.processes, disk};
  }
  tell(note);
}

// --- memory --------------------------------------------------------------------------------------

std::uint64_t disk_used(int fd) {
  struct statfs info {};
  if (fd < 0 || ::fstatfs(fd, &info) != 0)
    return 0;
  return (info.f_blocks - info.f_bfree) * static_cast<std::uint64_t>(info.f_bsize);
}

/// Ends the process of the group that has most memory, the guest excepted. False if there is none.
bool spawner_process::kill_largest(const living& one) {
  if (!one.handles.procs.front())
    return false;
  char text[16 * 1024];
  ssize_t count = ::pread(one.handles.procs.front().get(), text, sizeof text - 1, 0);
  if (count <= 0)
    return false;
  text[count] = '\0';
  pid_t largest = -1;
  std::uint64_t most = 0;
  bool first = true;
  for (char* at = text; *at != '\0';) {
    auto pid = static_cast<pid_t>(std::strtol(at, &at, 10));
    while (*at == '\n')
      ++at;
    // Listed first: the guest, who joined first.
    if (std::exchange(first, false) || pid <= 0)
      continue;
    const std::string path = "/proc/" + std::to_string(pid) + "/statm";
    owned_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    char line[128] = {};
    unsigned long long size = 0;
    unsigned long long resident = 0;
    if (file && ::read(file.get(), line, sizeof line - 1) > 0
        && std::sscanf(line, "%llu %llu", &size, &resident) == 2 && resident >= most) {
      most = resident;
      largest = pid;
    }
  }
  return largest > 0 && ::kill(largest, SIGKILL) == 0;
}

/// The job's own limit, see group_memory_limit. Cheap first: most machines use little.
void spawner_process::watch_group(living& one) {
  std::uint64_t allowed = one.limits.memory_bytes + machine_overhead_bytes;
  if (read_group_number(one.handles.get(spawner::handle_memory_usage)) <= allowed)
    return;
  int stat = one.handles.get(spawner::handle_memory_stat);
  std::uint64_t anonymous = read_group_key(stat, "anon") + read_group_key(stat, "rss");
  std::uint64_t shared = read_group_key(stat, "shmem");
  std::uint64_t files = disk_used(one.handles.get(spawner::handle_disk));
  std::uint64_t used = anonymous + (shared > files ? shared - files : 0);
  if (used <= allowed)
    return;
  ++one.watchdog_kills;
  if (!kill_largest(one))
    ::syscall(SYS_pidfd_send_signal, one.pidfd.get(), SIGKILL, nullptr, 0);
  tell({.kind = report_kind::memory_killed, .number = one.number, .oom_kills = one.watchdog_kills});
}

/// Without a group. The interpreters' overhead makes up for what they share with their template.
void spawner_process::watch_processes(living& one) {
  std::uint64_t allowed = one.limits.memory_bytes + machine_overhead_bytes;
  std::uint64_t disk = disk_used(one.handles.get(spawner::handle_disk));
  if (memory_of_processes(one.proc.get(), allowed, disk) <= allowed)
    return;
  ++one.watchdog_kills;
  ::syscall(SYS_pidfd_send_signal, one.pidfd.get(), SIGKILL, nullptr, 0);
}

void spawner_process::watch_memory() {
  for (auto& [number, one] : machines_) {
    if (!one.prepared || one.dead)
      continue;
    if (cgroups_.memory())
      watch_group(one);
    else
      watch_processes(one);
  }
}

// --- loop ----------------------------------------------------------------------------------------

void spawner_process::tell(const report& what, std::span<const int> fds) {
  // A server that is gone is noticed by the loop.
  (void)server_.send_pod(what, fds);
}

void spawner_process::watch_templates() {
  // Adding what is there already fails with EEXIST, which is as good.
  for (std::size_t i = 0; i < templates_.count(); ++i) {
    if (templates_.socket_fd(i) >= 0)
      add(templates_.socket_fd(i), about::template_socket, i);
    if (templates_.process_fd(i) >= 0)
      add(templates_.process_fd(i), about::template_end, i);
  }
}

void spawner_process::on_server(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !server_.flush())
    end();
  for (int round = 0; round < 32 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0; ++round) {
    request asked{};
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    auto got = server_.receive(std::as_writable_bytes(std::span{&asked, 1}), size, fds);
    if (got == packet_link::received::nothing)
      break;
    if (got == packet_link::received::end || size != sizeof asked)
      end();
    asked.text[sizeof asked.text - 1] = '\0';
    switch (asked.kind) {
    case request_kind::create:
      create(asked, fds);
      // It took a while: others are heard before the next.
      return;
    case request_kind::destroy:
      destroy(asked.number);
      break;
    case request_kind::warm:
      warm(asked);
      break;
    case request_kind::limit:
      limit(asked);
      break;
    case request_kind::layer:
      // Who sends more than a machine may have, or none, is not our server.
      if (fds.size() != 1 || arriving_[asked.number].size() >= states_max)
        end();
      arriving_[asked.number].push_back({asked.checkpoint, std::move(fds.front())});
      break;
    case request_kind::freeze:
    case request_kind::roll_back:
    case request_kind::drop:
    case request_kind::save:
      layers_.ask(asked, fds.empty() ? owned_fd{} : std::move(fds.front()));
      break;
    default:
      end();
    }
  }
}

/// The server is gone: nothing of the instance stays.
void spawner_process::end() {
  // A server that only stopped talking still hears of the ends.
  for (auto& [number, one] : machines_)
    destroy(number);
  templates_.stop();
  layers_.stop();
  for (auto& [number, one] : machines_)
    if (one.restoring) {
      one.dead = true;
      dying_.emplace(number, one.index);
    }
  end_with(machines_, [this](std::uint64_t number) { on_end(number); });
}

void spawner_process::run() {
  if (auto why = prepare(); !why.empty())
    refuse(why);
  templates_.start(settings_.templates, filter_, settings_.lazy_templates);
  watch_templates();
  tell_ready();
  templates_.tell_asleep();
  for (;;) {
    hear<about>(
        std::min({next_watch_, next_clear_, templates_.next_restart(), layers_.next_tidy()}),
        [this](about kind, std::uint64_t number, std::uint32_t events) {
          switch (kind) {
          case about::server:
            on_server(events);
            break;
          case about::machine_end:
            on_end(number);
            break;
          case about::template_socket:
            templates_.on_socket(number);
            break;
          case about::template_end:
            templates_.on_exit(number);
            break;
          case about::chore_end:
            layers_.on_chore(number);
            break;
          }
        });
    auto now = clock::now();
    if (now >= next_clear_)
      clear_dead();
    if (now >= layers_.next_tidy())
      layers_.tidy();
    if (now >= next_watch_) {
      watch_memory();
      next_watch_ = machines_.empty() ? clock::time_point::max() : now + watch_every;
    }
    if (now >= templates_.next_restart() && templates_.restart_due(now))
      watch_templates();
  }
}

} // namespace

spawner_handle start_spawner(const namespace_settings& settings, std::string& why) {
  return start_privileged(
      "berth-spawner",
      [&settings](owned_fd server) {
        spawner_process{settings, std::move(server)}.run();
      },
      why);
}

} // namespace berth::machines
