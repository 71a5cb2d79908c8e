// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/chat.hpp"
#include "messages/files.hpp"
#include "messages/history.hpp"
#include "messages/job.hpp"
#include "messages/progress.hpp"
#include "messages/roles.hpp"
#include "messages/server.hpp"
#include "messages/session.hpp"
#include "messages/snapshot.hpp"
#include "messages/workflow.hpp"

/// Every operation that a client can ask for, in one list. The ZeroMQ bridge, the reference, the
/// command line and the tests walk it.
namespace berth {

/// A request, its answer, and its name on the wire.
template <class Request, class Reply>
struct operation {
  using request = Request;
  using reply = Reply;
  const char* op;
  const char* meaning;
};

inline constexpr std::tuple operations{
    operation<run, outcome>{"run", "Runs a program and answers when it ended."},
    operation<submit, accepted>{"submit", "Starts a program and answers when it is on disk."},
    operation<read, output_slice>{"read", "Output of a job from any offset, and its end."},
    operation<cancel, cancelled>{"cancel", "Ends a job and everything it started."},
    operation<write_stdin, stdin_written>{"write_stdin", "Writes to a job's standard input."},
    operation<validate, verdict>{"validate", "Judges a program without running it."},
    operation<list_jobs, job_list>{"jobs", "The jobs that are alive."},
    operation<open_session, session_info>{"open_session", "Opens a session."},
    operation<close_session, session_closed>{"close_session", "Ends a session."},
    operation<list_sessions, session_list>{"sessions", "Lists sessions."},
    operation<get_usage, session_usage>{"usage", "What a session's machine uses."},
    operation<put_files, files_put>{"put_files", "Places files in a session."},
    operation<read_file, file_content>{"files.read", "Reads a part of a file of a session."},
    operation<write_file, file_info>{"files.write", "Writes a part of a file of a session."},
    operation<list_files, file_list>{"files.list", "Lists a directory of a session."},
    operation<stat_file, file_info>{"files.stat", "Tells what a path names."},
    operation<make_dir, file_info>{"files.make_dir", "Makes a directory and those above it."},
    operation<move_file, file_info>{"files.move", "Moves or renames."},
    operation<remove_file, file_removed>{"files.remove", "Removes a file or a directory tree."},
    operation<watch_files, files_watched>{"files.watch", "Watches a directory."},
    operation<read_watch, file_events>{"files.events", "Takes the changes of a watch."},
    operation<unwatch_files, files_unwatched>{"files.unwatch", "Ends a watch."},
    operation<open_context, context_info>{"open_context",
                                          "Starts a live interpreter under a name."},
    operation<list_contexts, context_list>{"contexts", "The live interpreters of a session."},
    operation<restart_context, context_info>{"restart_context",
                                             "Ends a live interpreter and starts a new one."},
    operation<close_context, context_closed>{"close_context", "Ends a live interpreter."},
    operation<interrupt, interrupt_sent>{"interrupt",
                                         "Stops the cell that runs in a live interpreter."},
    operation<take_snapshot, snapshot_info>{"snapshot", "Saves the state of a session."},
    operation<list_snapshots, snapshot_list>{"snapshots", "Lists snapshots."},
    operation<delete_snapshot, snapshot_deleted>{"delete_snapshot", "Deletes a snapshot."},
    operation<rollback, rolled_back>{"rollback", "Takes a session back, in place."},
    operation<fork_session, forked>{"fork", "Makes independent sessions out of one."},
    operation<pause_session, session_info>{"pause_session", "Puts a session to sleep."},
    operation<resume_session, session_info>{"resume_session", "Wakes a session."},
    operation<query_history, history_page>{"history", "Past jobs, newest first."},
    operation<chat, chat_reply>{"chat", "Says something to an agent and gives its answer."},
    operation<cancel_chat, chat_cancelled>{
        "cancel_chat", "Ends a turn of an agent, or a chat that waits for its turn."},
    operation<list_conversations, conversation_list>{"conversations", "Lists conversations."},
    operation<close_conversation, conversation_closed>{"close_conversation",
                                                       "Forgets a conversation."},
    operation<run_workflow, workflow_info>{"workflow", "Runs a workflow, answers when it ended."},
    operation<submit_workflow, workflow_info>{"submit_workflow",
                                              "Starts a workflow, answers when it is on disk."},
    operation<get_workflow, workflow_info>{"workflow_status", "One workflow with its steps."},
    operation<list_workflows, workflow_list>{"workflows", "Lists workflows."},
    operation<cancel_workflow, workflow_info>{"cancel_workflow", "Ends a workflow."},
    operation<pause_workflow, workflow_info>{"pause_workflow", "Begins no further step."},
    operation<resume_workflow, workflow_info>{"resume_workflow", "Goes on with a workflow."},
    operation<read_progress, progress_page>{"progress",
                                            "Events of a conversation or workflow, in order."},
    operation<list_roles, role_list>{"roles", "Lists the roles."},
    operation<get_config, config_text>{"config", "The roles' configuration."},
    operation<set_config, config_text>{"set_config", "Replaces the roles' configuration."},
    operation<select_role, config_text>{"select_role", "Chooses the role that serves."},
    operation<list_models, model_list>{"models", "The endpoints of models, and how they are."},
    operation<get_pool, pool_info>{"pool", "The pool of machines."},
    operation<get_health, health_info>{"health", "How the server is."},
    operation<describe, description>{"describe", "This reference."},
};

/// The reference, made from the descriptions.
description make_description();

} // namespace berth
