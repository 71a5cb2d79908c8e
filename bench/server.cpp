// SPDX-License-Identifier: Apache-2.0
#include "bench/server.hpp"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <netinet/in.h>
#include <unistd.h>

namespace berth::bench {

namespace fs = std::filesystem;

namespace {

/// TCP endpoints on loopback whose ports were free a moment ago.
std::vector<std::string> free_endpoints(std::size_t count) {
  std::vector<int> sockets;
  std::vector<std::string> endpoints;
  for (std::size_t i = 0; i < count; ++i) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockets.push_back(fd);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (fd < 0 || bind(fd, generic, size) != 0 || getsockname(fd, generic, &size) != 0)
      break;
    endpoints.push_back("tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
  }
  for (int fd : sockets)
    close(fd);
  if (endpoints.size() != count)
    throw failure{"no free TCP port"};
  return endpoints;
}

struct known_process {
  pid_t pid;
  std::uint64_t started;
};

std::vector<known_process> identify(const std::vector<pid_t>& pids) {
  std::vector<known_process> known;
  for (pid_t pid : pids)
    known.push_back({pid, start_ticks(pid)});
  return known;
}

/// Those that are still there when the time is over. Orphans are the bench's to reap.
std::vector<pid_t> alive_after(std::vector<known_process> known, milliseconds limit) {
  for (auto until = clock::now() + limit;; usleep(5'000)) {
    std::erase_if(known, [](const known_process& one) {
      return waitpid(one.pid, nullptr, WNOHANG) == one.pid || one.started == 0
             || start_ticks(one.pid) != one.started;
    });
    if (known.empty() || clock::now() >= until)
      break;
  }
  std::vector<pid_t> alive;
  for (const auto& one : known)
    alive.push_back(one.pid);
  return alive;
}

} // namespace

server::server(zmq::context_t& context, const std::string& executable, const json& config)
  : context_(context)
  , runtime_(place_.path() + "/run") {
  auto endpoints = free_endpoints(3);
  events_ = endpoints[1];
  http_port_ =
      static_cast<std::uint16_t>(std::stoul(endpoints[2].substr(endpoints[2].rfind(':') + 1)));
  json all{{"data_dir", place_.path() + "/data"},
           {"runtime_dir", runtime_},
           {"zmq_router", endpoints[0]},
           {"zmq_ipc", endpoint()},
           {"zmq_events", events_},
           {"http_port", http_port_},
           {"http_terraphim_port", 0},
           {"log_level", "warn"}};
  all.merge_patch(config);
  std::string file = place_.path() + "/berth.json";
  write_text(file, all.dump(2));
  launch(executable, file);
  try {
    wait_healthy();
  } catch (...) {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      wait_end(milliseconds{10'000});
    }
    throw;
  }
}

server::~server() {
  if (pid_ <= 0)
    return;
  kill(pid_, SIGTERM);
  if (!wait_end(milliseconds{15'000})) {
    kill(pid_, SIGKILL);
    wait_end(milliseconds{5'000});
  }
}

void server::launch(const std::string& executable, const std::string& config_file) {
  std::string log = place_.path() + "/log";
  int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0)
    throw failure{log + ": " + std::strerror(errno)};
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0); // the terminal's Ctrl-C is the bench's, which then stops the server in order
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(fd, 1);
    dup2(fd, 2);
    execl(executable.c_str(), executable.c_str(), "serve", "--config", config_file.c_str(),
          nullptr);
    _exit(127);
  }
  close(fd);
  if (pid_ < 0)
    throw failure{std::string{"fork: "} + std::strerror(errno)};
}

void server::wait_healthy() {
  client probe = connect(zmq::socket_type::dealer);
  probe.send("health", json::object());
  for (auto until = clock::now() + milliseconds{30'000}; clock::now() < until;) {
    if (wait_end(milliseconds::zero()))
      throw failure{"the server ended with status " + std::to_string(status_) + ": " + log_end()};
    try {
      health_ = probe.receive(milliseconds{50}).as<health_info>();
    } catch (const failure& none) {
      if (std::string_view{none.what()}.starts_with("no reply"))
        continue;
      throw;
    }
    if (health_.status == "healthy")
      return;
    pause_for(milliseconds{20});
    probe.send("health", json::object());
  }
  throw failure{"the server was not healthy within 30 s: " + log_end()};
}

bool server::wait_end(milliseconds limit) {
  for (auto until = clock::now() + limit;;) {
    pid_t ended = waitpid(pid_, &status_, WNOHANG);
    if (ended == pid_ || (ended < 0 && errno == ECHILD)) {
      pid_ = -1;
      return true;
    }
    if (clock::now() >= until)
      return false;
    usleep(2'000); // also when an interrupt ends the bench: it waits for its server
  }
}

std::string server::log_end() const {
  constexpr std::size_t shown = 2000;
  std::string log = read_text(place_.path() + "/log");
  return log.size() > shown ? "..." + log.substr(log.size() - shown) : log;
}

client server::connect(zmq::socket_type type) {
  return client{context_, endpoint(), type};
}

void server::settle(milliseconds limit) {
  client asks = connect();
  std::uint32_t idle_before = UINT32_MAX;
  int same = 0;
  for (auto until = clock::now() + limit; clock::now() < until;) {
    auto pool = asks.call<pool_info>("pool");
    bool quiet = pool.waiting == 0 && pool.machines == pool.idle + pool.sessions;
    same = quiet && pool.idle == idle_before ? same + 1 : 0;
    if (same >= 4)
      return;
    idle_before = pool.idle;
    pause_for(milliseconds{100});
  }
  throw failure{"the pool did not settle"};
}

std::uint32_t server::idle_machines() {
  return connect().call<pool_info>("pool").idle;
}

leftovers server::stop() {
  if (pid_ <= 0)
    throw failure{"the server is gone already"};
  auto tree = process_tree(pid_);
  tree.erase(tree.begin()); // itself is waited for
  auto known = identify(tree);
  auto instance = instance_names(pid_);
  kill(pid_, SIGTERM);
  if (!wait_end(milliseconds{20'000})) {
    std::string log = log_end();
    kill(pid_, SIGKILL);
    wait_end(milliseconds{5'000});
    throw failure{"the server did not stop within 20 s of SIGTERM: " + log};
  }
  leftovers left;
  if (!WIFEXITED(status_) || WEXITSTATUS(status_) != 0)
    left.push_back("wait status " + std::to_string(status_) + ": " + log_end());
  for (pid_t pid : alive_after(known, milliseconds{2'000}))
    left.push_back("process " + std::to_string(pid));
  if (read_text("/proc/self/mounts").find(place_.path()) != std::string::npos)
    left.push_back("mount below " + place_.path());
  for (const auto& group : cgroups_of(instance))
    left.push_back("cgroup " + group);
  std::error_code failed;
  for (const auto& entry : fs::recursive_directory_iterator{runtime_, failed})
    left.push_back("file " + entry.path().string());
  return left;
}

} // namespace berth::bench
