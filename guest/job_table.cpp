// SPDX-License-Identifier: Apache-2.0
#include "guest/job_table.hpp"

#include "guest/files.hpp"
#include "guest/launch.hpp"

#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>

namespace berth::guest {

namespace {

/// Exit code of a job whose compiled program cannot be started, as a shell has it.
constexpr int cannot_execute = 126;

bool has_nul(const std::string& text) {
  return text.find('\0') != std::string::npos;
}

} // namespace

job_table::job_table(event_loop& loop, channel& out, interpreters& warm, kernel_table& kernels,
                     const checkpoints& parked, workspace& files)
  : loop_(loop)
  , channel_(out)
  , interpreters_(warm)
  , kernels_(kernels)
  , checkpoints_(parked)
  , files_(files) {}

std::string job_table::why_refused(const start_job& request) const {
  if (jobs_.contains(request.job))
    return "a job with this number is alive";
  if (jobs_.size() >= jobs_max)
    return "too many jobs are alive in this machine";
  const language* found = find_language(request.language);
  if (found == nullptr)
    return request.language + " is not a language of this machine";
  if (request.binary.empty() && !found->installed())
    return request.language + " is not installed in this machine";
  for (const std::string& arg : request.args)
    if (has_nul(arg))
      return "an argument contains a NUL byte";
  for (const auto& [name, value] : request.env)
    if (name.empty() || name.find('=') != std::string::npos || has_nul(name) || has_nul(value))
      return "a variable's name is empty or contains '=', or there is a NUL byte in it";
  if (has_nul(request.cwd) || request.cwd.size() > limits::path_bytes_max)
    return "the directory's path is too long or contains a NUL byte";
  return {};
}

void job_table::refuse(std::uint32_t number, std::string reason) {
  channel_.send(job_refused{number, std::move(reason)});
}

void job_table::start(start_job request) {
  std::string reason = why_refused(request);
  if (!reason.empty())
    return refuse(request.job, std::move(reason));
  if (request.cwd.empty())
    request.cwd = default_directory;
  else if (!request.cwd.starts_with('/'))
    request.cwd = std::string{default_directory} + "/" + request.cwd;
  reason = make_directories(request.cwd);
  if (!reason.empty())
    return refuse(request.job, std::move(reason));
  auto owner = std::make_unique<job>(loop_, channel_, request);
  job& each = *owner;
  bash_wanted_ = bash_wanted_ || request.language == "bash";
  if (request.language == "bash" && request.binary.empty() && bash_.pid > 0
      && fits_waiting_bash(request)) {
    jobs_[each.number()] = std::move(owner);
    if (start_waiting(each, request))
      return;
    owner = std::move(jobs_[request.job]);
    jobs_.erase(request.job);
  }
  planned how = request.binary.empty() ? find_language(request.language)->make_plan(request, files_)
                                       : plan_binary(request, files_);
  each.steps = std::move(how.value);
  if (!how.error.empty())
    return refuse(request.job, std::move(how.error));
  if (!each.open_streams())
    return refuse(request.job, std::string{"cannot make pipes: "} + std::strerror(errno));
  wanted_spare_ = each.steps.stages.front().warm;
  jobs_[each.number()] = std::move(owner);
  begin_stage(each);
}

bool job_table::start_waiting(job& each, const start_job& request) {
  waiting_bash bash = std::move(bash_);
  bash_ = {};
  if (!hand_over(bash, request)) {
    // It reads an end of input and an empty script, and exits.
    kill(bash.pid, SIGKILL);
    remove_directory(bash.directory);
    return false;
  }
  each.steps.path = run_path::warm;
  each.steps.directory = bash.directory;
  each.steps.stages.emplace_back();
  each.adopt_streams(std::move(bash.stdin_pipe), std::move(bash.stdout_pipe),
                     std::move(bash.stderr_pipe));
  stage_runs(each, bash.pid);
  return true;
}

void job_table::begin_stage(job& each) {
  const stage& current = each.steps.stages[each.stage];
  if (current.warm.empty() || !interpreters_.available(current.warm))
    return run_cold(each);
  each.phase = job_phase::waiting;
  interpreters_.take(current.warm, each.exclusive(),
                     [this, number = each.number()](std::optional<taken_interpreter> taken) {
                       run_warm(number, std::move(taken));
                     });
}

void job_table::run_warm(std::uint32_t number, std::optional<taken_interpreter> taken) {
  auto found = jobs_.find(number);
  if (found == jobs_.end()) {
    // The job was ended while it waited; an interpreter without one exits by itself.
    return;
  }
  job& each = *found->second;
  const stage& current = each.steps.stages[each.stage];
  bool started = false;
  if (taken) {
    owned_fd description = memory_file("job", current.warm_job.data(), current.warm_job.size());
    owned_fd nothing{open("/dev/null", O_RDONLY | O_CLOEXEC)};
    int out = current.compiles ? each.program_stderr() : each.program_stdout();
    int in = current.compiles ? nothing.get() : each.program_stdin();
    started =
        description && nothing && taken->run(in, out, each.program_stderr(), description.get());
  }
  if (!started)
    return run_cold(each);
  if (each.steps.stages.size() == 1)
    each.steps.path = run_path::warm;
  each.cpu_before_us = taken->cpu_us;
  stage_runs(each, taken->pid);
}

void job_table::run_cold(job& each) {
  const stage& current = each.steps.stages[each.stage];
  launch_request request;
  request.program = current.program;
  request.argv = current.argv;
  request.env = current.env;
  request.cwd = current.cwd;
  owned_fd nothing;
  owned_fd description;
  if (current.compiles)
    nothing.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!current.job_file.empty())
    description = memory_file("job", current.job_file.data(), current.job_file.size());
  if ((current.compiles && !nothing) || (!current.job_file.empty() && !description))
    return stage_failed(each, std::string{"cannot prepare its input: "} + std::strerror(errno));
  request.stdin_fd = current.compiles ? nothing.get() : each.program_stdin();
  request.stdout_fd = current.compiles ? each.program_stderr() : each.program_stdout();
  request.stderr_fd = each.program_stderr();
  request.job_fd = description.get();
  launched result = launch(request);
  if (result.pid < 0)
    return stage_failed(each, result.error);
  prefer_as_oom_victim(result.pid);
  stage_runs(each, result.pid);
}

void job_table::stage_runs(job& each, pid_t pid) {
  each.main = pid;
  each.phase = job_phase::running;
  bool last = each.stage + 1 == each.steps.stages.size();
  if (last)
    distrust();
  if (!each.announced) {
    each.announced = true;
    channel_.send(job_started{each.number(), each.steps.path});
    each.watch_output();
  }
  if (last) {
    each.drop_program_ends();
    each.open_input(each.steps.stages.back().preface);
  }
  if (each.ending)
    kill(pid, SIGKILL);
}

void job_table::stage_failed(job& each, const std::string& why) {
  if (!each.announced) {
    std::uint32_t number = each.number();
    refuse(number, why);
    jobs_.erase(number);
    return;
  }
  each.complain(why + "\n");
  finish(each, W_EXITCODE(cannot_execute, 0));
}

bool job_table::feed(const stdin_data& input) {
  auto found = jobs_.find(input.job);
  return found == jobs_.end() || found->second->feed(input);
}

void job_table::end(std::uint32_t number) {
  auto found = jobs_.find(number);
  if (found == jobs_.end())
    return;
  job& each = *found->second;
  each.ending = true;
  if (each.phase == job_phase::waiting)
    finish(each, W_EXITCODE(0, SIGKILL));
  else if (each.phase == job_phase::running)
    kill(each.main, SIGKILL);
}

job* job_table::job_of(pid_t pid) {
  for (auto& [number, each] : jobs_)
    if (each->main == pid)
      return each.get();
  return nullptr;
}

std::vector<pid_t> job_table::kept() const {
  std::vector<pid_t> pids;
  for (const auto& [number, each] : jobs_)
    if (each->main > 0)
      pids.push_back(each->main);
  if (bash_.pid > 0)
    pids.push_back(bash_.pid);
  interpreters_.append_pids(pids);
  kernels_.append_pids(pids);
  checkpoints_.append_pids(pids);
  return pids;
}

void job_table::reap() {
  int status = 0;
  rusage usage{};
  pid_t pid = 0;
  std::vector<rusage> orphans;
  while ((pid = wait4(-1, &status, WNOHANG | __WALL, &usage)) > 0) {
    if (job* each = job_of(pid)) {
      each->add_usage(usage);
      each->set_status(status);
      each->main = -1;
      each->phase = job_phase::sweeping;
    } else if (!kernels_.gone(pid, status, usage)) {
      if (pid == bash_.pid) {
        remove_directory(bash_.directory);
        bash_ = {};
      }
      interpreters_.gone(pid);
      orphans.push_back(usage);
    }
  }
  // Orphans come to the guest only when a job's main process died: theirs is the account.
  for (auto& [number, each] : jobs_)
    if (each->phase == job_phase::sweeping) {
      for (const rusage& orphan : orphans)
        each->add_usage(orphan);
      break;
    }
  sweep();
  drain();
}

bool job_table::sweeping() const {
  return kernels_.sweeping() || std::any_of(jobs_.begin(), jobs_.end(), [](const auto& item) {
           return item.second->phase == job_phase::sweeping;
         });
}

void job_table::sweep() {
  if (!sweeping() || checkpoints_.waking())
    return;
  bool exclusive = std::any_of(jobs_.begin(), jobs_.end(),
                               [](const auto& item) { return item.second->exclusive(); });
  std::vector<pid_t> keep = kept();
  if (!leftovers_.pass(keep, keep.empty() || (exclusive && jobs_.size() == 1)))
    return;
  std::vector<job*> swept;
  for (auto& [number, each] : jobs_)
    if (each->phase == job_phase::sweeping)
      swept.push_back(each.get());
  for (job* each : swept)
    stage_ended(*each);
  kernels_.swept();
}

void job_table::stage_ended(job& each) {
  job_ended so_far = each.outcome();
  bool last = each.stage + 1 == each.steps.stages.size();
  if (last || each.ending || so_far.signal || *so_far.exit_code != 0) {
    each.phase = job_phase::draining;
    return;
  }
  ++each.stage;
  if (each.stage + 1 == each.steps.stages.size() && each.wants_binary() && !send_binary(each))
    return stage_failed(each, "cannot read the compiled program");
  begin_stage(each);
}

bool job_table::send_binary(job& each) {
  if (each.steps.compiled.empty() || !each.exclusive() || !trusted_)
    return true;
  owned_fd file{open(each.steps.compiled.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC)};
  struct stat info;
  if (!file || fstat(file.get(), &info) != 0)
    return false;
  // Larger than a frame: it could never come back in a start_job, so it is not worth sending.
  if (static_cast<std::size_t>(info.st_size) > limits::frame_bytes_max - limits::mib)
    return true;
  for (;;) {
    binary chunk{each.number(), bytes(limits::chunk_bytes_max), false};
    ssize_t count = ::read(file.get(), chunk.data.data(), chunk.data.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return false;
    chunk.data.resize(static_cast<std::size_t>(count));
    chunk.last = count == 0;
    channel_.send(chunk);
    if (chunk.last)
      return true;
  }
}

void job_table::finish(job& each, int status) {
  each.set_status(status);
  each.phase = job_phase::draining;
  drain();
}

void job_table::drain() {
  for (auto it = jobs_.begin(); it != jobs_.end();) {
    job& each = *it->second;
    if (each.phase == job_phase::draining && each.drain()) {
      channel_.send(each.outcome());
      closing_ = closing_ || each.exclusive();
      it = jobs_.erase(it);
    } else {
      ++it;
    }
  }
}

void job_table::on_room() {
  for (auto& [number, each] : jobs_)
    each->on_room();
  drain();
}

std::string job_table::why_no_rest(bool force) {
  if (!jobs_.empty())
    return "job " + std::to_string(jobs_.begin()->first) + " runs";
  std::vector<pid_t> keep = kept();
  std::string left;
  std::size_t count = 0;
  for (const kinship& process : all_processes()) {
    if (process.parent == 0 || process.ended
        || std::find(keep.begin(), keep.end(), process.pid) != keep.end())
      continue;
    if (++count <= 8)
      left += (left.empty() ? "" : ", ") + std::to_string(process.pid);
  }
  if (count > 0 && !force)
    return std::to_string(count) + " processes run in the background: " + left;
  return {};
}

void job_table::rest() {
  if (bash_.pid <= 0)
    return;
  kill(bash_.pid, SIGKILL);
  // As long as it is there, so is all that was in the tree it stands in. It does nothing but
  // wait, and so is gone at once.
  while (waitpid(bash_.pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
  remove_directory(bash_.directory);
  bash_ = {};
}

void job_table::prepare(const std::string& language) {
  if (language != "bash")
    return;
  bash_wanted_ = true;
  if (bash_.pid < 0)
    bash_ = start_waiting_bash(files_);
  if (bash_.pid > 0)
    channel_.send(warmed{language});
}

void job_table::replenish() {
  // After an exclusive job the machine is thrown away.
  if (closing_)
    return;
  for (const auto& [number, each] : jobs_)
    if (each->exclusive() || each->phase == job_phase::sweeping)
      return;
  if (bash_.pid < 0 && bash_wanted_)
    bash_ = start_waiting_bash(files_);
  if (!wanted_spare_.empty())
    interpreters_.refill(std::exchange(wanted_spare_, {}));
}

} // namespace berth::guest
