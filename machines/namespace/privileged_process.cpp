// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/privileged_process.hpp"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/mounts.hpp"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <poll.h>

namespace berth::machines {

using spawner::packet_link;

namespace {

/// How soon a cgroup that was still busy is tried again.
constexpr std::chrono::milliseconds clear_every{2};
/// The first packet says in its first byte whether the process works; then comes text.
constexpr char works = '+';
constexpr char works_not = '-';
constexpr std::size_t first_text_max = 16 * 1024;

void say_first(packet_link& to, char what, std::string_view text) {
  std::string packet{what};
  packet += text.substr(0, first_text_max);
  to.send(std::as_bytes(std::span{packet}));
}

/// What the forked child does first: it keeps its socket and its standard error, nothing else.
[[noreturn]] void become(const char* name, const std::function<void(owned_fd)>& be,
                         owned_fd socket) {
  ::prctl(PR_SET_NAME, name);
  // Its own session: a terminal's interrupt is for the server, which then ends us in order.
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
  be(owned_fd{keep});
  ::_exit(1);
}

spawner_handle hear_first_packet(owned_fd ours, pid_t pid, std::string& why) {
  pollfd ready{ours.get(), POLLIN, 0};
  std::vector<char> packet(1 + first_text_max);
  std::size_t size = 0;
  std::vector<owned_fd> fds;
  packet_link link{owned_fd{::fcntl(ours.get(), F_DUPFD_CLOEXEC, 3)}};
  int polled = 0;
  do
    polled = ::poll(&ready, 1, 30'000);
  while (polled < 0 && errno == EINTR);
  bool heard = polled == 1
               && link.receive(std::as_writable_bytes(std::span{packet}), size, fds)
                      == packet_link::received::packet;
  const std::string text{packet.data() + 1, heard ? size - 1 : 0};
  if (!heard || packet.front() != works) {
    why = heard ? text : "the privileged process ended or said nothing";
    link.close();
    ours.reset();
    wait_for_spawner(pid, std::chrono::seconds{5});
    return {};
  }
  spawner_handle handle;
  handle.socket = std::move(ours);
  handle.pid = pid;
  for (std::size_t at = 0; at < text.size();) {
    auto end = std::min(text.find('\n', at), text.size());
    handle.isolation.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (!handle.isolation.empty()) {
    handle.instance = handle.isolation.front();
    handle.isolation.erase(handle.isolation.begin());
  }
  return handle;
}

} // namespace

spawner_handle start_privileged(const char* name, const std::function<void(owned_fd)>& be,
                                std::string& why) {
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
    become(name, be, std::move(theirs));
  if (pid < 0) {
    why = std::string{"fork: "} + std::strerror(errno);
    return {};
  }
  theirs.reset();
  return hear_first_packet(std::move(ours), pid, why);
}

bool wait_for_spawner(pid_t pid, std::chrono::milliseconds limit) {
  owned_fd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
  if (!pidfd)
    return true;
  pollfd ended{pidfd.get(), POLLIN, 0};
  bool itself = ::poll(&ended, 1, static_cast<int>(limit.count())) == 1;
  if (!itself)
    ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  return itself;
}

// --- start ---------------------------------------------------------------------------------------

std::string privileged_process::claim(const std::string& runtime_dir) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_)
    return std::string{"epoll: "} + std::strerror(errno);
  add(server_.fd(), 0);
  const std::string runtime = runtime_dir.empty() ? default_runtime_dir() : runtime_dir;
  std::string why;
  instance_ = instance_dir::claim(runtime, why);
  if (!instance_)
    return why;
  auto left = sweep(runtime, instance_.id());
  facts_.push_back("swept: " + left.text());
  cgroups_ = cgroup_tree::open(instance_.id());
  instance_.note_groups(cgroups_.paths());
  // Root without the capability (a plain container) is as good as an ordinary user.
  ordinary_user_ = ::geteuid() != 0 || ::prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 1;
  if (!ordinary_user_)
    return {};
  auto result = enter_outer_user_namespace();
  return result.ok() ? std::string{}
                     : result.text()
                           + " (as an ordinary user: sysctl user.max_user_namespaces, "
                             "kernel.unprivileged_userns_clone, "
                             "kernel.apparmor_restrict_unprivileged_userns)";
}

void privileged_process::refuse(const std::string& why) {
  cgroups_.remove_instance();
  instance_.remove();
  say_first(server_, works_not, why);
  ::_exit(1);
}

void privileged_process::say_ready(const std::vector<std::string>& lines) {
  std::string text = instance_.id() + "\n";
  for (const auto& line : lines)
    text += line + "\n";
  say_first(server_, works, text);
}

void privileged_process::add_wall_lines(std::vector<std::string>& to) const {
  int abi = berth_landlock_abi();
  to.push_back(abi > 0 ? "landlock: ABI " + std::to_string(abi) : "landlock: none");
  for (const auto& fact : cgroups_.facts())
    to.push_back("cgroup " + fact.controller + ": " + std::string{to_string(fact.version)} + " ("
                 + fact.detail + ")");
}

// --- what it keeps -------------------------------------------------------------------------------

std::uint32_t privileged_process::take_index() {
  if (free_indices_.empty())
    return next_index_++;
  std::uint32_t index = free_indices_.back();
  free_indices_.pop_back();
  return index;
}

void privileged_process::clear_dead() {
  for (auto at = dying_.begin(); at != dying_.end();) {
    auto [number, index] = *at;
    if (!cgroups_.remove(number)) {
      // What was on its way into the group when its machine ended is there still.
      cgroups_.kill(number);
      ++at;
      continue;
    }
    free_indices_.push_back(index);
    at = dying_.erase(at);
    on_gone(number);
  }
  next_clear_ = dying_.empty() ? clock::time_point::max() : clock::now() + clear_every;
}

// --- loop ----------------------------------------------------------------------------------------

void privileged_process::add(int fd, std::uint64_t tag) {
  epoll_event event{.events = EPOLLIN, .data = {.u64 = tag}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

std::span<const epoll_event> privileged_process::wait(clock::time_point until) {
  if (server_.has_waiting() != server_wants_out_) {
    server_wants_out_ = server_.has_waiting();
    epoll_event event{.events = EPOLLIN | (server_wants_out_ ? EPOLLOUT : 0U), .data = {.u64 = 0}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, server_.fd(), &event);
  }
  int wait_ms = -1;
  if (until != clock::time_point::max()) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    wait_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
  }
  int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), wait_ms);
  return {events_.data(), static_cast<std::size_t>(std::max(count, 0))};
}

void privileged_process::leave() {
  bool clean = cgroups_.remove_instance();
  // What is left is found by the next start, as long as the instance's directory names it.
  if (clean)
    instance_.remove();
  ::_exit(clean ? 0 : 1);
}

} // namespace berth::machines
