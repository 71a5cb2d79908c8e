// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/namespace/templates/harness.hpp"

#include "machines/namespace/confine/seccomp_policy.hpp"

#include <linux/sched.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <system_error>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <sched.h>
#include <stdexcept>
#include <unistd.h>

namespace berth::test {

namespace {

constexpr int hang_limit_ms = 60'000;
constexpr std::uint32_t machine_namespaces =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

/// The id machines have outside: one of their own, or in a user namespace of one id that one.
std::uint32_t machine_uid() {
  // Looked up once: a machine on its way has no /proc for a while.
  static const std::uint32_t uid = [] {
    std::ifstream map("/proc/self/uid_map");
    unsigned long inside = 0;
    unsigned long outside = 0;
    unsigned long count = 0;
    map >> inside >> outside >> count;
    return count > 210'077 ? 210'077U : 0U;
  }();
  return uid;
}

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// In a machine's first process: nothing may throw.
void must(bool good, const char* what) {
  if (good)
    return;
  dprintf(2, "bare machine: %s: %s\n", what, strerror(errno));
  _exit(120);
}

void write_text(const char* path, const char* text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  must(fd >= 0 && write(fd, text, strlen(text)) >= 0, path);
  close(fd);
}

void own_directory(const char* path) {
  must(mkdir(path, 0755) == 0, path);
  must(chown(path, machine_uid(), machine_uid()) == 0, path);
}

/// Binds a host file or directory, read-only for directories.
void bind(const char* from, const char* to, unsigned long flags) {
  must(mount(from, to, nullptr, MS_BIND | MS_REC, nullptr) == 0, to);
  if (flags != 0)
    must(mount(nullptr, to, nullptr, MS_BIND | MS_REMOUNT | flags, nullptr) == 0, to);
}

void build_root() {
  must(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private");
  must(mount("berth", "/mnt", "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=755") == 0, "tmpfs");
  // As in a real machine the tree hangs below a base that stays.
  must(chdir("/mnt") == 0 && mkdir("old", 0755) == 0 && mkdir("machine", 0755) == 0
           && mkdir("machine/root", 0755) == 0
           && mount("machine/root", "machine/root", nullptr, MS_BIND, nullptr) == 0
           && chdir("machine/root") == 0,
       "base");
  for (const char* path : {"usr", "etc", "dev", "proc", "var", "home", "run", "opt", "dev/shm",
                           "etc/alternatives", "opt/berth"})
    must(mkdir(path, 0755) == 0, path);
  for (const char* path : {"work", "tmp", "var/tmp", "home/agent"})
    own_directory(path);
  must(chmod("dev/shm", 01777) == 0, "shm");
  for (const char* path : {"bin", "sbin", "lib", "lib64"})
    must(symlink((std::string("usr/") + path).c_str(), path) == 0, path);
  write_text("etc/passwd", "agent:x:1000:1000::/home/agent:/bin/bash\n");
  write_text("etc/group", "agent:x:1000:\n");
  write_text("etc/ld.so.cache", "");
  bind("/usr", "usr", MS_RDONLY | MS_NOSUID | MS_NODEV);
  bind("/etc/alternatives", "etc/alternatives", MS_RDONLY | MS_NOSUID | MS_NODEV);
  bind("/etc/ld.so.cache", "etc/ld.so.cache", 0);
  bind(BERTH_BUILD_DIR "/lib/berth", "opt/berth", MS_RDONLY | MS_NOSUID | MS_NODEV);
  for (const char* node : {"null", "zero", "full", "random", "urandom"}) {
    auto from = std::string("/dev/") + node;
    write_text(from.c_str() + 1, "");
    bind(from.c_str(), from.c_str() + 1, 0);
  }
  must(symlink("/proc/self/fd", "dev/fd") == 0, "dev/fd");
  must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid,hidepid=2") == 0,
       "proc");
  must(chdir("/mnt") == 0 && syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0,
       "pivot_root");
  must(umount2("/old", MNT_DETACH) == 0, "umount");
}

void confine_self() {
  auto confinement = guest_confinement();
  confinement.tree = "/machine/root";
  confinement.anchor = open("/machine", O_PATH | O_CLOEXEC);
  const char* step = "";
  int error = berth_confine(&confinement, &step);
  errno = -error;
  must(error == 0, step);
}

/// The first process of a bare machine: reaps, and reports each child as {pid, status}.
[[noreturn]] void reap_for_ever(int reports) {
  for (;;) {
    int status = 0;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0) {
      // No child now; the next one comes from outside, without a word.
      timespec moment{0, 500'000};
      nanosleep(&moment, nullptr);
      continue;
    }
    int report[2] = {pid, status};
    if (send(reports, report, sizeof(report), MSG_NOSIGNAL) < 0)
      _exit(0);
  }
}

pid_t clone_machine(int& pidfd) {
  clone_args args{};
  args.flags = CLONE_PIDFD | machine_namespaces;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  return static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof(args)));
}

void socket_pair(owned_fd& ours, owned_fd& theirs, int type = SOCK_SEQPACKET) {
  int pair[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) != 0)
    fail("socketpair");
  ours.reset(pair[0]);
  theirs.reset(pair[1]);
}

void send_with(int socket, const void* data, std::size_t size, const std::vector<int>& fds) {
  std::array<char, CMSG_SPACE(sizeof(int) * 8)> control{};
  iovec part{const_cast<void*>(data), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
    fail("sendmsg");
}

/// recv with the hang limit; 0 or less means that the other end is gone.
ssize_t await_message(int socket, void* data, std::size_t size) {
  pollfd ready{socket, POLLIN, 0};
  if (poll(&ready, 1, hang_limit_ms) != 1)
    throw std::runtime_error("no message came within the hang limit");
  return recv(socket, data, size, 0);
}

owned_fd memory_file(const std::string& content) {
  owned_fd file(memfd_create("berth-test", MFD_CLOEXEC));
  if (file.get() < 0 || write(file.get(), content.data(), content.size()) < 0)
    fail("memfd");
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (auto& word : words)
    result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

/// Feeds and drains a job's streams until both outputs end.
void pump(running_job& job, const std::string& input, job_outcome& outcome) {
  std::size_t written = 0;
  if (input.empty())
    job.in.reset();
  bool out_open = true;
  bool err_open = true;
  while (out_open || err_open) {
    std::array<pollfd, 3> ready{pollfd{out_open ? job.out.get() : -1, POLLIN, 0},
                                pollfd{err_open ? job.err.get() : -1, POLLIN, 0},
                                pollfd{job.in.get(), POLLOUT, 0}};
    if (poll(ready.data(), ready.size(), hang_limit_ms) <= 0)
      throw std::runtime_error("the job neither ended nor wrote within the hang limit");
    auto drain = [](const pollfd& from, bool& open, std::string& to) {
      if (from.fd < 0 || from.revents == 0)
        return;
      std::array<char, 65'536> buffer{};
      auto got = read(from.fd, buffer.data(), buffer.size());
      if (got <= 0)
        open = false;
      else
        to.append(buffer.data(), static_cast<std::size_t>(got));
    };
    drain(ready[0], out_open, outcome.out);
    drain(ready[1], err_open, outcome.err);
    if (ready[2].fd >= 0 && ready[2].revents != 0) {
      auto put = write(job.in.get(), input.data() + written, input.size() - written);
      written += put > 0 ? static_cast<std::size_t>(put) : 0;
      if (put <= 0 || written == input.size())
        job.in.reset();
    }
  }
}

int plain_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

struct job_pipes {
  running_job outer;
  owned_fd in;
  owned_fd out;
  owned_fd err;
};

job_pipes make_pipes() {
  job_pipes pipes;
  int ends[2];
  auto make = [&](owned_fd& reading, owned_fd& writing) {
    if (pipe2(ends, O_CLOEXEC) != 0)
      fail("pipe2");
    reading.reset(ends[0]);
    writing.reset(ends[1]);
  };
  make(pipes.in, pipes.outer.in);
  make(pipes.outer.out, pipes.out);
  make(pipes.outer.err, pipes.err);
  return pipes;
}

} // namespace

owned_fd& owned_fd::operator=(owned_fd&& other) noexcept {
  if (this != &other)
    reset(other.release());
  return *this;
}

int owned_fd::release() {
  int fd = fd_;
  fd_ = -1;
  return fd;
}

void owned_fd::reset(int fd) {
  if (fd_ >= 0)
    close(fd_);
  fd_ = fd;
}

const std::vector<char>& seccomp_program() {
  static const auto program = machines::build_seccomp_program();
  return program;
}

berth_confinement guest_confinement() {
  const auto& program = seccomp_program();
  berth_confinement confinement{};
  confinement.flags = BERTH_CONFINE_NEW_USER_NS;
  confinement.uid = machine_uid();
  confinement.gid = machine_uid();
  confinement.inside_uid = 1000;
  confinement.inside_gid = 1000;
  confinement.oom_score_adj = 100;
  confinement.nofile = 1024;
  confinement.nproc = 512;
  confinement.address_space = BERTH_LIMIT_KEEP;
  confinement.file_size = BERTH_LIMIT_KEEP;
  confinement.filter = reinterpret_cast<const sock_filter*>(program.data());
  confinement.filter_length = static_cast<std::uint16_t>(program.size() / sizeof(sock_filter));
  return confinement;
}

std::string machine_obstacle() {
  if (geteuid() != 0)
    return "making a machine in this test needs root";
  int pidfd = -1;
  pid_t pid = clone_machine(pidfd);
  if (pid == 0)
    _exit(0);
  if (pid < 0)
    return std::string("namespaces cannot be made here: ") + strerror(errno);
  close(pidfd);
  waitpid(pid, nullptr, 0);
  return "";
}

bare_machine::bare_machine() {
  owned_fd inner;
  socket_pair(reports_, inner);
  (void)seccomp_program();
  int pidfd = -1;
  init_ = clone_machine(pidfd);
  if (init_ < 0)
    fail("clone3");
  if (init_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    build_root();
    dup2(inner.get(), 3);
    close_range(4, ~0U, 0);
    confine_self();
    int ready[2] = {0, 0};
    send(3, ready, sizeof(ready), MSG_NOSIGNAL);
    reap_for_ever(3);
  }
  pidfd_.reset(pidfd);
  inner.reset();
  int ready[2];
  if (await_message(reports_.get(), ready, sizeof(ready)) != sizeof(ready))
    throw std::runtime_error("the machine did not start");
}

bare_machine::~bare_machine() {
  kill(init_, SIGKILL);
  waitpid(init_, nullptr, 0);
}

int bare_machine::wait_for(pid_t pid) {
  for (;;) {
    int report[2];
    if (await_message(reports_.get(), report, sizeof(report)) != sizeof(report))
      throw std::runtime_error("the machine is gone");
    if (report[0] == pid)
      return report[1];
  }
}

template_process::template_process(std::vector<std::string> command, std::vector<std::string> env) {
  owned_fd inner;
  socket_pair(socket_, inner);
  const auto& program = seccomp_program();
  auto filter = memory_file({program.data(), program.size()});
  auto argv = pointers(command);
  auto envp = pointers(env);
  pid_ = fork();
  if (pid_ < 0)
    fail("fork");
  if (pid_ == 0) {
    int socket = fcntl(inner.get(), F_DUPFD, 10);
    int rules = fcntl(filter.get(), F_DUPFD, 10);
    dup2(socket, BERTH_TEMPLATE_FD);
    dup2(rules, BERTH_TEMPLATE_FILTER_FD);
    close_range(BERTH_TEMPLATE_FILTER_FD + 1, ~0U, 0);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  inner.reset();
  char letter = 0;
  if (await_message(socket_.get(), &letter, 1) != 1 || letter != BERTH_TEMPLATE_READY)
    throw std::runtime_error("the template did not start");
}

template_process::~template_process() {
  socket_.reset();
  waitpid(pid_, nullptr, 0);
}

berth_inject_reply template_process::inject_into(int pidfd, interpreter& into) {
  berth_inject_request request{};
  request.letter = BERTH_INJECT;
  request.namespaces = machine_namespaces | CLONE_NEWUSER;
  request.uid = 1000;
  request.gid = 1000;
  request.oom_score_adj = 500;
  request.nofile = 1024;
  request.nproc = 512;
  request.address_space = BERTH_LIMIT_KEEP;
  request.file_size = BERTH_LIMIT_KEEP;
  owned_fd inner;
  socket_pair(into.control, inner);
  send_with(socket_.get(), &request, sizeof(request), {pidfd, inner.get()});
  inner.reset();
  berth_inject_reply reply{};
  if (await_message(socket_.get(), &reply, sizeof(reply)) != sizeof(reply))
    throw std::runtime_error("the template is gone");
  return reply;
}

bool await_ready(interpreter& warm) {
  berth_warm_ready ready{};
  if (await_message(warm.control.get(), &ready, sizeof(ready)) != sizeof(ready)
      || ready.letter != BERTH_WARM_READY)
    return false;
  warm.pid = ready.pid;
  return true;
}

interpreter fork_interpreter(const interpreter& from) {
  interpreter next;
  owned_fd inner;
  socket_pair(next.control, inner);
  char letter = BERTH_FORK;
  send_with(from.control.get(), &letter, 1, {inner.get()});
  inner.reset();
  if (!await_ready(next))
    throw std::runtime_error("the interpreter did not fork");
  return next;
}

running_job start_job(const interpreter& warm, const std::string& description) {
  auto pipes = make_pipes();
  auto file = memory_file(description);
  char letter = BERTH_RUN;
  send_with(warm.control.get(), &letter, 1,
            {pipes.in.get(), pipes.out.get(), pipes.err.get(), file.get()});
  return std::move(pipes.outer);
}

job_outcome run_job(bare_machine& machine, const interpreter& warm, const std::string& description,
                    const std::string& input) {
  job_outcome outcome;
  auto job = start_job(warm, description);
  pump(job, input, outcome);
  outcome.status = plain_status(machine.wait_for(warm.pid));
  return outcome;
}

std::string describe_job(const std::string& code, const std::vector<std::string>& args,
                         const std::string& env_json, const std::string& name,
                         const std::string& cwd) {
  nlohmann::json job{{"code", code}, {"args", args}, {"cwd", cwd}};
  job["env"] = nlohmann::json::parse(env_json);
  if (!name.empty())
    job["name"] = name;
  return job.dump();
}

job_outcome run_cold(const std::vector<std::string>& command, const std::string& description,
                     const std::string& input) {
  auto pipes = make_pipes();
  auto file = memory_file(description);
  auto words = command;
  auto argv = pointers(words);
  (void)seccomp_program();
  int pidfd = -1;
  pid_t pid = clone_machine(pidfd);
  if (pid < 0)
    fail("clone3");
  if (pid == 0) {
    // The first process of a pid namespace ignores signals sent from within: the job is its child.
    build_root();
    int streams[4] = {pipes.in.get(), pipes.out.get(), pipes.err.get(), file.get()};
    for (int& stream : streams)
      stream = fcntl(stream, F_DUPFD, 20);
    for (int i = 0; i < 4; ++i)
      dup2(streams[i], i);
    close_range(4, ~0U, 0);
    confine_self();
    pid_t job = fork();
    if (job == 0) {
      char* none[] = {nullptr};
      execve(argv[0], argv.data(), none);
      _exit(127);
    }
    close_range(0, ~0U, 0);
    int status = 0;
    waitpid(job, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  close(pidfd);
  pipes.in.reset();
  pipes.out.reset();
  pipes.err.reset();
  job_outcome outcome;
  pump(pipes.outer, input, outcome);
  int status = 0;
  waitpid(pid, &status, 0);
  outcome.status = plain_status(status);
  return outcome;
}

} // namespace berth::test
