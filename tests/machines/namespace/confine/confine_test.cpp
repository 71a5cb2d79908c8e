// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/confine/confine.h"
#include "machines/namespace/confine/seccomp_policy.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>
#include <linux/filter.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

using berth::machines::build_seccomp_program;
using berth::test::skip;

namespace {

struct answer {
  int wait_status = -1;
  std::string text;
};

/// Whether another id can be taken: root can, but not the "root" of an ordinary user's namespace,
/// which has one id alone.
bool has_other_ids() {
  std::ifstream map("/proc/self/uid_map");
  unsigned long inside = 0;
  unsigned long outside = 0;
  unsigned long count = 0;
  map >> inside >> outside >> count;
  return geteuid() == 0 && count > 210'078;
}

/// Runs `probe` in a process that is confined as a guest is; the text is what it wrote to the
/// descriptor it is given, or why it could not be confined.
answer confined(const std::function<void(int)>& probe) {
  static const auto program = build_seccomp_program();
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    alarm(60);
    berth_confinement confinement{};
    confinement.flags = BERTH_CONFINE_NEW_USER_NS;
    confinement.uid = has_other_ids() ? 210'078 : geteuid();
    confinement.gid = has_other_ids() ? 210'078 : getegid();
    confinement.inside_uid = confinement.inside_gid = 1000;
    confinement.oom_score_adj = 100;
    confinement.nice = 5;
    confinement.nofile = 256;
    confinement.nproc = 128;
    confinement.address_space = confinement.file_size = BERTH_LIMIT_KEEP;
    confinement.filter = reinterpret_cast<const sock_filter*>(program.data());
    confinement.filter_length = static_cast<std::uint16_t>(program.size() / sizeof(sock_filter));
    const char* step = "";
    int error = berth_confine(&confinement, &step);
    if (error != 0) {
      dprintf(ends[1], "step %s: %s", step, strerror(-error));
      _exit(125);
    }
    probe(ends[1]);
    _exit(0);
  }
  close(ends[1]);
  answer result;
  std::array<char, 4096> buffer{};
  for (ssize_t got; (got = read(ends[0], buffer.data(), buffer.size())) > 0;)
    result.text.append(buffer.data(), static_cast<std::size_t>(got));
  close(ends[0]);
  waitpid(pid, &result.wait_status, 0);
  return result;
}

bool possible() {
  static const auto trial = confined([](int) {});
  if (!trial.text.empty())
    skip("a process cannot be confined here: " + trial.text);
  return trial.text.empty();
}

struct refusal {
  const char* name;
  int expected;
  std::function<long()> call;
};

long as_long(const void* pointer) {
  return static_cast<long>(reinterpret_cast<std::intptr_t>(pointer));
}

} // namespace

TEST_CASE("A confined process holds no privilege and cannot gain one") {
  if (!possible())
    return;
  auto status = confined([](int out) {
    dprintf(out, "%d %d %d\n", static_cast<int>(getuid()), static_cast<int>(getgid()),
            getpriority(PRIO_PROCESS, 0));
    rlimit core{}, files{};
    getrlimit(RLIMIT_CORE, &core);
    getrlimit(RLIMIT_NOFILE, &files);
    dprintf(out, "%lu %lu\n", core.rlim_max, files.rlim_max);
    prctl(PR_SET_DUMPABLE, 1);
    std::array<char, 4096> buffer{};
    int fd = open("/proc/self/status", O_RDONLY);
    auto got = read(fd, buffer.data(), buffer.size());
    dprintf(out, "%.*s", static_cast<int>(got), buffer.data());
  });
  INFO(status.text);
  CHECK(status.text.rfind("1000 1000 5\n0 256\n", 0) == 0);
  CHECK(status.text.find("CapPrm:\t0000000000000000") != std::string::npos);
  CHECK(status.text.find("CapEff:\t0000000000000000") != std::string::npos);
  CHECK(status.text.find("CapBnd:\t0000000000000000") != std::string::npos);
  CHECK(status.text.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.text.find("Seccomp:\t2") != std::string::npos);
}

TEST_CASE("Each way out that only seccomp holds is refused") {
  if (!possible())
    return;
  constexpr unsigned long high = 1UL << 32;
  const std::vector<refusal> refusals = {
      {"vsock", EAFNOSUPPORT, [] { return socket(AF_VSOCK, SOCK_STREAM, 0); }},
      {"netlink", EAFNOSUPPORT, [] { return socket(AF_NETLINK, SOCK_RAW, 0); }},
      {"packet", EAFNOSUPPORT, [] { return socket(AF_PACKET, SOCK_RAW, 0); }},
      {"alg", EAFNOSUPPORT, [] { return socket(AF_ALG, SOCK_SEQPACKET, 0); }},
      {"vsock, high bits", EAFNOSUPPORT, [] { return syscall(SYS_socket, high | AF_VSOCK, 1, 0); }},
      {"raw", EPERM, [] { return socket(AF_INET, SOCK_RAW, 1); }},
      {"unshare user", EPERM, [] { return unshare(CLONE_NEWUSER); }},
      {"clone user", EPERM, [] { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }},
      {"clone net", EPERM, [] { return syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0); }},
      {"clone3", ENOSYS, [] { return syscall(SYS_clone3, nullptr, 0); }},
      {"setns", EPERM, [] { return setns(0, 0); }},
      {"keyctl", EPERM, [] { return syscall(SYS_keyctl, 0, -3, 0); }},
      {"add_key", EPERM, [] { return syscall(SYS_add_key, "user", "x", "y", 1, -3); }},
      {"io_uring", ENOSYS, [] { return syscall(SYS_io_uring_setup, 1, nullptr); }},
      {"bpf", EPERM, [] { return syscall(SYS_bpf, 0, nullptr, 0); }},
      {"perf", EPERM, [] { return syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0); }},
      {"userfaultfd", EPERM, [] { return syscall(SYS_userfaultfd, 0); }},
      {"ptrace", EPERM, [] { return ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }},
      {"process_vm_readv", EPERM, [] { return syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0); }},
      {"process_vm_writev", EPERM, [] { return syscall(SYS_process_vm_writev, 1, 0, 0, 0, 0, 0); }},
      {"pidfd_getfd", EPERM, [] { return syscall(SYS_pidfd_getfd, 0, 0, 0); }},
      {"mount", EPERM, [] { return syscall(SYS_mount, "x", "/tmp", "tmpfs", 0, 0); }},
      {"umount", EPERM, [] { return syscall(SYS_umount2, "/", 0); }},
      {"pivot_root", EPERM, [] { return syscall(SYS_pivot_root, ".", "."); }},
      {"chroot", EPERM, [] { return chroot("/"); }},
      {"fsopen", EPERM, [] { return syscall(SYS_fsopen, "tmpfs", 0); }},
      {"open_tree", EPERM, [] { return syscall(SYS_open_tree, AT_FDCWD, "/", 0); }},
      {"move_mount", EPERM, [] { return syscall(SYS_move_mount, 0, "", 0, "", 0); }},
      {"open_by_handle_at", EPERM, [] { return syscall(SYS_open_by_handle_at, 0, 0, 0); }},
      {"personality", EPERM, [] { return syscall(SYS_personality, high | 0x0040000); }},
      {"personality, bare", ENOSYS, [] { return syscall(SYS_personality, 0x0040000); }},
      {"TIOCSTI", EPERM, [] { return syscall(SYS_ioctl, 0, TIOCSTI, "x"); }},
      {"TIOCSTI, high bits", EPERM, [] { return syscall(SYS_ioctl, 0, high | TIOCSTI, "x"); }},
      {"TIOCLINUX", EPERM, [] { return syscall(SYS_ioctl, 0, TIOCLINUX, "x"); }},
      {"sub-reaper off", EPERM, [] { return prctl(PR_SET_CHILD_SUBREAPER, 0); }},
      {"sub-reaper off, high bits", EPERM,
       [] { return syscall(SYS_prctl, high | PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); }},
      {"seccomp", ENOSYS, [] { return syscall(SYS_seccomp, 0, 0, nullptr); }},
      {"device node", EPERM, [] { return mknod("/tmp/berth-node", S_IFCHR | 0600, 0x103); }},
      {"clock", EPERM, [] { return syscall(SYS_clock_settime, 0, nullptr); }},
      {"reboot", EPERM, [] { return syscall(SYS_reboot, 0, 0, 0, nullptr); }},
      {"init_module", EPERM, [] { return syscall(SYS_init_module, nullptr, 0, nullptr); }},
      {"sethostname", EPERM, [] { return sethostname("x", 1); }},
      {"syslog", EPERM, [] { return syscall(SYS_syslog, 3, nullptr, 0); }},
      {"unknown call", ENOSYS, [] { return syscall(999); }},
      {"setuid 0", EINVAL, [] { return setresuid(0, 0, 0); }},
      {"raise nofile", EPERM,
       [] {
         rlimit more{4096, 4096};
         return setrlimit(RLIMIT_NOFILE, &more);
       }},
      {"write /usr", EACCES, [] { return open("/usr/berth-file", O_CREAT | O_WRONLY, 0644); }},
  };
  auto result = confined([&](int out) {
    for (const auto& [name, expected, call] : refusals) {
      errno = 0;
      long value = call();
      if (value != -1 || errno != expected)
        dprintf(out, "%s: %ld, %s\n", name, value, strerror(errno));
    }
  });
  CHECK(result.text.empty());
  INFO(result.text);
  CHECK(WIFEXITED(result.wait_status));
}

TEST_CASE("Calls of a foreign architecture kill the process") {
  if (!possible())
    return;
#ifdef __x86_64__
  auto x32 = confined([](int) { syscall(0x40000000 | SYS_getpid); });
  CHECK(WIFSIGNALED(x32.wait_status));
  CHECK(WTERMSIG(x32.wait_status) == SIGSYS);
  auto ia32 = confined([](int) {
    long result = 20;
    asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
  });
  CHECK(WIFSIGNALED(ia32.wait_status));
#else
  skip("only x86-64 has foreign architectures in one kernel");
#endif
}

TEST_CASE("What ordinary programs need is allowed") {
  if (!possible())
    return;
  const std::vector<refusal> calls = {
      {"unix", 0, [] { return socket(AF_UNIX, SOCK_STREAM, 0); }},
      {"inet", 0, [] { return socket(AF_INET, SOCK_STREAM, 0); }},
      {"inet6", 0, [] { return socket(AF_INET6, SOCK_DGRAM, 0); }},
      {"epoll", 0, [] { return epoll_create1(0); }},
      {"eventfd", 0, [] { return eventfd(0, 0); }},
      {"inotify", 0, [] { return inotify_init1(0); }},
      {"timerfd", 0, [] { return timerfd_create(CLOCK_MONOTONIC, 0); }},
      {"signalfd", 0,
       [] {
         sigset_t set;
         sigemptyset(&set);
         return signalfd(-1, &set, 0);
       }},
      {"memfd", 0, [] { return memfd_create("x", 0); }},
      {"statx", 0,
       [] {
         struct statx info;
         return statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &info);
       }},
      {"faccessat2", 0, [] { return syscall(SYS_faccessat2, AT_FDCWD, "/", R_OK, 0); }},
      {"close_range", 0, [] { return close_range(1000, 2000, 0); }},
      {"membarrier", 0, [] { return syscall(SYS_membarrier, 0, 0, 0); }},
      {"getrandom", 0,
       [] {
         char byte;
         return syscall(SYS_getrandom, &byte, 1, 0);
       }},
      {"prlimit", 0,
       [] {
         rlimit limit;
         return getrlimit(RLIMIT_NOFILE, &limit);
       }},
      {"affinity", 0,
       [] {
         cpu_set_t set;
         return sched_getaffinity(0, sizeof(set), &set);
       }},
      {"mmap", 0,
       [] {
         return as_long(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
       }},
      {"fifo", 0,
       [] {
         unlink("/tmp/berth-confine-fifo");
         int result = mkfifo("/tmp/berth-confine-fifo", 0600);
         unlink("/tmp/berth-confine-fifo");
         return result;
       }},
      {"sync", 0, [] { return syscall(SYS_sync); }},
      {"personality query", 0, [] { return syscall(SYS_personality, 0xffffffffUL); }},
      {"sub-reaper on", 0, [] { return prctl(PR_SET_CHILD_SUBREAPER, 1); }},
      {"/dev/null", 0, [] { return open("/dev/null", O_RDWR); }},
      {"fork and exec", 0,
       [] {
         pid_t pid = fork();
         if (pid == 0) {
           execl("/bin/true", "true", nullptr);
           _exit(1);
         }
         int status = 1;
         waitpid(pid, &status, 0);
         return status == 0 ? 0 : -1;
       }},
      {"thread", 0,
       [] {
         int value = -1;
         std::thread([&] { value = 0; }).join();
         return value;
       }},
  };
  auto result = confined([&](int out) {
    for (const auto& [name, expected, call] : calls) {
      errno = 0;
      if (call() == -1)
        dprintf(out, "%s: %s\n", name, strerror(errno));
    }
  });
  INFO(result.text);
  CHECK(result.text.empty());
  CHECK(WIFEXITED(result.wait_status));
}
