// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/confine/confine.h"
#include "machines/namespace/templates/protocol.h"

#include <sys/types.h>

#include <string>
#include <vector>

namespace berth::test {

/// A descriptor that closes itself.
class owned_fd {
public:
  explicit owned_fd(int fd = -1)
    : fd_(fd) {}
  owned_fd(owned_fd&& other) noexcept
    : fd_(other.release()) {}
  owned_fd& operator=(owned_fd&& other) noexcept;
  ~owned_fd() { reset(); }
  [[nodiscard]] int get() const { return fd_; }
  int release();
  void reset(int fd = -1);

private:
  int fd_;
};

/// The seccomp program all machines of a test have.
const std::vector<char>& seccomp_program();

/// The confinement of a machine's processes, as the guest has it; with a user namespace of its own.
berth_confinement guest_confinement();

/// Whether this process can make machines (root, with namespaces); else why not.
std::string machine_obstacle();

/// A machine with the least in it: namespaces, a private root with the host's /usr, and a first
/// process that only reaps and reports what it reaped.
class bare_machine {
public:
  bare_machine();
  ~bare_machine();
  bare_machine(const bare_machine&) = delete;
  bare_machine& operator=(const bare_machine&) = delete;

  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  /// The wait status of a child of the first process, by its id in the machine.
  int wait_for(pid_t pid);

private:
  pid_t init_ = -1;
  owned_fd pidfd_;
  owned_fd reports_;
};

/// A warm interpreter in a machine, from the guest's side.
struct interpreter {
  owned_fd control;
  pid_t pid = -1;
};

/// A template process, from the spawner's side.
class template_process {
public:
  /// Starts `command` (absolute path and arguments) with `env` alone ("NAME=value"), and waits
  /// until it is up.
  template_process(std::vector<std::string> command, std::vector<std::string> env);
  ~template_process();
  template_process(const template_process&) = delete;
  template_process& operator=(const template_process&) = delete;

  /// Puts a warm interpreter into the machine; returns the template's answer.
  berth_inject_reply inject(const bare_machine& machine, interpreter& into) {
    return inject_into(machine.pidfd(), into);
  }
  berth_inject_reply inject_into(int pidfd, interpreter& into);

private:
  pid_t pid_ = -1;
  owned_fd socket_;
};

/// How a job ended.
struct job_outcome {
  /// Exit code, or -signal.
  int status = -999;
  std::string out;
  std::string err;
};

/// Waits for 'w' on a control socket; false if the interpreter is gone.
bool await_ready(interpreter& warm);

/// Asks a warm interpreter for another one.
interpreter fork_interpreter(const interpreter& from);

/// Sends the job; returns at once, with the outer ends of its streams.
struct running_job {
  owned_fd in;
  owned_fd out;
  owned_fd err;
};
running_job start_job(const interpreter& warm, const std::string& description);

/// Runs one job to its end.
job_outcome run_job(bare_machine& machine, const interpreter& warm, const std::string& description,
                    const std::string& input = "");

/// A description as Python and JavaScript take it.
std::string
describe_job(const std::string& code, const std::vector<std::string>& args = {},
             const std::string& env_json = R"({"PATH":"/usr/bin:/bin","HOME":"/home/agent"})",
             const std::string& name = "", const std::string& cwd = "/work");

/// Starts a program in a machine with no template: as the guest starts a cold interpreter. The
/// description, if any, is descriptor 3.
job_outcome run_cold(const std::vector<std::string>& command, const std::string& description,
                     const std::string& input = "");

} // namespace berth::test
