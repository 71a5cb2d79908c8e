// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/confine/seccomp_policy.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <system_error>

#include <asm/ioctls.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <memory>
#include <sched.h>
#include <unistd.h>

namespace berth::machines {

namespace {

/// Allowed whatever the arguments. One family a line.
constexpr const char* allowed_calls[] = {
    // Files: open, read, write, names, attributes.
    "open", "openat", "openat2", "creat", "close", "close_range", "read", "write", "readv",
    "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "dup",
    "dup2", "dup3", "fcntl", "flock", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents",
    "getdents64", "getcwd", "chdir", "fchdir", "mkdir", "mkdirat", "rmdir", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "chmod",
    "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "umask", "truncate",
    "ftruncate", "fallocate", "utime", "utimes", "utimensat", "futimesat", "fsync", "fdatasync",
    "syncfs", "sync_file_range", "fadvise64", "readahead", "sendfile", "copy_file_range", "splice",
    "tee", "vmsplice", "setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr",
    "listxattr", "llistxattr", "flistxattr", "removexattr", "lremovexattr", "fremovexattr",
    "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "memfd_create",
    "cachestat",
    // Waiting.
    "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "signalfd",
    "signalfd4", "timerfd_create", "timerfd_settime", "timerfd_gettime", "io_setup", "io_destroy",
    "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
    // Memory.
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "msync", "mincore", "mlock", "mlock2",
    "mlockall", "munlock", "munlockall", "remap_file_pages", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "membarrier", "mseal",
    // Processes and threads.
    "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "getpid",
    "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "set_tid_address",
    "set_robust_list", "get_robust_list", "futex", "futex_waitv", "futex_wake", "futex_wait",
    "futex_requeue", "rseq", "arch_prctl", "sched_yield", "sched_getaffinity", "sched_setaffinity",
    "sched_getparam", "sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_getattr",
    "sched_setattr", "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval",
    "getcpu", "getpriority", "setpriority", "ioprio_get", "ioprio_set", "getrlimit", "setrlimit",
    "prlimit64", "getrusage", "times", "pidfd_open", "pidfd_send_signal", "restart_syscall",
    // Identity: harmless with one id mapped and no capabilities.
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid",
    "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
    "capget", "capset",
    // Signals.
    "kill", "tkill", "tgkill", "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack",
    "pause",
    // Time.
    "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep",
    "alarm", "getitimer", "setitimer", "timer_create", "timer_settime", "timer_gettime",
    "timer_getoverrun", "timer_delete",
    // Sockets; which families can be opened is filtered below.
    "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "sendto",
    "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "getsockopt",
    "setsockopt",
    // System V and POSIX communication: the ipc namespace is the machine's own.
    "shmget", "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget",
    "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive",
    "mq_notify", "mq_getsetattr",
    // What the system is.
    "uname", "sysinfo", "getrandom"};

/// Refused with EPERM rather than ENOSYS: programs ask to see whether they may.
constexpr const char* refused_calls[] = {"mount",
                                         "umount2",
                                         "pivot_root",
                                         "chroot",
                                         "open_tree",
                                         "move_mount",
                                         "fsopen",
                                         "fsconfig",
                                         "fsmount",
                                         "fspick",
                                         "mount_setattr",
                                         "unshare",
                                         "setns",
                                         "open_by_handle_at",
                                         "name_to_handle_at",
                                         "ptrace",
                                         "process_vm_readv",
                                         "process_vm_writev",
                                         "process_madvise",
                                         "pidfd_getfd",
                                         "kcmp",
                                         "keyctl",
                                         "add_key",
                                         "request_key",
                                         "bpf",
                                         "perf_event_open",
                                         "userfaultfd",
                                         "fanotify_init",
                                         "fanotify_mark",
                                         "clock_settime",
                                         "settimeofday",
                                         "adjtimex",
                                         "clock_adjtime",
                                         "sethostname",
                                         "setdomainname",
                                         "reboot",
                                         "kexec_load",
                                         "kexec_file_load",
                                         "init_module",
                                         "finit_module",
                                         "delete_module",
                                         "swapon",
                                         "swapoff",
                                         "acct",
                                         "quotactl",
                                         "syslog",
                                         "vhangup",
                                         "iopl",
                                         "ioperm",
                                         "mbind",
                                         "set_mempolicy",
                                         "get_mempolicy",
                                         "migrate_pages",
                                         "move_pages"};

/// Decided by their arguments, see refusals() and allowances().
constexpr const char* argument_calls[] = {"ioctl",  "clone",      "prctl", "personality",
                                          "socket", "socketpair", "mknod", "mknodat"};

/// What prctl may be asked for. Not among them: replacing the memory map's bounds, speculation and
/// syscall-dispatch games, further seccomp filters.
constexpr unsigned allowed_prctl[] = {PR_SET_PDEATHSIG,
                                      PR_GET_PDEATHSIG,
                                      PR_GET_DUMPABLE,
                                      PR_SET_DUMPABLE,
                                      PR_GET_KEEPCAPS,
                                      PR_SET_KEEPCAPS,
                                      PR_SET_NAME,
                                      PR_GET_NAME,
                                      PR_GET_SECCOMP,
                                      PR_CAPBSET_READ,
                                      PR_CAPBSET_DROP,
                                      PR_GET_TSC,
                                      PR_GET_SECUREBITS,
                                      PR_SET_TIMERSLACK,
                                      PR_GET_TIMERSLACK,
                                      PR_GET_CHILD_SUBREAPER,
                                      PR_SET_NO_NEW_PRIVS,
                                      PR_GET_NO_NEW_PRIVS,
                                      PR_GET_TID_ADDRESS,
                                      PR_SET_THP_DISABLE,
                                      PR_GET_THP_DISABLE,
                                      PR_CAP_AMBIENT,
                                      PR_GET_SPECULATION_CTRL,
                                      PR_SET_VMA,
                                      PR_SET_PTRACER,
                                      PR_GET_IO_FLUSHER};

constexpr unsigned long namespace_flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS
                                          | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID
                                          | CLONE_NEWNET;

/// The kernel takes most of these arguments as 32 bits: higher bits must not hide a value.
constexpr scmp_datum_t low_half = 0xffffffff;

void check(int result, const char* what) {
  if (result < 0)
    throw std::system_error(-result, std::generic_category(), what);
}

/// One libseccomp filter, as wide as `otherwise` says, exported as instructions.
class filter {
public:
  explicit filter(std::uint32_t otherwise)
    : context_(seccomp_init(otherwise)) {
    if (context_ == nullptr)
      throw std::system_error(ENOMEM, std::generic_category(), "seccomp_init");
    check(seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS),
          "seccomp_attr_set");
    check(seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2), "seccomp_attr_set");
  }

  /// Adds a rule; a call this libseccomp or this architecture does not know is passed over, for it
  /// then gets the filter's default.
  template <class... Arguments>
  void rule(std::uint32_t action, const char* call, Arguments... arguments) {
    int number = seccomp_syscall_resolve_name(call);
    if (number == __NR_SCMP_ERROR || number < 0)
      return;
    check(seccomp_rule_add(context_.get(), action, number, sizeof...(arguments), arguments...),
          call);
  }

  [[nodiscard]] std::vector<sock_filter> instructions() const {
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0)
      throw std::system_error(errno, std::generic_category(), "memfd_create");
    int result = seccomp_export_bpf(context_.get(), fd);
    auto size = lseek(fd, 0, SEEK_END);
    std::vector<sock_filter> program(static_cast<std::size_t>(size) / sizeof(sock_filter));
    auto got = pread(fd, program.data(), program.size() * sizeof(sock_filter), 0);
    close(fd);
    check(result, "seccomp_export_bpf");
    check(got == size ? 0 : -EIO, "seccomp_export_bpf");
    return program;
  }

private:
  struct release {
    void operator()(void* context) const { seccomp_release(context); }
  };
  std::unique_ptr<void, release> context_;
};

/// What is refused for one value of an argument; lets everything else through to the allow-list.
filter refusals() {
  filter list(SCMP_ACT_ALLOW);
  const auto refuse = SCMP_ACT_ERRNO(EPERM);
  // Typing into a terminal that is not the job's own.
  list.rule(refuse, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, low_half, TIOCSTI));
  list.rule(refuse, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, low_half, TIOCLINUX));
  for (unsigned long bit = 1; bit <= namespace_flags; bit <<= 1)
    if ((namespace_flags & bit) != 0)
      list.rule(refuse, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit));
  // A job that sheds its sub-reaper could leave processes that are not known as its own.
  list.rule(refuse, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, low_half, PR_SET_CHILD_SUBREAPER),
            SCMP_A1(SCMP_CMP_EQ, 0));
  // Devices need a capability too, which nobody in a machine has.
  list.rule(refuse, "mknod", SCMP_A1(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFCHR));
  list.rule(refuse, "mknod", SCMP_A1(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFBLK));
  list.rule(refuse, "mknodat", SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFCHR));
  list.rule(refuse, "mknodat", SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFBLK));
  return list;
}

/// What is allowed of the calls whose arguments count.
filter allowances() {
  filter list(SCMP_ACT_ERRNO(ENOSYS));
  for (const char* call : {"ioctl", "clone", "mknod", "mknodat"})
    list.rule(SCMP_ACT_ALLOW, call);
  // Not clone3: flags behind a pointer cannot be checked, and the C library then uses clone.
  for (unsigned option : allowed_prctl)
    list.rule(SCMP_ACT_ALLOW, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, low_half, option));
  list.rule(SCMP_ACT_ALLOW, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, low_half, PR_SET_CHILD_SUBREAPER));
  // The query and the ordinary personality; any other weakens address randomisation or worse.
  list.rule(SCMP_ACT_ALLOW, "personality", SCMP_A0(SCMP_CMP_EQ, 0));
  list.rule(SCMP_ACT_ALLOW, "personality", SCMP_A0(SCMP_CMP_EQ, low_half));
  list.rule(SCMP_ACT_ERRNO(EPERM), "personality", SCMP_A0(SCMP_CMP_GT, low_half));
  // Families: a network namespace does not hold AF_VSOCK, so this rule alone does.
  for (const char* call : {"socket", "socketpair"}) {
    for (unsigned family : {AF_UNIX, AF_INET, AF_INET6})
      list.rule(SCMP_ACT_ALLOW, call, SCMP_A0(SCMP_CMP_EQ, family));
    for (unsigned family = 0; family < AF_INET6; ++family)
      if (family != AF_UNIX && family != AF_INET)
        list.rule(SCMP_ACT_ERRNO(EAFNOSUPPORT), call, SCMP_A0(SCMP_CMP_EQ, family));
    list.rule(SCMP_ACT_ERRNO(EAFNOSUPPORT), call, SCMP_A0(SCMP_CMP_GT, AF_INET6));
  }
  return list;
}

/// What becomes of a call by its number alone. The last one is no instruction: what follows
/// decides.
enum verdict : std::size_t { absent, allowed, refused, ignored, killed, by_arguments };
constexpr std::uint32_t verdict_values[] = {SECCOMP_RET_ERRNO | ENOSYS, SECCOMP_RET_ALLOW,
                                            SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ERRNO | 0,
                                            SECCOMP_RET_KILL_PROCESS};

/// Calls from a number on, up to the next entry's.
struct call_range {
  std::uint32_t first;
  verdict what;
};

std::vector<call_range> call_ranges() {
  std::map<std::uint32_t, verdict> calls;
  auto set = [&](const char* call, verdict what) {
    // A call this libseccomp or this architecture does not know stays absent.
    if (int number = seccomp_syscall_resolve_name(call); number >= 0)
      calls[static_cast<std::uint32_t>(number)] = what;
  };
  for (const char* call : allowed_calls)
    set(call, allowed);
  for (const char* call : refused_calls)
    set(call, refused);
  // Would wait for every disk of the host; what the machine wrote is in memory.
  set("sync", ignored);
  for (const char* call : argument_calls)
    set(call, by_arguments);
  std::vector<call_range> ranges{{0, absent}};
  auto begin = [&](std::uint32_t number, verdict what) {
    if (ranges.back().first == number)
      ranges.back().what = what;
    else if (ranges.back().what != what)
      ranges.push_back({number, what});
  };
  std::uint32_t next = 0;
  for (auto [number, what] : calls) {
    if (number != next)
      begin(next, absent);
    begin(number, what);
    next = number + 1;
  }
  begin(next, absent);
#ifdef __X32_SYSCALL_BIT
  begin(__X32_SYSCALL_BIT, killed);
  // What a program gets that asks for no call at all.
  begin(UINT32_MAX, absent);
#endif
  return ranges;
}

/// Decides by number: a search tree with one jump for each border between ranges, then a return for
/// each verdict. The kernel translates a filter anew for every process that takes it on, so its
/// length is a price of every machine.
class number_filter {
public:
  explicit number_filter(std::vector<call_range> ranges)
    : ranges_(std::move(ranges))
    , tree_(ranges_.size() - 1) {
    branch(0, ranges_.size());
    check(tree_.size() + std::size(verdict_values) < jump_max ? 0 : -E2BIG, "search tree");
  }

  [[nodiscard]] std::vector<sock_filter> instructions() const {
    const auto kill = SECCOMP_RET_KILL_PROCESS;
    std::vector<sock_filter> program{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, seccomp_arch_native(), 1, 0),
        BPF_STMT(BPF_RET | BPF_K, kill),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    program.insert(program.end(), tree_.begin(), tree_.end());
    for (std::uint32_t value : verdict_values)
      program.push_back(BPF_STMT(BPF_RET | BPF_K, value));
    return program;
  }

private:
  /// How far a conditional jump reaches.
  static constexpr std::size_t jump_max = 256;

  /// Where the instruction is that decides between these ranges.
  std::size_t branch(std::size_t from, std::size_t to) {
    if (to - from == 1)
      return tree_.size() + ranges_[from].what;
    std::size_t here = next_++;
    std::size_t middle = (from + to) / 2;
    std::size_t below = branch(from, middle);
    std::size_t above = branch(middle, to);
    auto distance = [here](std::size_t target) { return static_cast<__u8>(target - here - 1); };
    tree_[here] = BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges_[middle].first, distance(above),
                           distance(below));
    return here;
  }

  std::vector<call_range> ranges_;
  std::vector<sock_filter> tree_;
  std::size_t next_ = 0;
};

} // namespace

std::vector<char> build_seccomp_program() {
  auto program = number_filter{call_ranges()}.instructions();
  auto first = refusals().instructions();
  const auto second = allowances().instructions();
  // The first list's "allow" becomes a jump to the second's beginning.
  for (std::size_t i = 0; i < first.size(); ++i)
    if (first[i].code == (BPF_RET | BPF_K) && first[i].k == SECCOMP_RET_ALLOW)
      first[i] = BPF_STMT(BPF_JMP | BPF_JA, static_cast<__u32>(first.size() - i - 1));
  program.insert(program.end(), first.begin(), first.end());
  program.insert(program.end(), second.begin(), second.end());
  std::vector<char> bytes(program.size() * sizeof(sock_filter));
  std::memcpy(bytes.data(), program.data(), bytes.size());
  return bytes;
}

} // namespace berth::machines
