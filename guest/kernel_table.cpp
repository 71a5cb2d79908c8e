// SPDX-License-Identifier: Apache-2.0
#include "guest/kernel_table.hpp"

#include "guest/files.hpp"
#include "guest/languages/kernels.hpp"
#include "guest/launch.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace berth::guest {

namespace {

std::string in_words(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return "signal " + std::to_string(WTERMSIG(wait_status));
  return "exit code " + std::to_string(WEXITSTATUS(wait_status));
}

} // namespace

kernel_table::kernel_table(event_loop& loop, channel& out, interpreters& warm)
  : loop_(loop)
  , channel_(out)
  , interpreters_(warm)
  , told_{[this](kernel& each, kernel_words::word& word) { on_word(each, word); },
          [this](kernel& each, const char* reason) { on_end(each, reason); }} {}

kernel* kernel_table::find(const std::string& context) {
  for (kernel& each : all_)
    if (!each.dead() && each.context() == context)
      return &each;
  return nullptr;
}

kernel* kernel_table::of_cell(std::uint32_t number) {
  for (kernel& each : all_)
    if (each.current && each.current->streams.number() == number)
      return &each;
  return nullptr;
}

// --- start ---------------------------------------------------------------------------------------

void kernel_table::open(open_kernel request) {
  if (failed_.first == request.context)
    failed_ = {};
  std::string error;
  if (std::any_of(all_.begin(), all_.end(),
                  [&](const kernel& each) { return each.context() == request.context; }))
    error = "an interpreter of this name lives";
  else if (all_.size() >= kernels_max)
    error = "too many interpreters live in this machine";
  else if (request.cwd.find('\0') != std::string::npos
           || request.cwd.size() > limits::path_bytes_max)
    error = "the directory's path is too long or contains a NUL byte";
  if (request.cwd.empty())
    request.cwd = default_directory;
  else if (!request.cwd.starts_with('/'))
    request.cwd = std::string{default_directory} + "/" + request.cwd;
  if (error.empty())
    error = make_directories(request.cwd);
  if (!error.empty())
    return channel_.send(kernel_opened{request.context, run_path::cold, std::move(error)});
  start(all_.emplace_back(loop_, channel_, std::move(request), told_));
}

/// The plan of a start, and the descriptors that it takes, warm or cold.
struct kernel_table::start_kit {
  kernel_plan plan;
  /// The interpreter's end of the link.
  owned_fd control;
  owned_fd nothing;
  owned_fd description;
};

void kernel_table::start(kernel& each) {
  start_kit kit{plan_kernel(each.request()), {}, {}, {}};
  if (!kit.plan.error.empty())
    return start_failed(each, std::move(kit.plan.error));
  kit.description = memory_file("job", kit.plan.job_file.data(), kit.plan.job_file.size());
  kit.nothing.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
  kit.control = each.link.open();
  if (!kit.description || !kit.nothing || !kit.control)
    return start_failed(each, std::string{"cannot prepare it: "} + std::strerror(errno));
  if (!start_warm(each, kit))
    start_cold(each, kit);
}

bool kernel_table::start_warm(kernel& each, const start_kit& kit) {
  if (kit.plan.warm.empty() || !interpreters_.available(kit.plan.warm))
    return false;
  // One that is ready is given at once.
  std::optional<taken_interpreter> taken;
  interpreters_.take(kit.plan.warm, true, [&](auto given) { taken = std::move(given); });
  if (!taken
      || !taken->run(kit.control.get(), kit.nothing.get(), kit.nothing.get(),
                     kit.description.get()))
    return false;
  each.pid = taken->pid;
  each.path = run_path::warm;
  // Who has a live Python seldom wants a plain one, which would hold memory for nothing. The
  // server knows, and has another brought when it is wrong.
  if (each.language() == "python")
    interpreters_.dismiss("python");
  return true;
}

void kernel_table::start_cold(kernel& each, const start_kit& kit) {
  launch_request request;
  request.program = kit.plan.program;
  request.argv = kit.plan.argv;
  request.env = kit.plan.env;
  request.cwd = each.request().cwd;
  request.stdin_fd = kit.control.get();
  request.stdout_fd = kit.nothing.get();
  request.stderr_fd = kit.nothing.get();
  request.job_fd = kit.plan.job_file.empty() ? -1 : kit.description.get();
  launched result = launch(request);
  if (result.pid < 0)
    return start_failed(each, std::move(result.error));
  prefer_as_oom_victim(result.pid);
  each.pid = result.pid;
}

/// There is no process: nothing to wait for.
void kernel_table::start_failed(kernel& each, std::string why) {
  each.reason = std::move(why);
  failed_ = {each.context(), each.reason};
  finish(each);
}

// --- what it says --------------------------------------------------------------------------------

void kernel_table::on_word(kernel& each, kernel_words::word& word) {
  if (auto* shown = std::get_if<kernel_words::shows>(&word)) {
    if (each.phase == kernel_phase::busy)
      each.current->show(std::move(shown->result), shown->size);
  } else if (auto* large = std::get_if<kernel_words::shows_too_much>(&word)) {
    if (each.phase == kernel_phase::busy) {
      ++each.current->results_lost;
      each.current->results_lost_bytes += large->size;
    }
  } else if (auto* ended = std::get_if<kernel_words::ended>(&word)) {
    // Of another cell than that which runs: a word that came too late, or a lie.
    if (each.phase == kernel_phase::busy && ended->number == each.current->streams.number()) {
      each.end_cell(*ended);
      each.finish_cell();
    }
  } else if (auto* ready = std::get_if<kernel_words::ready>(&word)) {
    on_ready(each, ready->pid);
  } else if (auto* rests = std::get_if<kernel_words::rests>(&word)) {
    if (each.phase == kernel_phase::going_to_rest)
      each.phase = rests->why.empty() ? kernel_phase::resting : kernel_phase::idle;
    if (!rests->why.empty() && each.no_rest.empty())
      each.no_rest = rests->why;
  } else if (std::holds_alternative<kernel_words::goes_on>(word)) {
    if (each.phase == kernel_phase::waking && each.pid > 1)
      become_idle(each);
  } else if (auto* failed = std::get_if<kernel_words::failed>(&word)) {
    if (each.phase == kernel_phase::starting && each.reason.empty())
      on_end(each, failed->why.c_str());
  }
}

void kernel_table::on_ready(kernel& each, pid_t pid) {
  if (each.phase == kernel_phase::waking && each.pid < 0 && pid > 1) {
    each.pid = pid;
    become_idle(each);
  } else if (each.phase == kernel_phase::starting) {
    channel_.send(kernel_opened{each.context(), each.path, {}});
    become_idle(each);
  }
}

void kernel_table::become_idle(kernel& each) {
  each.phase = kernel_phase::idle;
  if (each.current)
    begin_cell(each);
}

/// It hung up, or said what it may not. Its end is told when it was waited for.
void kernel_table::on_end(kernel& each, const char* reason) {
  if (each.reason.empty())
    each.reason = reason;
  if (each.pid > 1)
    // Mostly it is ending already, and its own status stays.
    return each.kill_process();
  // One that never woke: there is nothing to wait for.
  each.link.close();
  each.is_swept = true;
  each.phase = kernel_phase::ending;
}

std::string kernel_table::why_no_rest() const {
  for (const kernel& each : all_) {
    if (each.current)
      return "a cell runs in context " + each.context();
    if (each.phase != kernel_phase::idle)
      return "context " + each.context() + " is not up";
  }
  return {};
}

kernel& kernel_table::add_woken(const open_kernel& request, std::uint32_t cells) {
  kernel& each = all_.emplace_back(loop_, channel_, request, told_);
  each.phase = kernel_phase::waking;
  each.path = run_path::warm;
  each.cells = cells;
  each.was_up = true;
  return each;
}

// --- cells ---------------------------------------------------------------------------------------

void kernel_table::run(const run_cell& request) {
  kernel* each = find(request.context);
  std::string why;
  if (each == nullptr)
    why = failed_.first == request.context && !failed_.second.empty()
              ? failed_.second
              : "no interpreter of this name lives";
  else if (each->current)
    why = "a cell runs in this interpreter";
  else if (each->phase == kernel_phase::going_to_rest || each->phase == kernel_phase::resting)
    why = "the interpreter rests";
  if (!why.empty())
    return channel_.send(job_refused{request.job, std::move(why)});
  each->take_cell(request);
  if (each->phase == kernel_phase::idle)
    begin_cell(*each);
}

void kernel_table::begin_cell(kernel& each) {
  if (!each.begin_cell())
    on_end(each, "it does not take a cell");
}

void kernel_table::interrupt(const std::string& context) {
  if (kernel* each = find(context))
    each->interrupt();
}

void kernel_table::close(const std::string& context) {
  if (kernel* each = find(context))
    each->kill_process();
}

std::optional<bool> kernel_table::feed(const stdin_data& input) {
  kernel* each = of_cell(input.job);
  if (each == nullptr)
    return std::nullopt;
  return each->current->streams.feed(input);
}

bool kernel_table::end(std::uint32_t number) {
  kernel* each = of_cell(number);
  if (each != nullptr)
    each->kill_process();
  return each != nullptr;
}

// --- ends ----------------------------------------------------------------------------------------

bool kernel_table::gone(pid_t pid, int status, const rusage& usage) {
  for (kernel& each : all_) {
    if (each.pid != pid || each.dead())
      continue;
    // Its last words: a cell may have ended before its interpreter did.
    each.link.hear_rest();
    each.link.close();
    each.wait_status = status;
    if (each.current && each.phase == kernel_phase::busy && !each.current->over)
      each.kill_cell(status, usage);
    if (each.phase == kernel_phase::starting && each.reason.empty())
      each.reason = "its process ended by " + in_words(status) + " before it was up";
    each.was_up = each.was_up || each.phase != kernel_phase::starting;
    each.phase = kernel_phase::ending;
    return true;
  }
  return false;
}

void kernel_table::append_pids(std::vector<pid_t>& to) const {
  for (const kernel& each : all_)
    if (each.pid > 1 && !each.dead())
      to.push_back(each.pid);
}

bool kernel_table::sweeping() const {
  return std::any_of(all_.begin(), all_.end(),
                     [](const kernel& each) { return each.dead() && !each.is_swept; });
}

void kernel_table::swept() {
  for (kernel& each : all_)
    if (each.dead())
      each.is_swept = true;
  on_room();
}

void kernel_table::on_room() {
  for (auto it = all_.begin(); it != all_.end();) {
    kernel& each = *it++;
    each.on_room();
    if (each.current && each.current->over && !(each.dead() && !each.is_swept))
      each.finish_cell();
    if (each.dead() && each.is_swept && !(each.current && each.current->over))
      finish(each);
  }
}

/// Tells the end of an interpreter and forgets it.
void kernel_table::finish(kernel& each) {
  if (each.current)
    channel_.send(job_refused{each.current->streams.number(),
                              each.reason.empty() ? "the interpreter ended" : each.reason});
  if (each.silent_end) {
    // Another goes on under its name.
  } else if (each.was_up) {
    kernel_ended message;
    message.context = each.context();
    if (WIFSIGNALED(each.wait_status))
      message.signal = static_cast<std::uint32_t>(WTERMSIG(each.wait_status));
    else
      message.exit_code = WEXITSTATUS(each.wait_status);
    channel_.send(message);
  } else {
    channel_.send(kernel_opened{each.context(), each.path, each.reason});
  }
  all_.remove_if([&](const kernel& other) { return &other == &each; });
}

} // namespace berth::guest
