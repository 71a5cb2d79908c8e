// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/chores.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <new>
#include <unistd.h>

namespace berth::machines {

namespace {

/// All but standard error and what is kept.
void close_others(std::vector<int> keep) {
  keep.push_back(2);
  std::sort(keep.begin(), keep.end());
  unsigned from = 0;
  for (int fd : keep) {
    auto number = static_cast<unsigned>(fd);
    if (fd < 0 || number < from)
      continue;
    if (number > from)
      ::close_range(from, number - 1, 0);
    from = number + 1;
  }
  ::close_range(from, ~0U, 0);
}

[[noreturn]] void become_chore(const chore& what, chore_result& result, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != parent)
    ::_exit(1);
  ::prctl(PR_SET_NAME, "berth-files");
  close_others(what.keep);
  ::setpriority(PRIO_PROCESS, 0, what.niceness);
  what.work(result);
  result.finished = true;
  ::_exit(0);
}

void say_ended(chore_result& result, int error, const char* why) {
  result.error = error;
  std::snprintf(result.text, sizeof result.text, "%s", why);
}

} // namespace

void chores::add(chore what) {
  if (what.urgent)
    return start(std::move(what));
  waiting_.push_back(std::move(what));
  start_next();
}

void chores::start_next() {
  while (running_.size() < running_max && !waiting_.empty()) {
    chore next = std::move(waiting_.front());
    waiting_.pop_front();
    start(std::move(next));
  }
}

void chores::start(chore what) {
  running one{.what = std::move(what), .pidfd = {}, .result = nullptr};
  if (!fork_for(one)) {
    chore_result failed;
    say_ended(failed, errno, "no process for it");
    return one.what.done(failed);
  }
  std::uint64_t id = next_id_++;
  int fd = one.pidfd.get();
  running_.emplace(id, std::move(one));
  watch_(fd, id);
}

bool chores::fork_for(running& one) {
  void* memory = ::mmap(nullptr, sizeof(chore_result), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return false;
  auto* result = new (memory) chore_result;
  pid_t parent = ::getpid();
  pid_t pid = ::fork();
  if (pid == 0)
    become_chore(one.what, *result, parent);
  if (pid > 0)
    one.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!one.pidfd) {
    int error = errno;
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    ::munmap(memory, sizeof(chore_result));
    errno = error;
    return false;
  }
  one.result = result;
  return true;
}

void chores::on_end(std::uint64_t id) {
  auto found = running_.find(id);
  siginfo_t info{};
  if (found == running_.end()
      || ::waitid(P_PIDFD, static_cast<id_t>(found->second.pidfd.get()), &info, WEXITED | WNOHANG)
             != 0
      || info.si_pid == 0)
    return;
  running one = std::move(found->second);
  running_.erase(found);
  chore_result result = *one.result;
  ::munmap(one.result, sizeof(chore_result));
  if (!result.finished)
    say_ended(result, ECANCELED, "it was ended");
  result.text[sizeof result.text - 1] = '\0';
  one.what.done(result);
  start_next();
}

void chores::end_of(std::uint64_t machine) {
  for (auto& [id, one] : running_)
    if (one.what.machine == machine)
      ::syscall(SYS_pidfd_send_signal, one.pidfd.get(), SIGKILL, nullptr, 0);
  std::vector<chore> ended;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (at->machine == machine) {
      ended.push_back(std::move(*at));
      at = waiting_.erase(at);
    } else {
      ++at;
    }
  }
  chore_result result;
  say_ended(result, ECANCELED, "it was ended");
  for (auto& one : ended)
    one.done(result);
}

void chores::stop() {
  waiting_.clear();
  for (auto& [id, one] : running_) {
    ::syscall(SYS_pidfd_send_signal, one.pidfd.get(), SIGKILL, nullptr, 0);
    siginfo_t info{};
    ::waitid(P_PIDFD, static_cast<id_t>(one.pidfd.get()), &info, WEXITED);
  }
  running_.clear();
}

} // namespace berth::machines
