// SPDX-License-Identifier: Apache-2.0
#include "bench/process.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <spawn.h>
#include <sstream>
#include <thread>
#include <unistd.h>

namespace berth::bench {

void pause_for(std::chrono::microseconds time) {
  auto until = clock::now() + time;
  for (;;) {
    check_stop();
    auto left = until - clock::now();
    if (left <= clock::duration::zero())
      return;
    std::this_thread::sleep_for(std::min<clock::duration>(left, milliseconds{100}));
  }
}

namespace {

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (const auto& text : texts)
    all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

/// A pipe whose ends close with it.
struct pipe_pair {
  std::array<int, 2> ends{-1, -1};
  pipe_pair() {
    if (pipe2(ends.data(), O_CLOEXEC) != 0)
      throw failure{std::string{"pipe: "} + std::strerror(errno)};
  }
  ~pipe_pair() {
    close_end(0);
    close_end(1);
  }
  pipe_pair(const pipe_pair&) = delete;
  pipe_pair& operator=(const pipe_pair&) = delete;
  void close_end(std::size_t which) {
    if (ends[which] >= 0)
      close(ends[which]);
    ends[which] = -1;
  }
};

/// The file actions of one command.
class actions {
public:
  actions(int out, int err, const std::string& directory) {
    posix_spawn_file_actions_init(&value_);
    posix_spawn_file_actions_addopen(&value_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&value_, out, 1);
    posix_spawn_file_actions_adddup2(&value_, err, 2);
    if (!directory.empty())
      posix_spawn_file_actions_addchdir_np(&value_, directory.c_str());
  }
  ~actions() { posix_spawn_file_actions_destroy(&value_); }
  actions(const actions&) = delete;
  actions& operator=(const actions&) = delete;
  const posix_spawn_file_actions_t* get() const { return &value_; }

private:
  posix_spawn_file_actions_t value_;
};

/// Reads both pipes to their ends. False when the time was up first.
bool drain(pipe_pair& out, pipe_pair& err, command_result& result, clock::time_point until) {
  std::array<char, 16384> buffer;
  while (out.ends[0] >= 0 || err.ends[0] >= 0) {
    if (stop_wanted || clock::now() >= until)
      return false;
    std::array<pollfd, 2> waits{pollfd{out.ends[0], POLLIN, 0}, pollfd{err.ends[0], POLLIN, 0}};
    if (poll(waits.data(), waits.size(), 100) <= 0)
      continue;
    auto take = [&](const pollfd& one, pipe_pair& from, std::string& to) {
      if (one.revents == 0)
        return;
      ssize_t got = read(from.ends[0], buffer.data(), buffer.size());
      if (got > 0)
        to.append(buffer.data(), static_cast<std::size_t>(got));
      else
        from.close_end(0);
    };
    take(waits[0], out, result.out);
    take(waits[1], err, result.err);
  }
  return true;
}

} // namespace

command_result run_command(const std::vector<std::string>& argv,
                           const std::vector<std::string>& env, const std::string& directory,
                           milliseconds limit) {
  check_stop();
  pipe_pair out, err;
  actions files{out.ends[1], err.ends[1], directory};
  auto arguments = pointers(argv);
  auto environment = pointers(env);
  command_result result;
  auto begin = clock::now();
  pid_t pid = -1;
  int error = posix_spawn(&pid, argv[0].c_str(), files.get(), nullptr, arguments.data(),
                          environment.data());
  if (error != 0)
    throw failure{argv[0] + ": " + std::strerror(error)};
  out.close_end(1);
  err.close_end(1);
  bool ended = drain(out, err, result, begin + limit);
  if (!ended)
    kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.wall_ms = ms_since(begin);
  check_stop();
  if (!ended)
    throw failure{argv[0] + " did not end within " + std::to_string(limit.count()) + " ms"};
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

temporary_directory::temporary_directory() {
  const char* base = std::getenv("TMPDIR");
  std::string name = std::string{base && *base ? base : "/tmp"} + "/berth-bench-XXXXXX";
  if (mkdtemp(name.data()) == nullptr)
    throw failure{name + ": " + std::strerror(errno)};
  // The server gives up its user id and must still get through.
  std::filesystem::permissions(name, std::filesystem::perms{0711});
  path_ = name;
}

temporary_directory::~temporary_directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_text(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file{path, std::ios::binary | std::ios::trunc};
  file << text;
  if (!file.flush())
    throw failure{path + ": cannot be written"};
}

} // namespace berth::bench
