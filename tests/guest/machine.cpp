// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

constexpr int silence_ms_max = 60000;
constexpr const char* guest_program = BERTH_BUILD_DIR "/lib/berth/berth-guest";

pid_t fork_into_namespaces() {
  long flags = SIGCHLD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC;
  return static_cast<pid_t>(syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
}

/// Runs in the machine's first process.
[[noreturn]] void become_guest(int channel) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // What is of the build is opened first: it may be below what is about to be covered.
  int program = open(guest_program, O_PATH | O_CLOEXEC);
  int lib = open(BERTH_BUILD_DIR "/lib/berth", O_PATH | O_CLOEXEC);
  bool ready = program >= 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
               && mount("proc", "/proc", "proc", 0, "hidepid=2") == 0
               && mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777") == 0;
  // What a cold interpreter runs is where a real machine has it.
  std::string lib_path = "/proc/self/fd/" + std::to_string(lib);
  if (mount("tmpfs", "/opt", "tmpfs", 0, "mode=755") == 0 && mkdir("/opt/berth", 0755) == 0)
    (void)mount(lib_path.c_str(), "/opt/berth", nullptr, MS_BIND, nullptr);
  mkdir("/tmp/work", 0777);
  chmod("/tmp/work", 0777);
  // The host need not have a /work; /mnt every Debian has, and the jobs name it.
  ready = ready && mount("/tmp/work", "/mnt", nullptr, MS_BIND, nullptr) == 0 && setgid(1000) == 0
          && setuid(1000) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
  if (!ready)
    _exit(90);
  dup2(channel, 3);
  dup2(program, 5);
  for (int fd : {0, 1, 2, 4})
    close(fd);
  syscall(SYS_close_range, 6U, ~0U, 0U);
  fcntl(5, F_SETFD, FD_CLOEXEC);
  char name[] = "berth-guest";
  char* argv[] = {name, nullptr};
  char* env[] = {nullptr};
  syscall(SYS_execveat, 5, "", argv, env, AT_EMPTY_PATH);
  _exit(91);
}

} // namespace

std::string no_machine_reason() {
  if (geteuid() != 0)
    return "namespaces with root's mounts need root";
  pid_t pid = fork_into_namespaces();
  if (pid == 0)
    _exit(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
                  && mount("proc", "/proc", "proc", 0, nullptr) == 0
              ? 0
              : 1);
  if (pid < 0)
    return std::string{"namespaces cannot be made: "} + std::strerror(errno);
  int status = 0;
  waitpid(pid, &status, 0);
  return status == 0 ? std::string{} : "nothing can be mounted in a new namespace";
}

machine::machine() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("socketpair");
  pid_ = fork_into_namespaces();
  if (pid_ == 0)
    become_guest(ends[1]);
  close(ends[1]);
  channel_ = ends[0];
  if (pid_ < 0)
    throw std::runtime_error("no machine");
}

machine::~machine() {
  close(channel_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

int machine::wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void machine::send_bytes(const bytes& data) {
  std::size_t done = 0;
  while (done < data.size()) {
    ssize_t count = ::send(channel_, data.data() + done, data.size() - done, MSG_NOSIGNAL);
    if (count <= 0)
      return;
    done += static_cast<std::size_t>(count);
  }
}

std::optional<guest::from_guest> machine::next() {
  while (true) {
    if (auto body = cutter_.next()) {
      auto frame = guest::decode_frame<guest::from_guest>(*body);
      if (!frame)
        throw std::runtime_error(frame.why().text());
      return std::move(*frame);
    }
    pollfd wait{channel_, POLLIN, 0};
    if (poll(&wait, 1, silence_ms_max) == 0)
      throw std::runtime_error("the guest says nothing");
    char buffer[65536];
    ssize_t count = ::recv(channel_, buffer, sizeof buffer, 0);
    if (count <= 0)
      return std::nullopt;
    cutter_.push({buffer, static_cast<std::size_t>(count)});
  }
}

guest::from_guest machine::must_next() {
  auto frame = next();
  if (!frame)
    throw std::runtime_error("the guest is gone");
  return std::move(*frame);
}

guest::start_job machine::job(std::string language, std::string code) {
  guest::start_job start;
  start.job = ++jobs_;
  start.language = std::move(language);
  start.code = std::move(code);
  start.cwd = "/mnt";
  start.output_bytes = 1 << 20;
  return start;
}

job_result machine::run(const guest::start_job& start) {
  send(start);
  return gather(start.job);
}

job_result machine::gather(std::uint32_t number) {
  job_result result;
  while (!result.ended && !result.refused) {
    auto frame = must_next();
    if (auto* started = std::get_if<guest::job_started>(&frame); started && started->job == number)
      result.started = *started;
    else if (auto* out = std::get_if<guest::output>(&frame); out && out->job == number)
      (out->stream == guest::stdout_stream ? result.out : result.err)
          .append(out->data.begin(), out->data.end());
    else if (auto* ended = std::get_if<guest::job_ended>(&frame); ended && ended->job == number)
      result.ended = *ended;
    else if (auto* no = std::get_if<guest::job_refused>(&frame); no && no->job == number)
      result.refused = *no;
    else if (auto* chunk = std::get_if<guest::binary>(&frame); chunk && chunk->job == number)
      result.compiled.append(chunk->data.begin(), chunk->data.end());
    else if (auto* taken = std::get_if<guest::stdin_taken>(&frame); taken && taken->job == number)
      result.input_taken += taken->bytes_taken;
  }
  return result;
}

std::string cell_result::value() const {
  if (ended)
    for (const rich_result& each : ended->report.results)
      if (each.is_main_result && each.data.contains("text/plain"))
        return each.data.at("text/plain");
  return {};
}

std::string machine::open(const std::string& context, const std::string& language,
                          const std::string& cwd) {
  send(guest::open_kernel{.context = context, .language = language, .cwd = cwd});
  auto opened = expect<guest::kernel_opened>();
  return opened.context == context ? opened.error : "another context: " + opened.context;
}

guest::run_cell machine::cell(const std::string& context, std::string code) {
  return {.job = ++jobs_,
          .context = context,
          .code = std::move(code),
          .stdin_open = false,
          .output_bytes = 1 << 20};
}

cell_result machine::run(const guest::run_cell& request) {
  send(request);
  return gather_cell(request.job);
}

cell_result machine::gather_cell(std::uint32_t number) {
  cell_result result;
  while (!result.ended && !result.refused) {
    auto frame = must_next();
    if (auto* out = std::get_if<guest::output>(&frame); out && out->job == number)
      (out->stream == guest::stdout_stream ? result.out : result.err)
          .append(out->data.begin(), out->data.end());
    else if (auto* end = std::get_if<guest::cell_ended>(&frame); end && end->ended.job == number)
      result.ended = *end;
    else if (auto* no = std::get_if<guest::job_refused>(&frame); no && no->job == number)
      result.refused = *no;
  }
  return result;
}

std::string machine::output_until(std::uint32_t number, std::string_view text) {
  std::string all;
  while (all.find(text) == std::string::npos) {
    auto frame = must_next();
    if (auto* out = std::get_if<guest::output>(&frame); out && out->job == number)
      all.append(out->data.begin(), out->data.end());
    else if (std::holds_alternative<guest::cell_ended>(frame))
      throw std::runtime_error("the cell ended before it said it: " + all);
  }
  return all;
}

guest::kernel_ended machine::end_of(const std::string& context) {
  while (true) {
    auto frame = must_next();
    if (auto* ended = std::get_if<guest::kernel_ended>(&frame); ended && ended->context == context)
      return *ended;
  }
}

std::size_t machine::processes() const {
  std::ifstream children{"/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_)
                         + "/children"};
  std::size_t count = 1;
  std::string pid;
  while (children >> pid)
    ++count;
  return count;
}

void machine::sleep_through_a_job() {
  kill(pid_, SIGSTOP);
  std::string task = "/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_);
  bool died = false;
  while (!died) {
    std::ifstream children{task + "/children"};
    for (std::string child; children >> child;) {
      std::ifstream status{"/proc/" + child + "/status"};
      for (std::string word; status >> word;)
        died = died || word == "(zombie)";
    }
    usleep(10'000);
  }
  kill(pid_, SIGCONT);
}

std::size_t machine::guest_memory_kib() const {
  std::ifstream status{"/proc/" + std::to_string(pid_) + "/status"};
  std::string word;
  std::size_t kib = 0;
  while (status >> word)
    if (word == "VmRSS:")
      status >> kib;
  return kib;
}

} // namespace berth::test
