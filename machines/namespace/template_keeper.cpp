// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/template_keeper.hpp"

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/contain.hpp"
#include "machines/namespace/packet_link.hpp"
#include "machines/namespace/templates/protocol.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sched.h>

namespace berth::machines {

namespace {

/// Most injects one template may have before it; more are refused and the guest runs cold.
constexpr std::size_t injects_waiting_max = 4096;
constexpr std::chrono::milliseconds pause_max{30'000};
/// A template that lived this long is not in a crash loop.
constexpr std::chrono::seconds settled_after{60};
constexpr std::uint32_t machine_namespaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS
                                             | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
                                             | CLONE_NEWCGROUP;
/// The kernel's memory killer takes interpreters and jobs before the guest.
constexpr int interpreter_oom_score = 500;

struct recipe {
  std::string_view language;
  std::vector<std::string> command;
  std::vector<std::string> environment;
  bool on_demand = false;
};

const recipe* find_recipe(std::string_view language) {
  static const std::vector<recipe> recipes = {
      {"python", {"/usr/bin/python3", "-u", "-X", "utf8", "/opt/berth/python_template.py"}, {}},
      {"python_kernel",
       {"/usr/bin/python3", "-u", "-X", "utf8", "/opt/berth/python_kernel_template.py"},
       {},
       true},
      {"javascript",
       {"/usr/bin/node", "--single-threaded", "--v8-pool-size=0", "/opt/berth/node_template.js"},
       {"LD_PRELOAD=/opt/berth/keepfork.so"}},
      {"rust", {"/usr/bin/rustc", "@arguments"}, {"LD_PRELOAD=/opt/berth/premain.so"}},
  };
  auto found = std::find_if(recipes.begin(), recipes.end(),
                            [&](const auto& one) { return one.language == language; });
  return found == recipes.end() ? nullptr : &*found;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const auto& text : texts)
    out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

} // namespace

void template_keeper::start(const std::vector<std::string>& languages,
                            const std::vector<char>& filter, bool lazy) {
  filter_.reset(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!filter_
      || ::write(filter_.get(), filter.data(), filter.size())
             != static_cast<ssize_t>(filter.size()))
    return;
  for (const auto& language : languages) {
    const recipe* how = find_recipe(language);
    if (how == nullptr)
      continue;
    slot& one = slots_.emplace_back();
    one.language = language;
    one.command = how->command;
    one.environment = how->environment;
    // The tool, its script or its library may not be on this host.
    bool there = ::access(one.command.front().c_str(), X_OK) == 0;
    for (const auto& word : one.command)
      there = there && (!word.starts_with("/") || ::access(word.c_str(), R_OK) == 0);
    for (const auto& word : one.environment)
      there = there && ::access(word.substr(word.find('=') + 1).c_str(), R_OK) == 0;
    one.absent = !there;
    one.asleep = there && (lazy || how->on_demand);
    if (there && !one.asleep && !launch(one))
      one.due = clock::now() + one.pause;
  }
}

void template_keeper::tell_asleep() {
  for (const slot& one : slots_)
    if (one.asleep)
      on_changed_(one.language, ENOTCONN);
}

bool template_keeper::launch(slot& one) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return false;
  one.socket.reset(ends[0]);
  owned_fd theirs{ends[1]};
  auto arguments = pointers(one.command);
  auto environment = pointers(one.environment);
  pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int number : {SIGINT, SIGHUP, SIGTERM, SIGPIPE})
      ::signal(number, SIG_DFL);
    int socket = ::fcntl(theirs.get(), F_DUPFD, 10);
    int filter = ::fcntl(filter_.get(), F_DUPFD, 10);
    int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    // Its diagnostics go where the spawner's go.
    if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(null, 1) < 0
        || ::dup2(socket, BERTH_TEMPLATE_FD) < 0 || ::dup2(filter, BERTH_TEMPLATE_FILTER_FD) < 0)
      ::_exit(127);
    ::close_range(5, ~0U, 0);
    ::execve(arguments[0], arguments.data(), environment.data());
    ::_exit(127);
  }
  if (pid < 0)
    return false;
  one.pid = pid;
  one.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  one.up = false;
  one.due = clock::time_point::max();
  one.started = clock::now();
  return true;
}

bool template_keeper::inject(std::string_view language, const inject_target& target) {
  auto found = std::find_if(slots_.begin(), slots_.end(),
                            [&](const auto& one) { return one.language == language; });
  if (found == slots_.end() || found->absent) {
    on_injected_(target.machine, language, ENOENT, {});
    return false;
  }
  bool started = std::exchange(found->asleep, false) && launch(*found);
  // What is asked now waits in its socket until it is up.
  ask(*found, target);
  return started;
}

void template_keeper::ask(slot& one, const inject_target& target) {
  const std::string& language = one.language;
  if (!one.socket || one.waiting.size() >= injects_waiting_max)
    return on_injected_(target.machine, language, EAGAIN, {});
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return on_injected_(target.machine, language, errno, {});
  owned_fd guest_end{ends[0]};
  owned_fd interpreter_end{ends[1]};
  berth_inject_request request{};
  request.letter = BERTH_INJECT;
  request.namespaces = machine_namespaces;
  request.uid = agent_id;
  request.gid = agent_id;
  request.oom_score_adj = interpreter_oom_score;
  request.nofile = 16'384;
  request.nproc = target.nproc;
  request.address_space = BERTH_LIMIT_KEEP;
  request.file_size = BERTH_LIMIT_KEEP;
  std::vector<int> fds{target.pidfd, interpreter_end.get()};
  for (int fd : target.procs)
    if (fds.size() < BERTH_INJECT_FDS_MAX)
      fds.push_back(fd);
  request.cgroups = static_cast<std::uint32_t>(fds.size() - 2);
  // The socket's own buffer is the queue: a template that does not read refuses further work.
  spawner::packet_link link{owned_fd{::fcntl(one.socket.get(), F_DUPFD_CLOEXEC, 3)}};
  bool sent = link.send_pod(request, fds) && !link.has_waiting();
  if (!sent)
    return on_injected_(target.machine, language, EAGAIN, {});
  one.waiting.push_back({target.machine, std::move(guest_end)});
}

void template_keeper::on_socket(std::size_t index) {
  slot& one = slots_[index];
  for (;;) {
    berth_inject_reply reply{};
    ssize_t count = ::recv(one.socket.get(), &reply, sizeof reply, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
      return;
    if (count <= 0) {
      // Its end is told by its pidfd; nothing more is asked of it.
      one.socket.reset();
      ::kill(one.pid, SIGKILL);
      return;
    }
    if (reply.letter == BERTH_TEMPLATE_READY) {
      one.up = true;
      on_changed_(one.language, 0);
    } else if (reply.letter == BERTH_INJECTED && !one.waiting.empty()) {
      pending done = std::move(one.waiting.front());
      one.waiting.pop_front();
      on_injected_(done.machine, one.language, -reply.error, std::move(done.guest_end));
    }
  }
}

bool template_keeper::injecting(std::uint64_t machine) const {
  for (const auto& one : slots_)
    for (const auto& each : one.waiting)
      if (each.machine == machine)
        return true;
  return false;
}

void template_keeper::fail_waiting(slot& one, int error) {
  auto waiting = std::move(one.waiting);
  one.waiting.clear();
  for (auto& each : waiting)
    on_injected_(each.machine, one.language, error, {});
}

void template_keeper::on_exit(std::size_t index) {
  slot& one = slots_[index];
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(one.pid), &info, WEXITED | WNOHANG) != 0
      || info.si_pid == 0)
    return;
  one.socket.reset();
  one.pidfd.reset();
  one.pid = -1;
  one.up = false;
  auto now = clock::now();
  bool settled = now - one.started > settled_after;
  one.pause = settled ? std::chrono::milliseconds{100} : std::min(one.pause * 2, pause_max);
  one.due = now + one.pause;
  fail_waiting(one, ECHILD);
  on_changed_(one.language, ECHILD);
}

bool template_keeper::restart_due(clock::time_point now) {
  bool any = false;
  for (auto& one : slots_) {
    if (one.due > now)
      continue;
    if (launch(one))
      any = true;
    else
      one.due = now + one.pause;
  }
  return any;
}

template_keeper::clock::time_point template_keeper::next_restart() const {
  auto next = clock::time_point::max();
  for (const auto& one : slots_)
    next = std::min(next, one.due);
  return next;
}

void template_keeper::stop() {
  for (auto& one : slots_) {
    if (one.pid > 0) {
      ::kill(one.pid, SIGKILL);
      ::waitpid(one.pid, nullptr, 0);
    }
    one.pid = -1;
    one.socket.reset();
    one.pidfd.reset();
    one.due = clock::time_point::max();
    one.waiting.clear();
  }
}

std::vector<std::string> template_keeper::describe() const {
  std::vector<std::string> lines;
  for (const auto& one : slots_)
    lines.push_back("template " + one.language + ": "
                    + (one.absent
                           ? one.command.front() + " is not there, jobs start cold or fail"
                           : "forked from a trusted template"
                                 + std::string{one.asleep ? ", started when first needed" : ""}));
  return lines;
}

} // namespace berth::machines
