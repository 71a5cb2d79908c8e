// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/history.hpp"
#include "messages/session.hpp"
#include "messages/snapshot.hpp"
#include "messages/workflow.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// The commands of `berth` that speak to a server, one function each. Each returns the exit code of
/// the process; 125 stands for a fault of Berth's own.
namespace berth {

struct serve_options;

/// What every command takes.
struct common_options {
  std::string endpoint;
  bool json = false;
};

/// `berth run`.
struct run_options {
  std::string file;
  std::string language;
  std::string session;
  std::string agent;
  double timeout_s = 0;
  std::uint64_t memory_mib = 0;
  std::vector<std::string> env;
  std::vector<std::string> files;
  bool stdin_forward = false;
  std::vector<std::string> args;
};

/// Runs a program as if it ran here: output as it comes, input when it is piped, its exit code.
/// 128 + n: signal n ended it; 124: out of time; 137: out of memory; 130: cancelled.
int command_run(const common_options& common, const run_options& options);

/// The jobs that are alive.
int command_ps(const common_options& common, const std::string& session);
int command_pool(const common_options& common);
int command_sessions(const common_options& common, const std::string& agent);
int command_health(const common_options& common);
int command_cancel(const common_options& common, const std::string& job);
int command_describe(const common_options& common, const std::string& name);

/// `berth image`: what virtual machines boot from, on this host and without a server.
struct image_command {
  /// An image by name, or by name and version; of `build` also a file with a recipe.
  std::string name;
  std::string kernel = "own";
  bool refresh = false;
  /// Where the images are; empty: the data directory of a server with default settings.
  std::string data_dir;
};

int command_image_build(const common_options& common, const image_command& options);
int command_image_list(const common_options& common, const image_command& options);
int command_image_remove(const common_options& common, const image_command& options);
int command_image_verify(const common_options& common, const image_command& options);

/// `berth shell`.
struct shell_options {
  std::string session;
  std::string language = "python";
  std::string context;
  double timeout_s = 0;
};

/// Cells typed, or piped, into a live interpreter of a session. The code of a piped one is the last
/// cell's.
int command_shell(const common_options& common, const shell_options& options);

/// `berth chat`.
struct chat_options {
  std::string role;
  std::string conversation;
  std::string model;
  std::vector<std::string> words;
};

/// Says something to an agent and shows what it does while it does it; without words a prompt, or
/// what is piped in. 130: the turn was cancelled; 1: there is no answer, or not a whole one.
int command_chat(const common_options& common, const chat_options& options);

/// Sessions.
int command_session_new(const common_options& common, const open_session& request);
int command_session_rm(const common_options& common, const std::vector<std::string>& sessions);
int command_fork(const common_options& common, const fork_session& request);
int command_pause(const common_options& common, const std::string& session);
int command_resume(const common_options& common, const std::string& session);

/// Saved states.
int command_snapshot(const common_options& common, const take_snapshot& request);
int command_snapshots(const common_options& common, const list_snapshots& request);
int command_delete_snapshot(const common_options& common, const std::string& snapshot);
int command_rollback(const common_options& common, const rollback& request);

/// A session's history as a tree, with its snapshots and where it was taken back.
int command_tree(const common_options& common, const std::string& session, std::uint32_t limit);

/// Copies files between here and a session; the last path is where to.
int command_copy(const common_options& common, std::vector<std::string> paths, bool recursive);

/// The roles of agents, or one with its prompt and settings.
int command_roles(const common_options& common, const std::string& role);
/// Chooses the role that serves when none is named.
int command_use_role(const common_options& common, const std::string& role);

/// Past jobs; one job with its code and its output when `query.job` names it.
int command_history(const common_options& common, const query_history& query);

/// Output of a job; with `follow` until it ends.
int command_logs(const common_options& common, const std::string& job, bool follow);

/// `berth workflow run`.
struct workflow_options {
  std::string pattern;
  std::string prompt;
  std::string role;
  std::string overall_role;
  std::string system_prompt;
  std::string model;
  /// A file of steps.
  std::string steps;
  std::uint32_t rounds = 0;
  std::uint32_t votes = 0;
  double threshold = -1;
  bool detach = false;
};

/// Runs a workflow and shows it as it goes; its result comes on standard output. 0: completed; 1:
/// failed; 130: cancelled.
int command_workflow_run(const common_options& common, const workflow_options& options);
int command_workflows(const common_options& common, const list_workflows& request);
int command_workflow_status(const common_options& common, const std::string& id);
int command_workflow_cancel(const common_options& common, const std::string& id);
int command_workflow_pause(const common_options& common, const std::string& id);
int command_workflow_resume(const common_options& common, const std::string& id);

/// What this host can do, and how the endpoints of models are that the settings name. 0 when the
/// default machine can run here, else 1.
int command_doctor(bool as_json, const serve_options& options);

/// The exit code that stands for how a job ended.
int exit_code_of(const outcome& ended);

/// How a job ended, for a human; empty when there is nothing to say.
std::string ending_of(const outcome& ended);

/// Writes all bytes to a descriptor; false when nobody reads it any more.
bool write_all(int fd, const bytes& data);

/// The next piece of standard input for a job, its end included; nothing when none is there yet.
std::optional<write_stdin> read_input(const std::string& job, std::size_t bytes_max);

} // namespace berth
