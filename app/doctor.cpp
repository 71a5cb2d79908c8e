// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/terminal.hpp"
#include "bridge/json.hpp"
#include "config/settings.hpp"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <sched.h>
#include <sstream>
#include <unistd.h>

namespace berth {

namespace {

using terminal::tint;

/// One thing this host can do, or cannot.
struct fact {
  std::string name;
  bool ok = false;
  /// Whether the default machine cannot run without it.
  bool needed = false;
  std::string found;
  /// What an operator can do about it; empty when it is there.
  std::string mend;

  static constexpr const char* type_name = "fact";
  static constexpr auto fields() {
    return std::tuple{field("name", &fact::name), field("ok", &fact::ok),
                      field("needed", &fact::needed), field("found", &fact::found),
                      field("mend", &fact::mend)};
  }
};

struct diagnosis {
  bool ok = false;
  std::vector<fact> facts;

  static constexpr const char* type_name = "diagnosis";
  static constexpr auto fields() {
    return std::tuple{field("ok", &diagnosis::ok), field("facts", &diagnosis::facts)};
  }
};

/// Tries something in a child process, so that nothing of it stays. Returns 0 or its errno.
int try_apart(const std::function<int()>& attempt) {
  pid_t child = ::fork();
  if (child == 0)
    ::_exit(attempt() & 0xff);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status))
    return EIO;
  return WEXITSTATUS(status);
}

std::string content_of(const char* path) {
  std::ifstream file{path};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

fact user_namespaces() {
  int wrong = try_apart([] { return ::unshare(CLONE_NEWUSER) == 0 ? 0 : errno; });
  fact one{.name = "user namespaces", .ok = wrong == 0, .needed = true, .found = {}, .mend = {}};
  one.found = wrong == 0 ? "can be made" : std::strerror(wrong);
  if (wrong != 0)
    one.mend = "sysctl user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1 (and "
               "kernel.apparmor_restrict_unprivileged_userns=0 where it exists)";
  return one;
}

fact other_namespaces() {
  int flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  int user = ::geteuid() == 0 ? 0 : CLONE_NEWUSER;
  int wrong = try_apart([&] { return ::unshare(flags | user) == 0 ? 0 : errno; });
  fact one{.name = "namespaces", .ok = wrong == 0, .needed = true, .found = {}, .mend = {}};
  one.found = wrong == 0 ? "pid, mount, network, ipc and uts can be made" : std::strerror(wrong);
  if (wrong != 0)
    one.mend = "in a container: give it CAP_SYS_ADMIN, or allow user namespaces; see above";
  return one;
}

/// Builds what a machine's root is built of, in a mount namespace of its own.
int try_overlay() {
  int flags = CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER);
  if (::unshare(flags) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno;
  if (::mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m") != 0)
    return errno;
  for (const char* part : {"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/root"})
    if (::mkdir(part, 0755) != 0)
      return errno;
  const std::string options{"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"};
  // An ordinary user's overlay keeps its notes in user attributes.
  for (const std::string& tried : {options + ",userxattr", options})
    if (::mount("overlay", "/tmp/root", "overlay", 0, tried.c_str()) == 0)
      return 0;
  return errno;
}

fact overlay() {
  int wrong = try_apart(try_overlay);
  fact one{.name = "overlay", .ok = wrong == 0, .needed = true, .found = {}, .mend = {}};
  one.found = wrong == 0 ? "can be mounted over a tmpfs" : std::strerror(wrong);
  if (wrong != 0)
    one.mend = "modprobe overlay; as an ordinary user Linux 5.11 or newer is needed";
  return one;
}

fact seccomp() {
  std::string actions = content_of("/proc/sys/kernel/seccomp/actions_avail");
  bool ok = actions.find("errno") != std::string::npos;
  return {.name = "seccomp",
          .ok = ok,
          .needed = true,
          .found = ok ? "filters are available" : "the kernel has no filters",
          .mend = ok ? "" : "use a kernel with CONFIG_SECCOMP_FILTER"};
}

fact landlock() {
  constexpr unsigned version_flag = 1;
  long version = ::syscall(444, nullptr, 0, version_flag); // landlock_create_ruleset
  bool ok = version > 0;
  return {.name = "landlock",
          .ok = ok,
          .needed = false,
          .found = ok ? "version " + std::to_string(version) : "not there: one wall less",
          .mend = ok ? "" : "boot with lsm=landlock,... on Linux 5.13 or newer"};
}

fact cgroups() {
  fact one{.name = "cgroups", .ok = false, .needed = false, .found = {}, .mend = {}};
  struct statfs kind {};
  if (::statfs("/sys/fs/cgroup", &kind) == 0
      && static_cast<unsigned long>(kind.f_type) == CGROUP2_SUPER_MAGIC) {
    std::string own = content_of("/proc/self/cgroup");
    std::string path = own.substr(own.rfind("::") + 2);
    path = "/sys/fs/cgroup" + path.substr(0, path.find('\n'));
    bool writable = ::access((path + "/cgroup.procs").c_str(), W_OK) == 0;
    std::string controllers = content_of((path + "/cgroup.controllers").c_str());
    bool enough = controllers.find("memory") != std::string::npos
                  && controllers.find("pids") != std::string::npos;
    one.ok = writable && enough;
    one.found = std::string{"v2, "} + (writable ? "writable" : "not writable")
                + (enough ? ", memory and pids" : ", memory or pids missing");
  } else if (::access("/sys/fs/cgroup/memory/cgroup.procs", W_OK) == 0
             && ::access("/sys/fs/cgroup/pids/cgroup.procs", W_OK) == 0) {
    one.ok = true;
    one.found = "v1, memory and pids writable";
  } else {
    one.found = "none that can be written: limits are kept by rlimits, per process";
  }
  if (!one.ok)
    one.mend = "run as root, or delegate a subtree: systemd-run --user --scope -p Delegate=yes "
               "berth serve";
  return one;
}

fact kvm() {
  bool there = ::access("/dev/kvm", F_OK) == 0;
  bool ok = ::access("/dev/kvm", R_OK | W_OK) == 0;
  return {.name = "kvm",
          .ok = ok,
          .needed = false,
          .found = ok      ? "/dev/kvm can be used"
                   : there ? "/dev/kvm may not be opened"
                           : "no /dev/kvm: virtual machines would be emulated",
          .mend = ok      ? ""
                  : there ? "add the user to the group kvm"
                          : "turn on virtualization in the firmware, or nested in the hypervisor"};
}

fact guest_program() {
  settings values;
  fill_paths(values);
  std::string path = values.lib_dir + "/berth-guest";
  bool ok = ::access(path.c_str(), X_OK) == 0;
  return {.name = "berth-guest",
          .ok = ok,
          .needed = true,
          .found = ok ? path : path + " is missing",
          .mend = ok ? "" : "build or install Berth whole: the guest belongs beside the program"};
}

fact toolchain(const char* language, const char* path, const char* package) {
  bool ok = ::access(path, X_OK) == 0;
  return {.name = language,
          .ok = ok,
          .needed = false,
          .found = ok ? path : std::string{path} + " is missing: no job in " + language,
          .mend = ok ? "" : std::string{"apt-get install "} + package};
}

void show(const fact& one) {
  tint how = one.ok ? tint::green : one.needed ? tint::red : tint::yellow;
  const char* word = one.ok ? "ok  " : one.needed ? "FAIL" : "warn";
  std::printf("%s  %-16s %s\n", terminal::paint(how, word).c_str(), one.name.c_str(),
              one.found.c_str());
  if (!one.mend.empty())
    std::printf("      %-16s %s\n", "", terminal::paint(tint::cyan, "-> " + one.mend).c_str());
}

} // namespace

int command_doctor(bool as_json) {
  diagnosis all;
  all.facts = {user_namespaces(),
               other_namespaces(),
               overlay(),
               seccomp(),
               landlock(),
               cgroups(),
               kvm(),
               guest_program(),
               toolchain("python", "/usr/bin/python3", "python3"),
               toolchain("javascript", "/usr/bin/node", "nodejs"),
               toolchain("bash", "/bin/bash", "bash"),
               toolchain("rust", "/usr/bin/rustc", "rustc"),
               toolchain("go", "/usr/bin/go", "golang-go")};
  all.ok = true;
  for (const auto& one : all.facts)
    all.ok = all.ok && (one.ok || !one.needed);
  if (as_json) {
    std::printf("%s\n", json_text(to_json(all)).c_str());
    return all.ok ? 0 : 1;
  }
  for (const auto& one : all.facts)
    show(one);
  std::printf("\n%s\n", all.ok ? "The default machine (namespace) can run here."
                               : "The default machine (namespace) cannot run here: see FAIL.");
  return all.ok ? 0 : 1;
}

} // namespace berth
