// SPDX-License-Identifier: Apache-2.0
// Starts the real process 1 of a virtual machine, and beside it one with all privileges that kills
// a part of what runs there: which, is said by the name that the machine is given when it is cloned
// (kill-init, kill-guest, kill-spawner).
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <functional>
#include <string>
#include <unistd.h>

namespace {

/// The first process of which that is so; 0: none.
pid_t find(const std::function<bool(const std::string& proc)>& is_it) {
  DIR* directory = ::opendir("/proc");
  pid_t found = 0;
  while (const dirent* entry = directory != nullptr ? ::readdir(directory) : nullptr) {
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, pid).ptr == end
        && is_it(std::string{"/proc/"} + entry->d_name)) {
      found = pid;
      break;
    }
  }
  if (directory != nullptr)
    ::closedir(directory);
  return found;
}

/// Process 1 of the machine within the machine.
bool is_guest(const std::string& proc) {
  std::ifstream in{proc + "/status"};
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("NSpid:"))
      return line.ends_with("\t1") && line != "NSpid:\t1";
  return false;
}

bool is_spawner(const std::string& proc) {
  std::ifstream in{proc + "/comm"};
  std::string name;
  return std::getline(in, name) && name == "berth-spawner";
}

/// No signal kills process 1: it is made to end itself.
void kill_init() {
  if (::ptrace(PTRACE_ATTACH, 1, nullptr, nullptr) != 0 || ::waitpid(1, nullptr, __WALL) != 1)
    return;
  user_regs_struct registers{};
  ::ptrace(PTRACE_GETREGS, 1, nullptr, &registers);
  registers.rip -= 2; // the system call that it is in
  registers.rax = SYS_exit_group;
  registers.orig_rax = ~0ULL;
  registers.rdi = 9;
  ::ptrace(PTRACE_SETREGS, 1, nullptr, &registers);
  ::ptrace(PTRACE_DETACH, 1, nullptr, nullptr);
}

[[noreturn]] void wait_and_kill() {
  for (;; ::usleep(20'000)) {
    char name[65] = {};
    ::gethostname(name, sizeof name - 1);
    if (std::strcmp(name, "kill-init") == 0) {
      kill_init();
      ::_exit(0);
    }
    pid_t victim = 0;
    if (std::strcmp(name, "kill-guest") == 0)
      victim = find(is_guest);
    else if (std::strcmp(name, "kill-spawner") == 0)
      victim = find(is_spawner);
    if (victim > 0 && ::kill(victim, SIGKILL) == 0)
      ::_exit(0);
  }
}

} // namespace

int main(int, char** arguments) {
  if (::fork() == 0)
    wait_and_kill();
  ::execv("/init", arguments);
  return 1;
}
