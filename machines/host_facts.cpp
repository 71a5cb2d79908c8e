// SPDX-License-Identifier: Apache-2.0
#include "machines/host_facts.hpp"

#include "machines/kvm_probe.hpp"
#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/house.hpp"
#include "messages/fd.hpp"

#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <unistd.h>

namespace berth::machines {

namespace {

constexpr const char* mend_user_namespaces =
    "run berth as root, or allow user namespaces: sysctl user.max_user_namespaces=65536, "
    "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0";

/// What `trial` returns (0 or errno), tried in a process of its own.
int try_apart(const std::function<int()>& trial) {
  pid_t pid = ::fork();
  if (pid == 0)
    ::_exit(trial() & 0xFF);
  int status = 0;
  if (pid < 0 || ::waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
    return EIO;
  return WEXITSTATUS(status);
}

/// Becomes able to make namespaces, as the spawner does.
int gain_rights() {
  return ::geteuid() == 0 ? 0 : enter_outer_user_namespace().error;
}

host_fact fact_of(std::string name, int error, std::string good, std::string mend) {
  return {std::move(name), error == 0, error == 0 ? std::move(good) : std::strerror(error),
          error == 0 ? std::string{} : std::move(mend)};
}

int try_overlay() {
  if (int error = gain_rights())
    return error;
  if (::unshare(CLONE_NEWNS) != 0
      || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0
      || ::mount("tmpfs", "/tmp", "tmpfs", 0, "size=64k") != 0)
    return errno;
  for (const char* path : {"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/root"})
    if (::mkdir(path, 0755) != 0)
      return errno;
  const char* options = ::getuid() == 0
                            ? "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
                            : "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
  return ::mount("root", "/tmp/root", "overlay", 0, options) == 0 ? 0 : errno;
}

/// First line that a program prints when asked for its version; empty when it does not run.
std::string version_line(std::vector<std::string> command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return {};
  owned_fd reading{ends[0]};
  owned_fd writing{ends[1]};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), 2);
  std::vector<char*> arguments;
  for (auto& word : command)
    arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::string path = "PATH=/usr/bin:/bin";
  std::string home = "HOME=/tmp";
  char* environment[] = {path.data(), home.data(), nullptr};
  pid_t pid = -1;
  int error = ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environment);
  ::posix_spawn_file_actions_destroy(&actions);
  writing.reset();
  if (error != 0)
    return {};
  char text[512];
  pollfd ready{reading.get(), POLLIN, 0};
  ssize_t count = ::poll(&ready, 1, 5'000) == 1 ? ::read(reading.get(), text, sizeof text) : 0;
  if (count == 0)
    ::kill(pid, SIGKILL);
  int status = 0;
  ::waitpid(pid, &status, 0);
  std::string line{text, count > 0 ? static_cast<std::size_t>(count) : 0};
  return line.substr(0, line.find('\n'));
}

} // namespace

std::vector<host_fact> host_facts() {
  std::vector<host_fact> facts;
  utsname system{};
  ::uname(&system);
  // mount_setattr came last of what cannot be done without.
  bool kernel = ::mount_setattr(-1, "", AT_EMPTY_PATH, nullptr, 0) != 0 && errno != ENOSYS;
  facts.push_back(
      {"kernel", kernel, system.release, kernel ? "" : "Linux 5.12 or later is needed"});
  facts.push_back({"privileges", true,
                   ::geteuid() == 0 ? "root: a host uid for each machine"
                                    : "ordinary user: machines share this user's uid",
                   ""});
  facts.push_back(fact_of("namespaces", try_apart([] {
                            if (int error = gain_rights())
                              return error;
                            int wanted = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC
                                         | CLONE_NEWUTS | CLONE_NEWCGROUP;
                            return ::unshare(wanted) == 0 ? 0 : errno;
                          }),
                          "pid, mount, network, ipc, uts, cgroup", mend_user_namespaces));
  facts.push_back(fact_of("user namespaces",
                          try_apart([] { return ::unshare(CLONE_NEWUSER) == 0 ? 0 : errno; }),
                          "can be made", mend_user_namespaces));
  facts.push_back(fact_of("overlay", try_apart(try_overlay), "mounts over tmpfs",
                          "the kernel needs CONFIG_OVERLAY_FS (modprobe overlay)"));
  int abi = berth_landlock_abi();
  facts.push_back({"landlock", abi > 0, abi > 0 ? "ABI " + std::to_string(abi) : "not offered",
                   abi > 0 ? ""
                           : "boot with lsm=...,landlock; machines work without it, with one "
                             "wall less"});
  unsigned action = SECCOMP_RET_KILL_PROCESS;
  bool seccomp = ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
  facts.push_back({"seccomp", seccomp, seccomp ? "filters" : std::strerror(errno),
                   seccomp ? "" : "the kernel needs CONFIG_SECCOMP_FILTER"});
  for (const auto& group : probe_cgroups()) {
    bool ok = group.version != cgroup_version::none;
    facts.push_back({"cgroup " + group.controller, ok,
                     std::string{to_string(group.version)} + ": " + group.detail,
                     ok ? ""
                        : "run berth as root, or in a unit with Delegate=yes; without it "
                          "limits are kept by rlimits and a watchdog"});
  }
  kvm_verdict kvm = probe_kvm();
  facts.push_back({"kvm", kvm.usable, kvm.detail,
                   kvm.usable ? ""
                              : "namespace machines do not need it; virtual machines are emulated "
                                "without, about ten times slower"});
  struct tool {
    const char* name;
    std::vector<std::string> command;
    const char* package;
  };
  for (const auto& [name, command, package] :
       {tool{"qemu", {"/usr/bin/qemu-system-x86_64", "--version"}, "qemu-system-x86"},
        tool{"language python", {"/usr/bin/python3", "--version"}, "python3"},
        tool{"live python",
             {"/usr/bin/python3", "-I", "-c",
              "import importlib.metadata as m; print('IPython', m.version('ipython'))"},
             "python3-ipython"},
        tool{"language javascript", {"/usr/bin/node", "--version"}, "nodejs"},
        tool{"language bash", {"/usr/bin/bash", "--version"}, "bash"},
        tool{"language rust", {"/usr/bin/rustc", "--version"}, "rustc"},
        tool{"language go", {"/usr/bin/go", "version"}, "golang-go"}}) {
    std::string version = version_line(command);
    facts.push_back(
        {name, !version.empty(),
         version.empty() ? std::string{package} + " is not there, or does not run" : version,
         version.empty() ? std::string{"apt-get install "} + package : ""});
  }
  return facts;
}

} // namespace berth::machines
