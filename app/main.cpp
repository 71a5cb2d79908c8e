// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/serve.hpp"
#include "app/terminal.hpp"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>

namespace berth {

namespace {

/// The whole command line, read top to bottom.
class command_line {
public:
  int run(int argc, char** argv);

private:
  CLI::App* add(const char* name, const char* meaning, std::function<int()> act);
  void add_serve();
  void add_run();
  void add_history();
  void add_watching();

  CLI::App app_{"Berth runs the code of AI agents in isolated machines."};
  common_options common_;
  serve_options serve_;
  run_options run_;
  query_history history_;
  std::vector<std::string> set_;
  std::string state_;
  std::string job_;
  std::string name_;
  std::string session_;
  std::string agent_;
  bool follow_ = false;
  int code_ = 0;
};

CLI::App* command_line::add(const char* name, const char* meaning, std::function<int()> act) {
  CLI::App* command = app_.add_subcommand(name, meaning);
  command->add_flag("--json", common_.json, "One JSON document, or one a line for streams");
  command->callback([this, act = std::move(act)] { code_ = act(); });
  return command;
}

void command_line::add_serve() {
  auto* command = add("serve", "Run the server", [this] {
    for (const auto& pair : set_) {
      auto equals = pair.find('=');
      if (equals == std::string::npos || equals == 0)
        return terminal::report("--set " + pair + ": expected NAME=VALUE");
      serve_.overrides[pair.substr(0, equals)] = pair.substr(equals + 1);
    }
    return serve(serve_);
  });
  command->add_option("-c,--config", serve_.config, "Settings file (JSON)")
      ->check(CLI::ExistingFile);
  command->add_option("--set", set_, "A setting, NAME=VALUE; wins over the file")
      ->allow_extra_args(false);
  command->add_flag("-q,--quiet", serve_.quiet, "Print nothing once it serves");
}

void command_line::add_run() {
  auto* command = add("run", "Run a program; exits with its code",
                      [this] { return command_run(common_, run_); });
  command->positionals_at_end();
  command->add_option("file", run_.file, "The program; - reads it from standard input")->required();
  command->add_option("args", run_.args, "Arguments of the program, after --");
  command->add_option("-l,--language", run_.language,
                      "python, javascript, bash, rust or go; default by the file's ending");
  command->add_option("-s,--session", run_.session, "Session; opened when it does not exist");
  command->add_option("--agent", run_.agent, "Agent whose job it is; its session runs it");
  command->add_option("-t,--timeout", run_.timeout_s, "Wall-clock limit in seconds")
      ->check(CLI::PositiveNumber);
  command->add_option("-m,--memory", run_.memory_mib, "Memory limit in MiB")
      ->check(CLI::PositiveNumber);
  command->add_option("-e,--env", run_.env, "Environment of the program, NAME=VALUE")
      ->allow_extra_args(false);
  command->add_option("-f,--file", run_.files, "A file to place first, PATH[:DESTINATION]")
      ->allow_extra_args(false);
  command->add_flag("-i,--stdin", run_.stdin_forward,
                    "Forward standard input even from a terminal; a pipe always is");
}

void command_line::add_history() {
  auto* command = add("history", "Past jobs, newest first; one in full with --job", [this] {
    if (auto state = from_name<job_state>(state_))
      history_.state = *state;
    if (!state_.empty() && !history_.state)
      return terminal::report("--state " + state_ + ": must be one of " + wire_type<job_state>());
    return command_history(common_, history_);
  });
  command->add_option("--job", history_.job, "Only this job, with its code and output");
  command->add_option("--agent", history_.agent_id, "Only this agent's");
  command->add_option("--session", history_.session, "Only this session's");
  command->add_option("--machine", history_.machine, "Only what ran on this machine");
  command->add_option("--language", history_.language, "Only this language");
  command->add_option("--state", state_, "Only jobs that ended so, for example timed_out");
  command->add_option("--text", history_.text, "Only code that contains this");
  command->add_option("--before", history_.before, "The next page: entries with smaller numbers");
  command->add_option("-n,--limit", history_.limit, "Entries wanted, at most 1000");
  command->add_flag("--failed", history_.failures_only, "Only what did not exit with 0");
}

void command_line::add_watching() {
  add("ps", "Jobs that wait or run", [this] {
    return command_ps(common_, session_);
  })->add_option("--session", session_, "Only this session's");
  auto* logs =
      add("logs", "Output of a job", [this] { return command_logs(common_, job_, follow_); });
  logs->add_option("job", job_, "Id of the job")->required();
  logs->add_flag("-f,--follow", follow_, "Until it ends");
  add("cancel", "End a job and all it started", [this] { return command_cancel(common_, job_); })
      ->add_option("job", job_, "Id of the job")
      ->required();
  add("sessions", "Open sessions", [this] {
    return command_sessions(common_, agent_);
  })->add_option("--agent", agent_, "Only this agent's");
  add("pool", "The pool of machines", [this] { return command_pool(common_); });
  add("health", "How the server is", [this] { return command_health(common_); });
  add("describe", "All operations, or one of them or a type in full", [this] {
    return command_describe(common_, name_);
  })->add_option("name", name_, "Operation or type");
  add("doctor", "What this host can do, and how to mend what it cannot",
      [this] { return command_doctor(common_.json); });
  add("version", "Version of this program", [this] {
    std::printf(common_.json ? "{\"version\":\"%s\"}\n" : "berth %s\n", BERTH_VERSION);
    return 0;
  });
}

int command_line::run(int argc, char** argv) {
  app_.require_subcommand(1);
  app_.fallthrough();
  app_.add_option("--endpoint", common_.endpoint,
                  "Where the server is, ipc://PATH or tcp://HOST:PORT; default BERTH_ENDPOINT, "
                  "else the server of this host");
  app_.set_version_flag("--version", std::string{"berth "} + BERTH_VERSION);
  add_serve();
  add_run();
  add_watching();
  add_history();
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& wrong) {
    return app_.exit(wrong) == 0 ? 0 : 125;
  }
  return code_;
}

} // namespace

} // namespace berth

int main(int argc, char** argv) {
  // A reader that goes away is an error of a write, not the end of the program.
  std::signal(SIGPIPE, SIG_IGN);
  return berth::command_line{}.run(argc, argv);
}
