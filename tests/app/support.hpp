// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the tests of the whole program share: child processes, and a server with its own home.
namespace berth::test {

/// How long anything may take before a test is said to hang.
inline constexpr std::chrono::seconds hang_limit{90};

/// Waits until something is so, and says whether it became so within the limit.
bool eventually(const std::function<bool()>& is_so, std::chrono::milliseconds limit = hang_limit);

std::string content_of(const std::string& path);
void write_file(const std::string& path, std::string_view text);

/// A child process. Its outputs are kept in memory files, its input is a pipe; it dies with this.
class process {
public:
  explicit process(std::vector<std::string> argv,
                   const std::map<std::string, std::string>& environment = {});
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process();

  pid_t pid() const { return pid_; }
  void write(std::string_view text) const;
  void close_stdin();
  void signal(int number) const;

  /// What it wrote until now.
  std::string out() const;
  std::string err() const;

  /// Exit code, or 128 + the signal that ended it; none when it did not end in time.
  std::optional<int> wait(std::chrono::milliseconds limit = hang_limit);

private:
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  int errors_ = -1;
  std::optional<int> status_;
};

/// A process that ended.
struct ended {
  int code = -1;
  std::string out;
  std::string err;
};

/// Runs a program to its end. Its standard input is a pipe that holds `input`.
ended execute(std::vector<std::string> argv, std::string_view input = {},
              const std::map<std::string, std::string>& environment = {});

/// A directory for one server: settings, data, sockets. Removed with it.
class server_home {
public:
  /// For a server of this process's own user.
  server_home();
  /// For another user's; only root can.
  explicit server_home(uid_t owner);
  server_home(const server_home&) = delete;
  server_home& operator=(const server_home&) = delete;
  ~server_home();

  const std::string& path() const { return path_; }
  std::string runtime_dir() const { return path_ + "/run"; }
  /// Who is to run the server.
  uid_t owner() const { return owner_; }

private:
  std::string path_;
  uid_t owner_;
};

/// A process of the host, which a later process with the same number is not mistaken for.
struct host_process {
  pid_t pid = 0;
  unsigned long long started = 0;

  bool alive() const;
};

/// All processes below one, itself included.
std::vector<host_process> tree_of(pid_t root);

/// Directories of cgroups that bear an instance's id.
std::vector<std::string> groups_of(const std::string& instance);

/// A running `berth serve`. Its ports are chosen by the kernel.
class server {
public:
  /// Returns when it says where it listens and is healthy; a test fails where it does not. A home
  /// of another user's gets a copy of the program: that user may not see where it was built.
  explicit server(const server_home& home, const nlohmann::json& settings = {});
  server(const server&) = delete;
  server& operator=(const server&) = delete;
  /// Stops it, if it runs still, and waits until nothing of it is left. Aborts the test run where a
  /// sanitizer had something to say about the server.
  ~server();

  process& program() { return *program_; }
  const std::string& router() const { return router_; }
  const std::string& events() const { return events_; }
  const std::string& http() const { return http_; }
  /// Names of instances in the runtime directory: one, while it lives.
  std::vector<std::string> instances() const;
  /// Whether the host lets it count memory and processes by cgroups.
  bool has_cgroups() const;

  /// The command line, told where the server is.
  ended cli(std::vector<std::string> arguments, std::string_view input = {}) const;
  std::unique_ptr<process> cli_process(std::vector<std::string> arguments) const;
  /// A script for pyzmq, after the lines of client.py; it fails by an assertion.
  ended python(std::string_view script) const;
  std::unique_ptr<process> python_process(std::string_view script) const;
  /// curl: `arguments` before the URL. The body of the answer, with its status.
  std::pair<int, std::string> curl(const std::string& path,
                                   std::vector<std::string> arguments = {}) const;
  /// POST of JSON.
  std::pair<int, nlohmann::json> post(const std::string& path, const nlohmann::json& body) const;

private:
  std::map<std::string, std::string> environment() const;

  const server_home& home_;
  std::unique_ptr<process> program_;
  std::string router_;
  std::string ipc_;
  std::string events_;
  std::string http_;
};

/// Why no server can run here; empty when one can. A test returns after `skip` with it.
std::string no_server_reason();

/// The server that most tests share, started by the first of them. Its validator is off, so that
/// programs that misbehave get as far as the machine.
server& shared_server();

/// Fails the test where a script failed, and shows what it said.
#define REQUIRE_SCRIPT(server, script)                                                             \
  do {                                                                                             \
    auto script_ended = (server).python(script);                                                   \
    INFO(script_ended.out << script_ended.err);                                                    \
    REQUIRE(script_ended.code == 0);                                                               \
  } while (false)

/// The first lines of each case.
#define NEEDS_SERVER()                                                                             \
  do {                                                                                             \
    if (std::string reason = no_server_reason(); !reason.empty())                                  \
      return skip(reason);                                                                         \
  } while (false)

} // namespace berth::test
