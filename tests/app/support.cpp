// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <unistd.h>

namespace berth::test {

namespace fs = std::filesystem;

namespace {

std::string written_to(int fd) {
  std::string text;
  char part[65536];
  for (;;) {
    ssize_t got = ::pread(fd, part, sizeof part, static_cast<off_t>(text.size()));
    if (got <= 0)
      return text;
    text.append(part, static_cast<std::size_t>(got));
  }
}

[[noreturn]] void become(std::vector<std::string>& argv,
                         const std::map<std::string, std::string>& environment,
                         const int (&streams)[3]) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  for (int fd = 0; fd < 3; ++fd)
    ::dup2(streams[fd], fd);
  for (const auto& [name, value] : environment)
    ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> pointers;
  for (auto& one : argv)
    pointers.push_back(one.data());
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

/// Fields of /proc/PID/stat after the name: state, parent, ...
std::vector<std::string> stat_of(pid_t pid) {
  std::string text = test::content_of("/proc/" + std::to_string(pid) + "/stat");
  std::vector<std::string> fields;
  if (auto name_end = text.rfind(')'); name_end != std::string::npos) {
    std::istringstream rest{text.substr(name_end + 1)};
    for (std::string one; rest >> one;)
      fields.push_back(one);
  }
  return fields;
}

/// Name of a listed value of the server's first lines: the text after `name`.
std::string said_after(const std::string& text, const std::string& name) {
  auto at = text.find(name);
  if (at == std::string::npos)
    return {};
  at = text.find_first_not_of(' ', at + name.size());
  return text.substr(at, text.find('\n', at) - at);
}

} // namespace

bool eventually(const std::function<bool()>& is_so, std::chrono::milliseconds limit) {
  auto deadline = std::chrono::steady_clock::now() + limit;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > deadline)
      return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  return true;
}

std::string content_of(const std::string& path) {
  std::ifstream file{path};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, std::string_view text) {
  std::ofstream file{path};
  file << text;
  file.close();
  REQUIRE(file.good());
}

process::process(std::vector<std::string> argv,
                 const std::map<std::string, std::string>& environment) {
  int pipe[2];
  output_ = ::memfd_create("output", MFD_CLOEXEC);
  errors_ = ::memfd_create("errors", MFD_CLOEXEC);
  if (output_ < 0 || errors_ < 0 || ::pipe2(pipe, O_CLOEXEC) != 0)
    throw std::runtime_error{"no descriptors for a child process"};
  pid_ = ::fork();
  if (pid_ == 0)
    become(argv, environment, {pipe[0], output_, errors_});
  ::close(pipe[0]);
  input_ = pipe[1];
}

process::~process() {
  close_stdin();
  if (pid_ > 0 && !status_) {
    signal(SIGKILL);
    wait();
  }
  ::close(output_);
  ::close(errors_);
}

void process::write(std::string_view text) const {
  REQUIRE(::write(input_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

void process::close_stdin() {
  if (input_ >= 0)
    ::close(std::exchange(input_, -1));
}

void process::signal(int number) const {
  ::kill(pid_, number);
}

std::string process::out() const {
  return written_to(output_);
}

std::string process::err() const {
  return written_to(errors_);
}

std::optional<int> process::wait(std::chrono::milliseconds limit) {
  if (status_)
    return status_;
  int handle = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  pollfd over{handle, POLLIN, 0};
  int ready = ::poll(&over, 1, static_cast<int>(limit.count()));
  ::close(handle);
  int status = 0;
  if (ready != 1 || ::waitpid(pid_, &status, 0) != pid_)
    return std::nullopt;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return status_;
}

ended execute(std::vector<std::string> argv, std::string_view input,
              const std::map<std::string, std::string>& environment) {
  process child{std::move(argv), environment};
  if (!input.empty())
    child.write(input);
  child.close_stdin();
  auto code = child.wait();
  return {code.value_or(-1), child.out(), child.err()};
}

server_home::server_home()
  : server_home(::geteuid()) {}

server_home::server_home(uid_t owner)
  : owner_(owner) {
  // As root: where no other user may write, and the server's user may still pass.
  path_ = (owner == 0 ? std::string{"/run"} : fs::temp_directory_path().string())
          + "/berth-server-test.XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr || ::chmod(path_.c_str(), 0755) != 0
      || ::chown(path_.c_str(), owner, static_cast<gid_t>(-1)) != 0)
    throw std::runtime_error{"cannot make " + path_};
}

server_home::~server_home() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bool host_process::alive() const {
  auto now = stat_of(pid);
  return now.size() > 19 && now[0] != "Z" && std::stoull(now[19]) == started;
}

std::vector<host_process> tree_of(pid_t root) {
  std::multimap<pid_t, host_process> children;
  std::vector<host_process> found;
  for (const auto& entry : fs::directory_iterator{"/proc"}) {
    std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos)
      continue;
    pid_t pid = std::stoi(name);
    auto fields = stat_of(pid);
    if (fields.size() < 20)
      continue;
    host_process one{pid, std::stoull(fields[19])};
    children.emplace(std::stoi(fields[1]), one);
    if (pid == root)
      found.push_back(one);
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    auto [from, to] = children.equal_range(found[i].pid);
    for (auto child = from; child != to; ++child)
      found.push_back(child->second);
  }
  return found;
}

std::vector<std::string> groups_of(const std::string& instance) {
  std::vector<std::string> found;
  std::error_code failed;
  fs::recursive_directory_iterator all{"/sys/fs/cgroup",
                                       fs::directory_options::skip_permission_denied, failed};
  for (; all != fs::recursive_directory_iterator{}; all.increment(failed)) {
    if (failed)
      break;
    if (all->is_directory(failed) && all->path().filename().string().find("berth-" + instance) == 0)
      found.push_back(all->path());
  }
  return found;
}

server::server(const server_home& home, const nlohmann::json& settings)
  : home_(home) {
  nlohmann::json all = {
      {"data_dir", home.path() + "/data"},
      {"runtime_dir", home.runtime_dir()},
      {"zmq_router", "tcp://127.0.0.1:*"},
      {"zmq_events", "tcp://127.0.0.1:*"},
      {"http_port", 0},
      {"http_terraphim_port", 0},
      {"log_level", "debug"},
      {"pool", {{"slots_max", 32}, {"warm", {{"python", 2}, {"bash", 1}}}}},
  };
  if (settings.is_object())
    all.merge_patch(settings);
  std::string config = home.path() + "/berth.json";
  write_file(config, all.dump(2));
  std::vector<std::string> command{BERTH_BUILD_DIR "/berth", "serve", "--config", config};
  if (home.owner() != ::geteuid()) {
    command[0] = home.path() + "/build/berth";
    fs::create_directories(home.path() + "/build/lib");
    fs::copy(BERTH_BUILD_DIR "/berth", command[0]);
    fs::copy(BERTH_BUILD_DIR "/lib/berth", home.path() + "/build/lib/berth",
             fs::copy_options::recursive);
    const std::string user = std::to_string(home.owner());
    command.insert(command.begin(),
                   {"setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups", "--"});
  }
  program_ = std::make_unique<process>(std::move(command));
  bool said = eventually([&] {
    return program_->out().find("http      ") != std::string::npos
           || program_->wait(std::chrono::milliseconds{0});
  });
  std::string text = program_->out();
  INFO("berth serve said: " << text << program_->err() << ", exit code "
                            << program_->wait(std::chrono::milliseconds{0}).value_or(-1));
  REQUIRE(said);
  http_ = said_after(text, "\nhttp ");
  router_ = said_after(text, "\nrequests ");
  events_ = said_after(text, "\nevents ");
  ipc_ = said_after(text, "\n          ");
  REQUIRE(!http_.empty());
  REQUIRE(eventually([&] { return curl("/health").first == 200; }));
}

server::~server() {
  if (!program_)
    return;
  if (!program_->wait(std::chrono::milliseconds{0})) {
    program_->signal(SIGTERM);
    program_->wait();
    eventually([&] { return !fs::exists(home_.runtime_dir() + "/machines"); });
  }
  std::string said = program_->err();
  if (said.find("Sanitizer") == std::string::npos
      && said.find("runtime error:") == std::string::npos)
    return;
  std::fwrite(said.data(), 1, said.size(), stderr);
  std::abort();
}

std::vector<std::string> server::instances() const {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator{home_.runtime_dir() + "/machines"})
    if (entry.is_directory())
      found.push_back(entry.path().filename());
  return found;
}

bool server::has_cgroups() const {
  auto found = instances();
  return !found.empty() && !groups_of(found.front()).empty();
}

std::map<std::string, std::string> server::environment() const {
  return {{"BERTH_ENDPOINT", ipc_.empty() ? router_ : ipc_},
          {"BERTH_ROUTER", router_},
          {"BERTH_EVENTS", events_},
          {"BERTH_HTTP", http_},
          {"PYTHONPATH", BERTH_SOURCE_DIR "/tests/app"},
          {"PYTHONDONTWRITEBYTECODE", "1"}};
}

ended server::cli(std::vector<std::string> arguments, std::string_view input) const {
  arguments.insert(arguments.begin(), BERTH_BUILD_DIR "/berth");
  return execute(std::move(arguments), input, environment());
}

std::unique_ptr<process> server::cli_process(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), BERTH_BUILD_DIR "/berth");
  return std::make_unique<process>(std::move(arguments), environment());
}

std::unique_ptr<process> server::python_process(std::string_view script) const {
  return std::make_unique<process>(
      std::vector<std::string>{"/usr/bin/python3", "-c",
                               "from client import *\n" + std::string{script}},
      environment());
}

ended server::python(std::string_view script) const {
  auto child = python_process(script);
  auto code = child->wait();
  return {code.value_or(-1), child->out(), child->err()};
}

std::pair<int, std::string> server::curl(const std::string& path,
                                         std::vector<std::string> arguments) const {
  std::vector<std::string> argv{"curl", "-s", "--max-time", "60", "-w", "\n%{http_code}"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  argv.push_back(http_ + path);
  auto done = execute(std::move(argv));
  auto line = done.out.rfind('\n');
  if (line == std::string::npos)
    return {0, done.out};
  return {std::atoi(done.out.c_str() + line + 1), done.out.substr(0, line)};
}

std::pair<int, nlohmann::json> server::post(const std::string& path,
                                            const nlohmann::json& body) const {
  auto [status, text] = curl(path, {"-H", "content-type: application/json", "-d", body.dump()});
  return {status, nlohmann::json::parse(text, nullptr, false)};
}

std::string no_server_reason() {
  if (::access("/usr/bin/python3", X_OK) != 0)
    return "no /usr/bin/python3";
  static const bool has_clients =
      execute({"/usr/bin/python3", "-c", "import zmq, msgpack"}).code == 0
      && execute({"curl", "--version"}).code == 0;
  if (!has_clients)
    return "python3-zmq, python3-msgpack or curl is not installed";
  if (::geteuid() == 0)
    return {};
  pid_t child = ::fork();
  if (child == 0)
    ::_exit(::unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
  int status = 1;
  ::waitpid(child, &status, 0);
  return status == 0 ? "" : "not root, and user namespaces are refused";
}

server& shared_server() {
  static server_home home;
  static server shared{home, {{"vm_execution", {{"code_validation", false}}}}};
  return shared;
}

} // namespace berth::test
