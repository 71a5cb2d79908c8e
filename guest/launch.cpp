// SPDX-License-Identifier: Apache-2.0
#include "guest/launch.hpp"

#include <climits>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <sched.h>

namespace berth::guest {

namespace {

constexpr std::size_t stack_bytes = 64 * 1024;

/// What the new process needs, prepared by the parent, whose memory it shares until it execs. What
/// it writes here the parent reads.
struct launch_state {
  const launch_request* request;
  char* const* argv;
  char* const* env;
  const char* step = nullptr;
  int error = 0;
};

int fail(launch_state& state, const char* step) {
  state.error = errno;
  state.step = step;
  return 127;
}

void reset_signals() {
  struct sigaction fresh {};
  fresh.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number)
    sigaction(number, &fresh, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// Runs in the new process, on its own stack in the parent's memory: only system calls here.
int become(void* argument) {
  launch_state& state = *static_cast<launch_state*>(argument);
  const launch_request& request = *state.request;
  setsid();
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (dup2(request.stdin_fd, 0) < 0 || dup2(request.stdout_fd, 1) < 0
      || dup2(request.stderr_fd, 2) < 0 || (request.job_fd >= 0 && dup2(request.job_fd, 3) < 0))
    return fail(state, "cannot connect its streams");
  // Every descriptor of the guest is close-on-exec; this is for those it was given unawares.
  syscall(SYS_close_range, request.job_fd >= 0 ? 4U : 3U, UINT_MAX, 0U);
  if (chdir(request.cwd.c_str()) != 0)
    return fail(state, "cannot enter its directory");
  reset_signals();
  execve(request.program.c_str(), state.argv, state.env);
  return fail(state, "cannot be executed");
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> result;
  result.reserve(words.size() + 1);
  for (const std::string& word : words)
    result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

} // namespace

launched launch(const launch_request& request) {
  std::vector<char*> argv = pointers(request.argv);
  std::vector<char*> env = pointers(request.env);
  launch_state state{&request, argv.data(), env.data()};
  alignas(16) static char stack[stack_bytes];
  // CLONE_VM and CLONE_VFORK: a fork without copying page tables. Signals stay blocked meanwhile,
  // because the child has the guest's memory.
  pid_t pid = clone(become, stack + stack_bytes, CLONE_VM | CLONE_VFORK | SIGCHLD, &state);
  if (pid < 0)
    return {-1, std::string{"cannot start a process: "} + std::strerror(errno)};
  if (state.step == nullptr)
    return {pid, {}};
  const std::string& subject =
      state.step == std::string_view{"cannot enter its directory"} ? request.cwd : request.program;
  return {-1, subject + " " + state.step + ": " + std::strerror(state.error)};
}

pipe_pair make_pipe(bool reading) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return {};
  int ours = ends[reading ? 0 : 1];
  fcntl(ours, F_SETFL, O_NONBLOCK); // a new pipe has no other flag of that kind
  return {owned_fd{ours}, owned_fd{ends[reading ? 1 : 0]}};
}

owned_fd memory_file(const char* name, const char* data, std::size_t size) {
  owned_fd file{memfd_create(name, MFD_CLOEXEC)};
  std::size_t done = 0;
  while (file && done < size) {
    ssize_t count = write(file.get(), data + done, size - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return {};
    done += static_cast<std::size_t>(count);
  }
  if (file)
    lseek(file.get(), 0, SEEK_SET);
  return file;
}

void prefer_as_oom_victim(pid_t pid) {
  std::string path = "/proc/" + std::to_string(pid) + "/oom_score_adj";
  owned_fd file{open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  if (file)
    (void)!write(file.get(), "500", 3);
}

} // namespace berth::guest
