// SPDX-License-Identifier: Apache-2.0
#include "machines/image/command.hpp"

#include "messages/fd.hpp"

#include <sys/mman.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>

namespace berth::machines {

namespace {

/// What tools are started with: nothing of the caller's that could make two builds differ, but for
/// how the network is reached.
constexpr const char* tool_path =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* passed_on[] = {"http_proxy", "https_proxy", "no_proxy", "TMPDIR", "HOME"};
/// How much of what a tool said is told when it failed.
constexpr std::size_t tail_bytes = 2'000;
constexpr std::size_t output_bytes_max = std::size_t{64} << 20;

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const auto& text : texts)
    out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> environment() {
  std::vector<std::string> all{tool_path, "LC_ALL=C.UTF-8", "TZ=UTC",
                               "DEBIAN_FRONTEND=noninteractive"};
  for (const char* name : passed_on)
    if (const char* value = std::getenv(name))
      all.push_back(std::string{name} + "=" + value);
  return all;
}

std::string content(const owned_fd& file) {
  std::string text;
  char block[64 * 1024];
  ssize_t count = 0;
  ::lseek(file.get(), 0, SEEK_SET);
  while (text.size() < output_bytes_max && (count = ::read(file.get(), block, sizeof block)) > 0)
    text.append(block, static_cast<std::size_t>(count));
  return text;
}

[[noreturn]] void become(const command& what, int input, int output, int errors, char** words,
                         char** variables) {
  if (::dup2(input, 0) < 0 || ::dup2(output, 1) < 0 || ::dup2(errors, 2) < 0
      || (!what.directory.empty() && ::chdir(what.directory.c_str()) != 0))
    ::_exit(126);
  ::close_range(3, ~0U, 0);
  ::execvpe(words[0], words, variables);
  ::_exit(127);
}

} // namespace

expected<std::string> run_command(const command& what) {
  const std::string name = what.words.front();
  owned_fd input{
      ::open(what.input.empty() ? "/dev/null" : what.input.c_str(), O_RDONLY | O_CLOEXEC)};
  owned_fd output{what.output.empty() ? ::memfd_create("output", MFD_CLOEXEC)
                                      : ::open(what.output.c_str(),
                                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  owned_fd errors{::memfd_create("errors", MFD_CLOEXEC)};
  if (!input || !output || !errors)
    return fail(ec::internal, name + ": cannot open its files: " + std::strerror(errno));
  auto words = pointers(what.words);
  const auto texts = environment();
  auto variables = pointers(texts);
  pid_t pid = ::fork();
  if (pid == 0)
    become(what, input.get(), output.get(), errors.get(), words.data(), variables.data());
  if (pid < 0)
    return fail(ec::internal, name + ": cannot be started: " + std::strerror(errno));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  std::string said = what.output.empty() ? content(output) : std::string{};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return said;
  std::string tail = said + content(errors);
  if (tail.size() > tail_bytes)
    tail = "..." + tail.substr(tail.size() - tail_bytes);
  std::string how = WIFEXITED(status) ? "ended with status " + std::to_string(WEXITSTATUS(status))
                                      : "was ended by signal " + std::to_string(WTERMSIG(status));
  return fail(ec::internal, name + " " + how + ": " + tail);
}

bool has_command(const std::string& name) {
  std::string path = std::string{tool_path}.substr(5);
  for (std::size_t at = 0; at < path.size();) {
    std::size_t end = std::min(path.find(':', at), path.size());
    if (::access((path.substr(at, end - at) + "/" + name).c_str(), X_OK) == 0)
      return true;
    at = end + 1;
  }
  return false;
}

} // namespace berth::machines
