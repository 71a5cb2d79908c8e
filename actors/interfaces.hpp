// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/open_files.hpp"
#include "messages/types.hpp"

#include <caf/typed_actor.hpp>

/// Who acts, and what may be said to whom: the architecture on one page.
namespace berth {

/// The VALIDATOR judges programs by the policy in force. Policy and audit, never the wall: the
/// machine is that.
using validator_actor = caf::typed_actor<
    // Judges a program; every reason is given, not only the first.
    on<judge>::reply<verdict>>;

/// The HISTORY keeps what must not be lost. Each answer to a record_... comes when the record is on
/// disk; many records share one sync.
using history_actor = caf::typed_actor<
    // Records that a job was accepted.
    on<record_accepted>::reply<recorded>,
    // Records how a job ended.
    on<record_ended>::reply<recorded>,
    // Answers whoever waits for a run, in GATEWAY's stead.
    on<answer_run>::reply<outcome>,
    // Records a session as it is.
    on<record_session>::reply<recorded>,
    // Answers with past jobs, newest first.
    on<query_history>::reply<history_page>>;

/// The STREAM HUB holds the output of jobs, within bounds in memory and beyond that in the spool,
/// publishes it, and serves any reader from any offset.
using stream_hub_actor = caf::typed_actor<
    // A job begins.
    caf::reacts_to<open_stream>,
    // A program wrote something; the answer gives the writer its credit back.
    on<output_chunk>::reply<output_taken>,
    // The job ended; answers with the outcome, its output filled in and redacted by policy.
    on<close_stream>::reply<outcome>,
    // Serves a reader, at once or as soon as there is news.
    on<read>::reply<output_slice>,
    // Publishes a state change.
    caf::reacts_to<announce>,
    // Publishes what happened to files of a session.
    on<announce_files>::reply<output_taken>,
    // A reader has waited long enough.
    caf::reacts_to<caf::timeout_atom, std::uint64_t>>;

/// The SPOOL keeps output that is too much for memory in files, on a thread of its own.
using spool_actor = caf::typed_actor<
    // Appends to a stream of a job.
    on<output_chunk>::reply<output_taken>,
    // Reads from a stream of a job.
    on<read_spool>::reply<spooled>,
    // The job writes no more: its output may go when space is needed.
    caf::reacts_to<end_spool>,
    // The job's output is wanted no more.
    caf::reacts_to<drop_spool>>;

/// The SNAPSHOT STORE keeps saved states of sessions on disk, within a budget, in a thread of its
/// own. What it says is durable survives the loss of power.
using snapshot_store_actor = caf::typed_actor<
    // Opens a file for an archive.
    on<begin_save>::reply<open_files>,
    // Makes a state durable; answers when it is.
    on<finish_save>::reply<save_finished>,
    // Forgets an archive that could not be written.
    caf::reacts_to<abandon_save>,
    // Opens what a state is restored from, once it is checked.
    on<open_archives>::reply<saved_states, open_files>,
    // Lists snapshots.
    on<list_snapshots>::reply<snapshot_list>,
    // Deletes a snapshot.
    on<delete_snapshot>::reply<snapshot_deleted>,
    // A session lives, or is over.
    caf::reacts_to<keep_states>>;

/// A SLOT holds one machine at a time and runs jobs in it.
using slot_actor = caf::typed_actor<
    // Starts a machine; slot_changed{idle} or {empty} goes to the SUPERVISOR. With files: from
    // these archives, in the order of fill_slot's checkpoints.
    caf::reacts_to<fill_slot>, caf::reacts_to<fill_slot, open_files>,
    // Destroys the machine; slot_changed{empty} goes to the SUPERVISOR.
    caf::reacts_to<empty_slot>,
    // Changes the machine's limits before the jobs to come.
    caf::reacts_to<limit_slot>,
    // Runs a job to its end. Answers with the outcome, once, whatever happens.
    on<run_job>::reply<outcome>,
    // Ends a job; its run_job answers.
    caf::reacts_to<stop_job>,
    // Writes to a job's standard input.
    on<write_stdin>::reply<stdin_written>,
    // Places files in the machine.
    on<put_files>::reply<files_put>,
    // Reads a file of the machine.
    on<read_file>::reply<file_content>,
    // Files of the machine, one by one.
    on<write_file>::reply<file_info>, on<list_files>::reply<file_list>,
    on<stat_file>::reply<file_info>, on<make_dir>::reply<file_info>,
    on<move_file>::reply<file_info>, on<remove_file>::reply<file_removed>,
    on<watch_files>::reply<files_watched>, on<read_watch>::reply<file_events>,
    on<unwatch_files>::reply<files_unwatched>,
    // Tells what the machine uses.
    on<get_usage>::reply<session_usage>,
    // Its live interpreters.
    on<open_context>::reply<context_info>, on<list_contexts>::reply<context_list>,
    on<restart_context>::reply<context_info>, on<close_context>::reply<context_closed>,
    on<interrupt>::reply<interrupt_sent>,
    // Saves the machine's state, between two jobs.
    on<freeze_slot>::reply<slot_frozen>,
    // Takes the machine back to a state, between two jobs.
    on<roll_slot>::reply<slot_rolled>,
    // Forgets a state.
    caf::reacts_to<drop_slot_state>,
    // Writes what changed between two states to a file, while jobs run.
    on<save_slot, open_files>::reply<slot_saved>>;

/// The SUPERVISOR owns the pool: which slots there are, who holds them, who waits, what is
/// replaced.
using supervisor_actor = caf::typed_actor<
    // Finds a machine for a job, sees it to its end and closes its stream: the answer is the
    // STREAM HUB's, the outcome with what it put out. An error is no_capacity: too many wait.
    on<place_job>::reply<outcome>,
    // Ends a job that waits or runs.
    on<stop_job>::reply<cancelled>,
    // Lists the jobs that wait or run.
    on<list_jobs>::reply<job_list>,
    // Finds the session a job belongs to; opens it when the policy provisions.
    on<find_session>::reply<session_info>,
    // Opens a session and answers when its machine is up.
    on<open_session>::reply<session_info>,
    // Ends a session and answers when its machine is gone.
    on<close_session>::reply<session_closed>,
    // Lists sessions.
    on<list_sessions>::reply<session_list>,
    // Writes to a job's standard input.
    on<write_stdin>::reply<stdin_written>,
    // Places files in a session.
    on<put_files>::reply<files_put>,
    // Reads a file of a session.
    on<read_file>::reply<file_content>,
    // Files of a session, one by one.
    on<write_file>::reply<file_info>, on<list_files>::reply<file_list>,
    on<stat_file>::reply<file_info>, on<make_dir>::reply<file_info>,
    on<move_file>::reply<file_info>, on<remove_file>::reply<file_removed>,
    on<watch_files>::reply<files_watched>, on<read_watch>::reply<file_events>,
    on<unwatch_files>::reply<files_unwatched>,
    // Tells what a session's machine uses.
    on<get_usage>::reply<session_usage>,
    // The live interpreters of a session.
    on<open_context>::reply<context_info>, on<list_contexts>::reply<context_list>,
    on<restart_context>::reply<context_info>, on<close_context>::reply<context_closed>,
    on<interrupt>::reply<interrupt_sent>,
    // Saved states of sessions.
    on<take_snapshot>::reply<snapshot_info>, on<list_snapshots>::reply<snapshot_list>,
    on<delete_snapshot>::reply<snapshot_deleted>, on<rollback>::reply<rolled_back>,
    on<fork_session>::reply<forked>, on<pause_session>::reply<session_info>,
    on<resume_session>::reply<session_info>,
    // Tells how the pool is.
    on<get_pool>::reply<pool_info>,
    // A slot's machine is up, lost or gone.
    caf::reacts_to<slot_changed>,
    // Keeps a compiled program for equal sources.
    caf::reacts_to<keep_binary>,
    // Ends every session and machine; answers when nothing is left.
    on<drain>::reply<drained>,
    // Its own clock.
    caf::reacts_to<caf::tick_atom>,
    // To itself: the stock is to be looked at.
    caf::reacts_to<caf::update_atom>>;

/// The RECORDS keep what agents and workflows must not lose, in a thread of their own. An answer to
/// put_record comes when it is on disk.
using records_actor =
    caf::typed_actor<on<put_record>::reply<recorded>, on<get_records>::reply<record_page>,
                     caf::reacts_to<drop_records>>;

/// The PROGRESS of agents and workflows: numbers their events, keeps them within bounds, publishes
/// them, and serves any reader from any number.
using progress_actor = caf::typed_actor<
    // Something happened.
    caf::reacts_to<note_progress>,
    // Serves a reader, at once or as soon as there is news.
    on<read_progress>::reply<progress_page>,
    // A reader has waited long enough.
    caf::reacts_to<caf::timeout_atom, std::uint64_t>>;

/// The ROLES: who an agent can be, and which models they speak with.
using roles_actor =
    caf::typed_actor<on<find_role>::reply<role_info>, on<list_roles>::reply<role_list>,
                     on<get_config>::reply<config_text>,
                     // Checks the whole of it, then writes it, then answers.
                     on<set_config>::reply<config_text>, on<select_role>::reply<config_text>>;

/// The MODEL asks language models, within the places that each endpoint has.
using model_actor = caf::typed_actor<
    // Asks; tokens go to PROGRESS as they come. Answers once, whatever happens.
    on<ask_model>::reply<model_answer>,
    // Closes the connection of a call; its ask_model answers.
    caf::reacts_to<cancel_model>,
    // Tells how the endpoints are.
    on<list_models>::reply<model_list>,
    // From the thread of the connections, and its own clock: there is news.
    caf::reacts_to<caf::update_atom>, caf::reacts_to<caf::tick_atom>>;

/// An AGENT is one conversation: what was said, its role, its session.
using agent_actor = caf::typed_actor<
    // Takes a turn; one at a time, others wait their turn.
    on<chat>::reply<chat_reply>,
    // Ends the turn it is at, or a chat that waits for its own.
    on<cancel_chat>::reply<chat_cancelled>,
    // The server ends: so does every chat, as interrupted.
    caf::reacts_to<drain>,
    // Its own clock: there may be a place at the model again.
    caf::reacts_to<caf::tick_atom>,
    // Tells itself.
    on<list_conversations>::reply<conversation_info>,
    // Closes its session and ends.
    on<close_conversation>::reply<conversation_closed>>;

/// The AGENTS as a whole: finds the AGENT of a conversation, wakes it from its records, bounds how
/// many are at work.
using agents_actor =
    caf::typed_actor<on<chat>::reply<chat_reply>, on<cancel_chat>::reply<chat_cancelled>,
                     on<list_conversations>::reply<conversation_list>,
                     on<close_conversation>::reply<conversation_closed>,
                     // Ends every turn; answers when all have answered.
                     on<drain>::reply<drained>,
                     // Its own clock: agents that are long idle go.
                     caf::reacts_to<caf::tick_atom>>;

/// The WORKFLOWS: starts one actor for each run, finds them, goes on after a restart.
using workflows_actor = caf::typed_actor<
    // Answers when it ended.
    on<run_workflow>::reply<workflow_info>,
    // Answers when it is on disk.
    on<submit_workflow>::reply<workflow_info>, on<get_workflow>::reply<workflow_info>,
    on<list_workflows>::reply<workflow_list>, on<cancel_workflow>::reply<workflow_info>,
    on<pause_workflow>::reply<workflow_info>, on<resume_workflow>::reply<workflow_info>,
    // A run changed: what it is now.
    caf::reacts_to<workflow_info>,
    // Begins nothing new; what runs is on disk as far as it came.
    on<drain>::reply<drained>>;

/// The GATEWAY is where every door leads: it admits, numbers, bounds and answers every request.
using gateway_actor = caf::typed_actor<
    // Runs a program and answers when it ended.
    on<run>::reply<outcome>,
    // Starts a program and answers when it is on disk.
    on<submit>::reply<accepted>,
    // Serves output of a job.
    on<read>::reply<output_slice>,
    // Ends a job.
    on<cancel>::reply<cancelled>,
    // Writes to a job's standard input.
    on<write_stdin>::reply<stdin_written>,
    // Judges a program without running it.
    on<validate>::reply<verdict>,
    // Lists the jobs that are alive.
    on<list_jobs>::reply<job_list>,
    // Sessions and their files.
    on<open_session>::reply<session_info>, on<close_session>::reply<session_closed>,
    on<list_sessions>::reply<session_list>, on<get_usage>::reply<session_usage>,
    on<put_files>::reply<files_put>, on<read_file>::reply<file_content>,
    on<write_file>::reply<file_info>, on<list_files>::reply<file_list>,
    on<stat_file>::reply<file_info>, on<make_dir>::reply<file_info>,
    on<move_file>::reply<file_info>, on<remove_file>::reply<file_removed>,
    on<watch_files>::reply<files_watched>, on<read_watch>::reply<file_events>,
    on<unwatch_files>::reply<files_unwatched>,
    // Live interpreters of sessions.
    on<open_context>::reply<context_info>, on<list_contexts>::reply<context_list>,
    on<restart_context>::reply<context_info>, on<close_context>::reply<context_closed>,
    on<interrupt>::reply<interrupt_sent>,
    // Saved states of sessions.
    on<take_snapshot>::reply<snapshot_info>, on<list_snapshots>::reply<snapshot_list>,
    on<delete_snapshot>::reply<snapshot_deleted>, on<rollback>::reply<rolled_back>,
    on<fork_session>::reply<forked>, on<pause_session>::reply<session_info>,
    on<resume_session>::reply<session_info>,
    // Past jobs.
    on<query_history>::reply<history_page>,
    // Agents and workflows, and what they are made of.
    on<chat>::reply<chat_reply>, on<cancel_chat>::reply<chat_cancelled>,
    on<list_conversations>::reply<conversation_list>,
    on<close_conversation>::reply<conversation_closed>, on<run_workflow>::reply<workflow_info>,
    on<submit_workflow>::reply<workflow_info>, on<get_workflow>::reply<workflow_info>,
    on<list_workflows>::reply<workflow_list>, on<cancel_workflow>::reply<workflow_info>,
    on<pause_workflow>::reply<workflow_info>, on<resume_workflow>::reply<workflow_info>,
    on<read_progress>::reply<progress_page>, on<list_roles>::reply<role_list>,
    on<get_config>::reply<config_text>, on<set_config>::reply<config_text>,
    on<select_role>::reply<config_text>, on<list_models>::reply<model_list>,
    // The pool, the server, the reference.
    on<get_pool>::reply<pool_info>, on<get_health>::reply<health_info>,
    on<describe>::reply<description>,
    // Takes nothing new; answers when every job ended, by itself within the grace time or by force.
    on<drain>::reply<drained>,
    // The grace time is over.
    caf::reacts_to<caf::timeout_atom>,
    // To itself: is the rush of requests over?
    caf::reacts_to<caf::tick_atom>>;

} // namespace berth

CAF_BEGIN_TYPE_ID_BLOCK(berth_actors, caf::id_block::berth_messages::end)

  CAF_ADD_TYPE_ID(berth_actors, (berth::open_files))
  CAF_ADD_TYPE_ID(berth_actors, (berth::validator_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::history_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::stream_hub_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::spool_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::snapshot_store_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::slot_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::supervisor_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::records_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::progress_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::roles_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::model_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::agent_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::agents_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::workflows_actor))
  CAF_ADD_TYPE_ID(berth_actors, (berth::gateway_actor))

CAF_END_TYPE_ID_BLOCK(berth_actors)
