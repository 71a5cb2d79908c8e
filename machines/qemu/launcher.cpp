// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/launcher.hpp"

#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/chores.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/packet_link.hpp"
#include "machines/namespace/sweep.hpp"
#include "machines/qemu/launcher_house.hpp"
#include "machines/qemu/launcher_protocol.hpp"
#include "machines/qemu/vm_memory.hpp"
#include "machines/qemu/walls.hpp"

#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <memory>
#include <sched.h>
#include <set>
#include <unistd.h>

namespace berth::machines {

namespace {

using launcher::report;
using launcher::report_kind;
using launcher::request;
using launcher::request_kind;
using spawner::packet_link;
using clock = std::chrono::steady_clock;

/// How soon a cgroup that was still busy is tried again.
constexpr std::chrono::milliseconds clear_every{2};
/// How long the end of all processes may take when the server is gone.
constexpr std::chrono::seconds end_within{10};
constexpr std::size_t first_text_max = 16 * 1024;

/// One QEMU, from clone to nothing.
struct living {
  std::uint64_t number = 0;
  std::uint32_t index = 0; ///< its uid's distance from the base
  pid_t pid = -1;
  owned_fd pidfd;
  owned_fd side;
  owned_fd memory_events;
  bool prepared = false;
  bool dead = false;
  std::string failed_step;
  int failed_error = 0;
};

/// What an epoll event is about: a kind in the high byte, a number below.
enum class about : std::uint64_t { server, process_end, side, chore_end };
constexpr int kind_shift = 56;

std::uint64_t tag(about kind, std::uint64_t number) {
  return static_cast<std::uint64_t>(kind) << kind_shift | number;
}

class launcher_process {
public:
  launcher_process(const qemu_settings& settings, owned_fd server)
    : settings_(settings)
    , server_(std::move(server))
    , chores_([this](int fd, std::uint64_t id) { add(fd, EPOLLIN, tag(about::chore_end, id)); }) {}

  [[noreturn]] void run();

private:
  std::string prepare();
  void say_ready();
  [[noreturn]] void refuse(const std::string& why);

  void on_server(std::uint32_t events);
  void launch(const request& asked, std::string_view arguments, std::vector<owned_fd>& fds);
  int clone(living& one, wall_plan& plan);
  void destroy(std::uint64_t number);
  void on_memory(const request& asked, std::vector<owned_fd>& fds);
  void on_side(std::uint64_t number);
  void on_end(std::uint64_t number);
  void clear_dead();

  void tell(const report& what, std::span<const int> fds = {});
  void tell_died(std::uint64_t number, int error, std::string_view why);
  void add(int fd, std::uint32_t events, std::uint64_t what);
  void watch_server();
  [[noreturn]] void end();

  const qemu_settings& settings_;
  packet_link server_;
  bool server_wants_out_ = false;
  owned_fd epoll_;
  owned_fd proc_;
  instance_dir instance_;
  cgroup_tree cgroups_;
  bool ordinary_user_ = false;
  std::vector<std::string> facts_;
  chores chores_;
  std::map<std::uint64_t, living> processes_;
  std::set<std::uint64_t> dying_;
  std::vector<std::uint32_t> free_indices_;
  std::uint32_t next_index_ = 0;
  clock::time_point next_clear_ = clock::time_point::max();
};

// --- start ---------------------------------------------------------------------------------------

/// The first packet: a report, and lines of text after it.
void send_first(packet_link& to, report_kind kind, const std::string& text) {
  report note{.kind = kind};
  std::vector<std::byte> packet(sizeof note + std::min(text.size(), first_text_max));
  std::memcpy(packet.data(), &note, sizeof note);
  std::memcpy(packet.data() + sizeof note, text.data(), packet.size() - sizeof note);
  to.send(packet);
}

void launcher_process::refuse(const std::string& why) {
  cgroups_.remove_instance();
  instance_.remove();
  send_first(server_, report_kind::refused, why);
  ::_exit(1);
}

/// Each part returns why it cannot be; the first reason ends the launcher.
std::string launcher_process::prepare() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  proc_.reset(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!epoll_ || !proc_)
    return std::string{"epoll or /proc: "} + std::strerror(errno);
  if (::access(settings_.binary.c_str(), X_OK) != 0)
    return settings_.binary + ": " + std::strerror(errno)
           + " (install QEMU: apt-get install qemu-system-x86)";
  const std::string runtime =
      settings_.runtime_dir.empty() ? default_runtime_dir() : settings_.runtime_dir;
  std::string why;
  instance_ = instance_dir::claim(runtime, why);
  if (!instance_)
    return why;
  auto left = sweep(runtime, instance_.id());
  facts_.push_back("swept: " + left.text());
  cgroups_ = cgroup_tree::open(instance_.id());
  instance_.note_groups(cgroups_.paths());
  if (settings_.need_cgroups && (!cgroups_.memory() || !cgroups_.pids()))
    return "cgroups are required: run berth as root, or in a unit with Delegate=yes";
  if (settings_.need_landlock && berth_landlock_abi() == 0)
    return "landlock is required: this kernel has none";
  if (::geteuid() != 0 || ::prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 1) {
    ordinary_user_ = true;
    if (auto result = enter_outer_user_namespace(); !result.ok())
      return result.text();
  }
  bool with_kvm = settings_.runs_by == accelerator::kvm;
  auto result = enter_launcher_house(settings_.binary, with_kvm, instance_.path() + "/root");
  return result.ok() ? std::string{} : result.text();
}

void launcher_process::say_ready() {
  std::vector<std::string> lines{instance_.id()};
  lines.emplace_back("QEMU's walls: namespaces user, pid, mount, network (none at all), ipc, uts, "
                     "cgroup; read-only root with QEMU and libraries only");
  lines.push_back(ordinary_user_
                      ? "QEMU's identity: the uid of the server's user, in user namespaces of "
                        "their own"
                      : "QEMU's identity: a host uid of its own for each machine, from "
                            + std::to_string(settings_.uid_base));
  lines.emplace_back("QEMU's privileges: no capabilities, no_new_privs, its own seccomp filter "
                     "(-sandbox on)");
  int abi = berth_landlock_abi();
  lines.push_back(abi > 0 ? "landlock: ABI " + std::to_string(abi) : "landlock: none");
  for (const auto& fact : cgroups_.facts())
    lines.push_back("cgroup " + fact.controller + ": " + std::string{to_string(fact.version)} + " ("
                    + fact.detail + ")");
  for (auto& line : facts_)
    lines.push_back(std::move(line));
  std::string text;
  for (const auto& line : lines)
    text += line + "\n";
  send_first(server_, report_kind::ready, text);
}

// --- processes -----------------------------------------------------------------------------------

void launcher_process::tell_died(std::uint64_t number, int error, std::string_view why) {
  report note{.kind = report_kind::died, .number = number, .error = error};
  note.text[why.copy(note.text, sizeof note.text - 1)] = '\0';
  tell(note);
}

/// The texts between NULs.
std::vector<std::string> split_arguments(std::string_view packed) {
  std::vector<std::string> all;
  while (!packed.empty() && all.size() <= launcher::arguments_max) {
    auto end = packed.find('\0');
    if (end == std::string_view::npos)
      return {};
    all.emplace_back(packed.substr(0, end));
    packed.remove_prefix(end + 1);
  }
  return all;
}

void launcher_process::launch(const request& asked, std::string_view arguments,
                              std::vector<owned_fd>& fds) {
  bool known = processes_.contains(asked.number);
  wall_plan plan{.number = asked.number,
                 .limits = {.memory_bytes = asked.memory_bytes, .processes = asked.processes},
                 .cgroups = &cgroups_,
                 .binary = settings_.binary,
                 .arguments = split_arguments(arguments)};
  std::string why;
  if (known || asked.number == 0 || asked.number >> kind_shift != 0 || fds.empty()
      || plan.arguments.empty() || plan.arguments.size() > launcher::arguments_max)
    why = "the request for a process is not one";
  else if (processes_.size() >= settings_.processes_max)
    why = "as many processes as uids";
  if (!why.empty()) {
    tell_died(asked.number, EINVAL, why);
    if (!known)
      tell({.kind = report_kind::gone, .number = asked.number});
    return;
  }
  living& one = processes_[asked.number];
  one.number = asked.number;
  if (free_indices_.empty()) {
    one.index = next_index_++;
  } else {
    one.index = free_indices_.back();
    free_indices_.pop_back();
  }
  plan.uid = ordinary_user_ ? 0 : settings_.uid_base + one.index;
  for (const auto& fd : fds)
    plan.descriptors.push_back(fd.get());
  if (int error = clone(one, plan)) {
    tell_died(one.number, error, "clone");
    one.dead = true;
    dying_.insert(one.number);
    return clear_dead();
  }
  add(one.pidfd.get(), EPOLLIN, tag(about::process_end, one.number));
  add(one.side.get(), EPOLLIN, tag(about::side, one.number));
}

int launcher_process::clone(living& one, wall_plan& plan) {
  int side[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, side) != 0)
    return errno;
  one.side.reset(side[0]);
  owned_fd theirs{side[1]};
  plan.side = theirs.get();
  int pidfd = -1;
  long pid =
      ::syscall(SYS_clone, CLONE_NEWPID | CLONE_PIDFD | SIGCHLD, nullptr, &pidfd, nullptr, 0);
  if (pid == 0)
    become_vmm(plan);
  if (pid < 0) {
    int error = errno;
    one.side.reset();
    return error;
  }
  one.pid = static_cast<pid_t>(pid);
  one.pidfd.reset(pidfd);
  return 0;
}

void launcher_process::destroy(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found != processes_.end() && !found->second.dead)
    ::syscall(SYS_pidfd_send_signal, found->second.pidfd.get(), SIGKILL, nullptr, 0);
}

void launcher_process::on_side(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found == processes_.end() || !found->second.side)
    return;
  living& one = found->second;
  packet_link link{owned_fd{::fcntl(one.side.get(), F_DUPFD_CLOEXEC, 3)}};
  wall_report said{};
  std::size_t size = 0;
  std::vector<owned_fd> fds;
  auto got = link.receive(std::as_writable_bytes(std::span{&said, 1}), size, fds);
  if (got == packet_link::received::nothing)
    return;
  if (got == packet_link::received::end || size != sizeof said) {
    // The exec closed it, or the end of the process did.
    one.side.reset();
    return;
  }
  if (said.step != walls_prepared) {
    said.detail[sizeof said.detail - 1] = '\0';
    one.failed_step = wall_step_name(said.step);
    if (said.detail[0] != '\0')
      one.failed_step += std::string{" ("} + said.detail + ")";
    one.failed_error = said.error == 0 ? EPROTO : said.error;
    return;
  }
  if (one.prepared || fds.size() != static_cast<std::size_t>(__builtin_popcount(said.handles)))
    return;
  one.prepared = true;
  std::vector<int> handles;
  for (const auto& fd : fds)
    handles.push_back(fd.get());
  tell({.kind = report_kind::launched, .number = number, .handles = said.handles}, handles);
  // Ours is the counter of kills alone.
  cgroup_handles taken;
  taken.take(said.handles, fds);
  one.memory_events = std::move(taken[spawner::handle_memory_events]);
}

void launcher_process::on_end(std::uint64_t number) {
  auto found = processes_.find(number);
  if (found == processes_.end() || found->second.dead)
    return;
  living& one = found->second;
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(one.pidfd.get()), &info, WEXITED | WNOHANG) != 0
      || info.si_pid == 0)
    return;
  one.dead = true;
  for (int round = 0; round < 2 && one.side; ++round)
    on_side(number);
  chores_.end_of(number);
  bool killed = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  std::string why = one.failed_step;
  if (one.failed_error == 0)
    why = std::string{"QEMU "} + (killed ? "was ended by signal " : "ended with status ")
          + std::to_string(info.si_status);
  report note{.kind = report_kind::died,
              .number = number,
              .error = one.failed_error,
              .oom_kills = read_group_key(one.memory_events.get(), "oom_kill")};
  note.out_of_memory = killed && info.si_status == SIGKILL && note.oom_kills > 0;
  note.text[why.copy(note.text, sizeof note.text - 1)] = '\0';
  tell(note);
  one.memory_events.reset();
  one.side.reset();
  one.pidfd.reset();
  cgroups_.kill(number);
  dying_.insert(number);
  clear_dead();
}

void launcher_process::clear_dead() {
  for (auto at = dying_.begin(); at != dying_.end();) {
    if (!cgroups_.remove(*at)) {
      cgroups_.kill(*at);
      ++at;
      continue;
    }
    auto found = processes_.find(*at);
    free_indices_.push_back(found->second.index);
    processes_.erase(found);
    tell({.kind = report_kind::gone, .number = *at});
    at = dying_.erase(at);
  }
  next_clear_ = dying_.empty() ? clock::time_point::max() : clock::now() + clear_every;
}

/// In a process of its own: it takes as long as there is memory to copy.
void launcher_process::on_memory(const request& asked, std::vector<owned_fd>& fds) {
  report note{.kind = report_kind::memory, .ticket = asked.ticket, .number = asked.number};
  auto found = processes_.find(asked.number);
  if (found == processes_.end() || found->second.dead || fds.size() != 1) {
    note.error = ESRCH;
    return tell(note);
  }
  auto file = std::make_shared<owned_fd>(std::move(fds.front()));
  chore work{.machine = asked.number, .urgent = true, .keep = {proc_.get(), file->get()}};
  bool reads = asked.kind == request_kind::read_memory;
  work.work = [proc = proc_.get(), pid = found->second.pid, fd = file->get(), reads,
               most = asked.bytes_max](chore_result& result) {
    auto done =
        reads ? vm_memory::read_pages(proc, pid, fd, most) : vm_memory::write_pages(proc, pid, fd);
    result.error = done.error;
    result.bytes = done.bytes;
    std::snprintf(result.text, sizeof result.text, "%s", done.text.c_str());
  };
  work.done = [this, note, file](const chore_result& result) mutable {
    note.error = result.error;
    note.bytes = result.bytes;
    std::snprintf(note.text, sizeof note.text, "%.*s", static_cast<int>(sizeof note.text - 1),
                  result.text);
    tell(note);
  };
  chores_.add(std::move(work));
}

// --- loop ----------------------------------------------------------------------------------------

void launcher_process::tell(const report& what, std::span<const int> fds) {
  // A server that is gone is noticed by the loop.
  (void)server_.send_pod(what, fds);
}

void launcher_process::add(int fd, std::uint32_t events, std::uint64_t what) {
  epoll_event event{.events = events, .data = {.u64 = what}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void launcher_process::on_server(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !server_.flush())
    end();
  for (int round = 0; round < 32 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0; ++round) {
    std::array<std::byte, sizeof(request) + launcher::argument_bytes_max> packet;
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    auto got = server_.receive(packet, size, fds);
    if (got == packet_link::received::nothing)
      break;
    request asked{};
    if (got == packet_link::received::end || size < sizeof asked)
      end();
    std::memcpy(&asked, packet.data(), sizeof asked);
    if (size != sizeof asked + asked.argument_bytes)
      end();
    switch (asked.kind) {
    case request_kind::launch:
      launch(asked,
             {reinterpret_cast<const char*>(packet.data()) + sizeof asked, asked.argument_bytes},
             fds);
      // It took a while: others are heard before the next.
      return;
    case request_kind::destroy:
      destroy(asked.number);
      break;
    case request_kind::read_memory:
    case request_kind::write_memory:
      on_memory(asked, fds);
      break;
    default:
      end();
    }
  }
}

/// The server is gone: nothing of the instance stays.
void launcher_process::end() {
  for (auto& [number, one] : processes_)
    destroy(number);
  chores_.stop();
  auto until = clock::now() + end_within;
  while (!processes_.empty() && clock::now() < until) {
    std::vector<std::uint64_t> numbers;
    for (auto& [number, one] : processes_)
      if (!one.dead)
        numbers.push_back(number);
    for (auto number : numbers)
      on_end(number);
    clear_dead();
    if (!processes_.empty())
      ::usleep(1'000);
  }
  bool clean = cgroups_.remove_instance();
  if (clean)
    instance_.remove();
  ::_exit(clean ? 0 : 1);
}

void launcher_process::watch_server() {
  if (server_.has_waiting() == server_wants_out_)
    return;
  server_wants_out_ = server_.has_waiting();
  epoll_event event{.events = EPOLLIN | (server_wants_out_ ? EPOLLOUT : 0U),
                    .data = {.u64 = tag(about::server, 0)}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, server_.fd(), &event);
}

void launcher_process::run() {
  if (auto why = prepare(); !why.empty())
    refuse(why);
  add(server_.fd(), EPOLLIN, tag(about::server, 0));
  say_ready();
  std::array<epoll_event, 64> events;
  for (;;) {
    watch_server();
    int wait = -1;
    if (next_clear_ != clock::time_point::max())
      wait = static_cast<int>(clear_every.count());
    int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      std::uint64_t number = event.data.u64 & ((std::uint64_t{1} << kind_shift) - 1);
      switch (static_cast<about>(event.data.u64 >> kind_shift)) {
      case about::server:
        on_server(event.events);
        break;
      case about::process_end:
        on_end(number);
        break;
      case about::side:
        on_side(number);
        break;
      case about::chore_end:
        chores_.on_end(number);
        break;
      }
    }
    if (clock::now() >= next_clear_)
      clear_dead();
  }
}

/// What the forked child does first: it keeps its socket and its standard error, nothing else.
[[noreturn]] void become_launcher(const qemu_settings& settings, owned_fd socket) {
  ::prctl(PR_SET_NAME, "berth-launcher");
  ::setsid();
  for (int number : {SIGINT, SIGHUP, SIGTERM, SIGPIPE})
    ::signal(number, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  owned_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
  ::dup2(null.get(), 0);
  ::dup2(null.get(), 1);
  null.reset();
  int keep = ::dup3(socket.get(), 3, O_CLOEXEC);
  if (socket.get() == 3)
    keep = socket.release();
  else
    (void)socket.release();
  ::close_range(4, ~0U, 0);
  launcher_process process{settings, owned_fd{keep}};
  process.run();
}

} // namespace

spawner_handle start_launcher(const qemu_settings& settings, std::string& why) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    why = std::string{"socketpair: "} + std::strerror(errno);
    return {};
  }
  owned_fd ours{ends[0]};
  owned_fd theirs{ends[1]};
  std::fflush(nullptr);
  pid_t pid = ::fork();
  if (pid == 0)
    become_launcher(settings, std::move(theirs));
  if (pid < 0) {
    why = std::string{"fork: "} + std::strerror(errno);
    return {};
  }
  theirs.reset();
  return hear_first_packet(std::move(ours), pid, sizeof(report), why);
}

} // namespace berth::machines
