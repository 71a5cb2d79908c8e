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
  CLI::App* add(const char* name, const char* meaning, std::function<int()> act) {
    return add_to(app_, name, meaning, std::move(act));
  }
  CLI::App* add_to(CLI::App& parent, const char* name, const char* meaning,
                   std::function<int()> act);
  void add_serve();
  void add_run();
  void add_history();
  void add_watching();
  void add_sessions();
  void add_states();
  void add_inside();
  void add_images();
  void add_roles();
  void add_workflows();
  void add_agents();

  CLI::App app_{"Berth runs the code of AI agents in isolated machines."};
  common_options common_;
  serve_options serve_;
  run_options run_;
  query_history history_;
  open_session open_;
  std::uint64_t memory_mib_ = 0;
  std::uint64_t processes_ = 0;
  std::uint64_t disk_mib_ = 0;
  fork_session fork_;
  bool no_memory_ = false;
  take_snapshot snapshot_;
  bool no_wait_ = false;
  list_snapshots snapshots_;
  std::string delete_;
  rollback rollback_;
  std::uint64_t before_ = 0;
  std::uint64_t after_ = 0;
  shell_options shell_;
  image_command image_;
  workflow_options workflow_;
  list_workflows workflows_;
  chat_options chat_;
  std::vector<std::string> paths_;
  std::vector<std::string> closed_;
  bool recursive_ = false;
  std::vector<std::string> set_;
  std::string state_;
  std::string job_;
  std::string name_;
  std::string session_;
  std::string agent_;
  std::string role_;
  std::string chosen_;
  bool follow_ = false;
  int code_ = 0;
};

CLI::App* command_line::add_to(CLI::App& parent, const char* name, const char* meaning,
                               std::function<int()> act) {
  CLI::App* command = parent.add_subcommand(name, meaning);
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
  auto* command = add("history", "Past jobs, newest first; of one session as a tree", [this] {
    if (!session_.empty())
      return command_tree(common_, session_, history_.limit);
    if (auto state = from_name<job_state>(state_))
      history_.state = *state;
    if (!state_.empty() && !history_.state)
      return terminal::report("--state " + state_ + ": must be one of " + wire_type<job_state>());
    return command_history(common_, history_);
  });
  command->add_option("session", session_,
                      "A session: its history as a tree, with snapshots and rollbacks");
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
  auto* doctor = add("doctor", "What this host can do, and how to mend what it cannot",
                     [this] { return command_doctor(common_.json, serve_); });
  doctor->add_option("-c,--config", serve_.config, "Settings file (JSON), for its models")
      ->check(CLI::ExistingFile);
  add("version", "Version of this program", [this] {
    std::printf(common_.json ? "{\"version\":\"%s\"}\n" : "berth %s\n", BERTH_VERSION);
    return 0;
  });
}

void command_line::add_sessions() {
  auto* group = app_.add_subcommand("session", "Sessions: open, list, close, fork, pause, resume");
  group->require_subcommand(1);
  group->fallthrough();
  auto* fresh = add_to(*group, "new", "Open a session; prints its name", [this] {
    if (memory_mib_ > 0)
      open_.memory_mib = memory_mib_;
    if (processes_ > 0)
      open_.processes = processes_;
    if (disk_mib_ > 0)
      open_.disk_mib = disk_mib_;
    return command_session_new(common_, open_);
  });
  fresh->add_option("name", open_.name, "Name to find it by; default its id");
  fresh->add_option("--agent", open_.agent_id, "Whose session it is");
  fresh->add_option("--type", open_.vm_type, "Machine type by configured name");
  fresh->add_option("-m,--memory", memory_mib_, "Memory in MiB")->check(CLI::PositiveNumber);
  fresh->add_option("--processes", processes_, "Processes at once")->check(CLI::PositiveNumber);
  fresh->add_option("--disk", disk_mib_, "Disk in MiB")->check(CLI::PositiveNumber);
  add_to(*group, "ls", "Open sessions", [this] {
    return command_sessions(common_, agent_);
  })->add_option("--agent", agent_, "Only this agent's");
  add_to(*group, "rm", "Close sessions, with all that is in them",
         [this] { return command_session_rm(common_, closed_); })
      ->add_option("session", closed_, "Id, name or machine id")
      ->required();
  auto* twin = add_to(*group, "fork", "Make independent sessions out of one", [this] {
    fork_.memory = !no_memory_;
    return command_fork(common_, fork_);
  });
  twin->add_option("session", fork_.session, "Id, name or machine id")->required();
  twin->add_option("-n,--count", fork_.count, "How many")->check(CLI::Range(1, 256));
  twin->add_option("--snapshot", fork_.snapshot, "Fork from this one, not from now");
  twin->add_flag("--files-only", no_memory_, "Without live interpreters");
  add_to(*group, "pause", "Put a session to sleep",
         [this] { return command_pause(common_, session_); })
      ->add_option("session", session_, "Id, name or machine id")
      ->required();
  add_to(*group, "resume", "Wake a session", [this] { return command_resume(common_, session_); })
      ->add_option("session", session_, "Id, name or machine id")
      ->required();
}

void command_line::add_states() {
  auto* taken = add("snapshot", "Save a session's state; prints the snapshot's id", [this] {
    snapshot_.wait_durable = !no_wait_;
    return command_snapshot(common_, snapshot_);
  });
  taken->add_option("session", snapshot_.session, "Id, name or machine id")->required();
  taken->add_option("name", snapshot_.name, "Name; becomes a part of the id");
  taken->add_option("-d,--description", snapshot_.description, "For a human");
  taken->add_flag("--no-wait", no_wait_, "Do not wait until it is on disk");
  auto* list = add("snapshots", "Saved states", [this] {
    return delete_.empty() ? command_snapshots(common_, snapshots_)
                           : command_delete_snapshot(common_, delete_);
  });
  list->add_option("session", snapshots_.session, "Only this session's");
  list->add_option("--agent", snapshots_.agent_id, "Only this agent's");
  list->add_option("--delete", delete_, "Delete this snapshot instead");
  auto* back = add("rollback", "Take a session back to a saved state", [this] {
    if (before_ > 0)
      rollback_.before_entry = before_;
    if (after_ > 0)
      rollback_.after_entry = after_;
    int targets = (rollback_.snapshot.empty() ? 0 : 1) + (before_ > 0 ? 1 : 0)
                  + (after_ > 0 ? 1 : 0) + (rollback_.last_success ? 1 : 0);
    if (targets != 1)
      return terminal::report("where to? Give one of SNAPSHOT, --before N, --after N, "
                              "--last-success; `berth history SESSION` shows what there is");
    return command_rollback(common_, rollback_);
  });
  back->add_option("session", rollback_.session, "Id, name or machine id")->required();
  back->add_option("snapshot", rollback_.snapshot, "Id or name of a snapshot of it");
  back->add_option("--before", before_, "The state before this entry of history");
  back->add_option("--after", after_, "The state after this entry of history");
  back->add_flag("--last-success", rollback_.last_success, "The newest state after a success");
  back->add_flag("--save", rollback_.snapshot_first, "Save the present state before");
}

void command_line::add_inside() {
  auto* shell = add("shell", "Type cells into a live interpreter of a session",
                    [this] { return command_shell(common_, shell_); });
  shell->add_option("session", shell_.session, "Session; opened when it does not exist")
      ->required();
  shell->add_option("-l,--language", shell_.language, "python, javascript or bash");
  shell->add_option("--context", shell_.context, "Which interpreter, by name; made when missing");
  shell->add_option("-t,--timeout", shell_.timeout_s, "Limit of each cell in seconds")
      ->check(CLI::PositiveNumber);
  auto* copy = add("cp", "Copy files between here and a session", [this] {
    if (paths_.size() < 2)
      return terminal::report("from where to where? For example: berth cp SESSION:out.csv .");
    return command_copy(common_, paths_, recursive_);
  });
  copy->add_option("path", paths_,
                   "SESSION:PATH or a path here, the last one is where to; - is a pipe")
      ->required();
  copy->add_flag("-r,--recursive", recursive_, "Directories with all that is in them");
}

void command_line::add_images() {
  auto* group = app_.add_subcommand("image", "What virtual machines boot from");
  group->require_subcommand(1);
  group->fallthrough();
  group->add_option("--data-dir", image_.data_dir,
                    "Where images are kept; default as the server's");
  auto* build = add_to(*group, "build", "Make an image out of Debian's packages", [this] {
    if (image_.name.empty())
      image_.name = "minimal";
    return command_image_build(common_, image_);
  });
  auto* name = build->add_option("name", image_.name, "minimal (the default) or full");
  build->add_option("--recipe", image_.name, "A file with a recipe instead")
      ->check(CLI::ExistingFile)
      ->excludes(name);
  build
      ->add_option("--kernel", image_.kernel,
                   "own: built from source once, boots in a third of the time; debian: as it is")
      ->check(CLI::IsMember({"own", "debian"}));
  build->add_flag("--refresh", image_.refresh, "Take Debian's packages as they are today");
  add_to(*group, "ls", "Images there are", [this] { return command_image_list(common_, image_); });
  add_to(*group, "rm", "Remove an image", [this] { return command_image_remove(common_, image_); })
      ->add_option("name", image_.name, "By name, or by name-version")
      ->required();
  add_to(*group, "verify", "Check images against their hashes", [this] {
    return command_image_verify(common_, image_);
  })->add_option("name", image_.name, "Only this one");
}

void command_line::add_agents() {
  auto* chat = add("chat", "Talk with an agent that has a machine",
                   [this] { return command_chat(common_, chat_); });
  chat->add_option("text", chat_.words, "What to say; without it a prompt, or what is piped in");
  chat->add_option("-r,--role", chat_.role, "Who answers; default the selected role");
  chat->add_option("-c,--conversation", chat_.conversation, "Go on with this one");
  chat->add_option("-m,--model", chat_.model, "Another model than the role's");
}

void command_line::add_roles() {
  auto* roles = add("roles", "Who an agent can be: all roles, or one with its prompt", [this] {
    return chosen_.empty() ? command_roles(common_, role_) : command_use_role(common_, chosen_);
  });
  roles->add_option("role", role_, "Name or short name");
  roles->add_subcommand("use", "Choose the role that serves when none is named")
      ->add_option("role", chosen_, "Name or short name")
      ->required();
}

void command_line::add_workflows() {
  auto* group =
      app_.add_subcommand("workflow", "Workflows: patterns in which agents work together");
  group->require_subcommand(1);
  group->fallthrough();
  auto* fresh = add_to(*group, "run", "Run a workflow and show it as it goes",
                       [this] { return command_workflow_run(common_, workflow_); });
  fresh
      ->add_option("pattern", workflow_.pattern,
                   "chain, route, parallel, orchestrate, optimize or execute")
      ->required();
  fresh->add_option("prompt", workflow_.prompt, "The task")->required();
  fresh->add_option("-r,--role", workflow_.role, "Who does it; default the pattern's");
  fresh->add_option("--overall-role", workflow_.overall_role, "Who plans, joins and judges");
  fresh->add_option("--system", workflow_.system_prompt, "Instead of the role's system prompt");
  fresh->add_option("--model", workflow_.model, "Instead of the roles' models");
  fresh
      ->add_option("--steps", workflow_.steps,
                   "Steps, branches, routes or workers: a JSON file with a list of them")
      ->check(CLI::ExistingFile);
  fresh->add_option("--rounds", workflow_.rounds, "Rounds of optimization, at most 20");
  fresh->add_option("--threshold", workflow_.threshold, "Score that ends optimization, 0 to 10")
      ->check(CLI::Range(0.0, 10.0));
  fresh->add_option("--votes", workflow_.votes, "Parallel: so many answers, and the majority's");
  fresh->add_flag("-d,--detach", workflow_.detach, "Print its id and leave it running");
  auto* list = add_to(*group, "ls", "Workflows, newest first",
                      [this] { return command_workflows(common_, workflows_); });
  list->add_flag("--alive", workflows_.alive_only, "Only those that have not ended");
  list->add_option("-n,--limit", workflows_.limit, "At most so many, up to 1000");
  struct verb {
    const char* name;
    const char* meaning;
    int (*act)(const common_options&, const std::string&);
  };
  for (const verb& each :
       {verb{"status", "One workflow with its steps", command_workflow_status},
        verb{"cancel", "End a workflow", command_workflow_cancel},
        verb{"pause", "Let its steps end and begin no other", command_workflow_pause},
        verb{"resume", "Go on with a paused or interrupted workflow", command_workflow_resume}})
    add_to(*group, each.name, each.meaning, [this, act = each.act] { return act(common_, name_); })
        ->add_option("workflow", name_, "Id of the workflow")
        ->required();
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
  add_sessions();
  add_states();
  add_inside();
  add_images();
  add_roles();
  add_workflows();
  add_agents();
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
