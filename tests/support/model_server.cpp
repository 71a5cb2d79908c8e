// SPDX-License-Identifier: Apache-2.0
#include "tests/support/model_server.hpp"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <arpa/inet.h>
#include <csignal>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdexcept>
#include <unistd.h>

namespace berth::test {

namespace {

[[noreturn]] void become(int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(out, STDOUT_FILENO);
  ::execl("/usr/bin/python3", "python3", BERTH_SOURCE_DIR "/tests/support/model_server.py",
          nullptr);
  ::_exit(127);
}

/// All that comes until the other side closes, or until a line's end when only one is wanted.
std::string read_from(int fd, bool one_line) {
  std::string all;
  char part[65536];
  while (!one_line || all.find('\n') == std::string::npos) {
    ssize_t got = ::read(fd, part, sizeof part);
    if (got <= 0)
      break;
    all.append(part, static_cast<std::size_t>(got));
  }
  return all;
}

int connect_to(std::uint16_t port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) {
    ::close(fd);
    throw std::runtime_error{"the model server does not answer"};
  }
  return fd;
}

} // namespace

model_server::model_server(const nlohmann::json& script) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0)
    throw std::runtime_error{"no pipe for the model server"};
  pid_ = ::fork();
  if (pid_ == 0)
    become(pipe[1]);
  ::close(pipe[1]);
  std::string line = read_from(pipe[0], true);
  ::close(pipe[0]);
  if (line.empty())
    throw std::runtime_error{"the model server did not start"};
  port_ = static_cast<std::uint16_t>(std::stoul(line));
  play(script);
}

model_server::~model_server() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string model_server::url() const {
  return "http://127.0.0.1:" + std::to_string(port_);
}

void model_server::play(const nlohmann::json& script) const {
  call("POST", "/script", script.dump());
}

nlohmann::json model_server::requests() const {
  return call("GET", "/requests");
}

void model_server::forget() const {
  call("DELETE", "/requests");
}

nlohmann::json model_server::state() const {
  return call("GET", "/state");
}

void model_server::release(const std::string& name) const {
  call("POST", "/release/" + name);
}

nlohmann::json model_server::call(std::string_view method, const std::string& path,
                                  const std::string& body) const {
  std::string asked{method};
  asked += " " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: "
           + std::to_string(body.size()) + "\r\n\r\n" + body;
  int fd = connect_to(port_);
  bool sent =
      ::send(fd, asked.data(), asked.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(asked.size());
  std::string answer = sent ? read_from(fd, false) : std::string{};
  ::close(fd);
  auto head = answer.find("\r\n\r\n");
  if (head == std::string::npos || !answer.starts_with("HTTP/1.1 200"))
    throw std::runtime_error{"the model server refuses " + path + ": " + answer};
  return nlohmann::json::parse(answer.substr(head + 4));
}

} // namespace berth::test
