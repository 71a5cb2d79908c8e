// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/agents_internal.hpp"
#include "messages/caf.hpp"
#include "messages/files.hpp"
#include "messages/internal.hpp"
#include "messages/operations.hpp"
#include "messages/saved.hpp"
#include "messages/snapshot.hpp"

#include <caf/detail/type_list.hpp>

/// The register of all message types: what CAF knows, and what the generated tests walk.
namespace berth {

template <class... Ts>
struct type_list {};

using client_types = type_list<
    run, submit, read, cancel, write_stdin, validate, list_jobs, open_session, close_session,
    list_sessions, get_usage, put_files, read_file, query_history, get_pool, get_health, describe,
    outcome, accepted, output_slice, cancelled, stdin_written, verdict, job_list, job_info,
    session_info, session_closed, session_list, session_usage, files_put, file_content,
    history_page, entry, pool_info, slot_info, health_info, description, operation_info, type_info,
    field_info, error_info, refusal, placed_file, job_limits, state_event, output_event,
    rich_result, cell_error, cell_report, open_context, context_info, list_contexts, context_list,
    restart_context, close_context, context_closed, interrupt, interrupt_sent, take_snapshot,
    snapshot_info, list_snapshots, snapshot_list, delete_snapshot, snapshot_deleted, rollback,
    rolled_back, fork_session, forked, pause_session, resume_session, file_info, write_file,
    list_files, file_list, stat_file, make_dir, move_file, remove_file, file_removed, file_event,
    watch_files, files_watched, read_watch, file_events, files_unwatched, unwatch_files,
    model_choice, tool_call, chat_message, model_usage, list_models, endpoint_info, model_list,
    role_info, list_roles, role_list, get_config, set_config, select_role, config_text,
    progress_event, read_progress, progress_page, chat, agent_act, chat_reply, cancel_chat,
    chat_cancelled, list_conversations, conversation_info, conversation_list, close_conversation,
    conversation_closed, step_gate, workflow_step, run_workflow, submit_workflow, step_info,
    workflow_info, get_workflow, list_workflows, workflow_list, cancel_workflow, pause_workflow,
    resume_workflow>;

using internal_types =
    type_list<job_order, place_job, find_session, run_job, stop_job, open_stream, output_chunk,
              output_taken, close_stream, announce, announce_files, record_accepted, record_ended,
              answer_run, recorded, record_session, judge, fill_slot, empty_slot, limit_slot,
              slot_changed, drain, drained, read_spool, spooled, end_spool, drop_spool, keep_binary,
              saved_state, saved_states, begin_save, finish_save, abandon_save, save_finished,
              open_archives, keep_states, freeze_slot, slot_frozen, roll_slot, slot_rolled,
              drop_slot_state, files_ended, save_slot, slot_saved, ask_model, model_answer,
              cancel_model, note_progress, find_role, put_record, get_records, record_page,
              drop_records>;

using guest_types = type_list<
    guest::start_job, guest::stdin_data, guest::end_job, guest::put_file, guest::get_file,
    guest::ping, guest::prepare, guest::hello, guest::warmed, guest::job_started, guest::output,
    guest::stdin_taken, guest::binary, guest::job_ended, guest::job_refused, guest::file_put,
    guest::file_data, guest::dir_listed, guest::path_done, guest::files_changed, guest::list_dir,
    guest::stat_path, guest::make_path, guest::move_path, guest::remove_path, guest::watch_path,
    guest::unwatch_path, guest::pong, guest::open_kernel, guest::run_cell, guest::interrupt_kernel,
    guest::close_kernel, guest::freeze, guest::thaw, guest::drop_checkpoint, guest::kernel_opened,
    guest::kernel_ended, guest::cell_ended, guest::frozen, guest::thawed, guest::renew,
    guest::renewed, guest::limit, guest::used>;

} // namespace berth

CAF_BEGIN_TYPE_ID_BLOCK(berth_messages, caf::id_block::berth_errors::end)
  // A job's life.
  CAF_ADD_TYPE_ID(berth_messages, (berth::run))
  CAF_ADD_TYPE_ID(berth_messages, (berth::submit))
  CAF_ADD_TYPE_ID(berth_messages, (berth::read))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cancel))
  CAF_ADD_TYPE_ID(berth_messages, (berth::write_stdin))
  CAF_ADD_TYPE_ID(berth_messages, (berth::validate))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_jobs))
  CAF_ADD_TYPE_ID(berth_messages, (berth::outcome))
  CAF_ADD_TYPE_ID(berth_messages, (berth::accepted))
  CAF_ADD_TYPE_ID(berth_messages, (berth::output_slice))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cancelled))
  CAF_ADD_TYPE_ID(berth_messages, (berth::stdin_written))
  CAF_ADD_TYPE_ID(berth_messages, (berth::verdict))
  CAF_ADD_TYPE_ID(berth_messages, (berth::job_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::job_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::placed_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::job_limits))
  // Sessions and their files.
  CAF_ADD_TYPE_ID(berth_messages, (berth::open_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::close_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_sessions))
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_usage))
  CAF_ADD_TYPE_ID(berth_messages, (berth::put_files))
  CAF_ADD_TYPE_ID(berth_messages, (berth::read_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::session_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::session_closed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::session_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::session_usage))
  CAF_ADD_TYPE_ID(berth_messages, (berth::files_put))
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_content))
  // Live interpreters.
  CAF_ADD_TYPE_ID(berth_messages, (berth::rich_result))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cell_error))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cell_report))
  CAF_ADD_TYPE_ID(berth_messages, (berth::open_context))
  CAF_ADD_TYPE_ID(berth_messages, (berth::context_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_contexts))
  CAF_ADD_TYPE_ID(berth_messages, (berth::context_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::restart_context))
  CAF_ADD_TYPE_ID(berth_messages, (berth::close_context))
  CAF_ADD_TYPE_ID(berth_messages, (berth::context_closed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::interrupt))
  CAF_ADD_TYPE_ID(berth_messages, (berth::interrupt_sent))
  // Saved states.
  CAF_ADD_TYPE_ID(berth_messages, (berth::take_snapshot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::snapshot_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_snapshots))
  CAF_ADD_TYPE_ID(berth_messages, (berth::snapshot_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::delete_snapshot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::snapshot_deleted))
  CAF_ADD_TYPE_ID(berth_messages, (berth::rollback))
  CAF_ADD_TYPE_ID(berth_messages, (berth::rolled_back))
  CAF_ADD_TYPE_ID(berth_messages, (berth::fork_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::forked))
  CAF_ADD_TYPE_ID(berth_messages, (berth::pause_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::resume_session))
  // Files of a session, one by one.
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::write_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_files))
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::stat_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::make_dir))
  CAF_ADD_TYPE_ID(berth_messages, (berth::move_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::remove_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_removed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_event))
  CAF_ADD_TYPE_ID(berth_messages, (berth::watch_files))
  CAF_ADD_TYPE_ID(berth_messages, (berth::files_watched))
  CAF_ADD_TYPE_ID(berth_messages, (berth::read_watch))
  CAF_ADD_TYPE_ID(berth_messages, (berth::file_events))
  CAF_ADD_TYPE_ID(berth_messages, (berth::files_unwatched))
  CAF_ADD_TYPE_ID(berth_messages, (berth::unwatch_files))
  // The past.
  CAF_ADD_TYPE_ID(berth_messages, (berth::query_history))
  CAF_ADD_TYPE_ID(berth_messages, (berth::history_page))
  CAF_ADD_TYPE_ID(berth_messages, (berth::entry))
  // Agents, models, roles, workflows.
  CAF_ADD_TYPE_ID(berth_messages, (berth::model_choice))
  CAF_ADD_TYPE_ID(berth_messages, (berth::tool_call))
  CAF_ADD_TYPE_ID(berth_messages, (berth::chat_message))
  CAF_ADD_TYPE_ID(berth_messages, (berth::model_usage))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_models))
  CAF_ADD_TYPE_ID(berth_messages, (berth::endpoint_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::model_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::role_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_roles))
  CAF_ADD_TYPE_ID(berth_messages, (berth::role_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_config))
  CAF_ADD_TYPE_ID(berth_messages, (berth::set_config))
  CAF_ADD_TYPE_ID(berth_messages, (berth::select_role))
  CAF_ADD_TYPE_ID(berth_messages, (berth::config_text))
  CAF_ADD_TYPE_ID(berth_messages, (berth::progress_event))
  CAF_ADD_TYPE_ID(berth_messages, (berth::read_progress))
  CAF_ADD_TYPE_ID(berth_messages, (berth::progress_page))
  CAF_ADD_TYPE_ID(berth_messages, (berth::chat))
  CAF_ADD_TYPE_ID(berth_messages, (berth::agent_act))
  CAF_ADD_TYPE_ID(berth_messages, (berth::chat_reply))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cancel_chat))
  CAF_ADD_TYPE_ID(berth_messages, (berth::chat_cancelled))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_conversations))
  CAF_ADD_TYPE_ID(berth_messages, (berth::conversation_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::conversation_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::close_conversation))
  CAF_ADD_TYPE_ID(berth_messages, (berth::conversation_closed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::step_gate))
  CAF_ADD_TYPE_ID(berth_messages, (berth::workflow_step))
  CAF_ADD_TYPE_ID(berth_messages, (berth::run_workflow))
  CAF_ADD_TYPE_ID(berth_messages, (berth::submit_workflow))
  CAF_ADD_TYPE_ID(berth_messages, (berth::step_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::workflow_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_workflow))
  CAF_ADD_TYPE_ID(berth_messages, (berth::list_workflows))
  CAF_ADD_TYPE_ID(berth_messages, (berth::workflow_list))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cancel_workflow))
  CAF_ADD_TYPE_ID(berth_messages, (berth::pause_workflow))
  CAF_ADD_TYPE_ID(berth_messages, (berth::resume_workflow))
  // The server itself.
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_pool))
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_health))
  CAF_ADD_TYPE_ID(berth_messages, (berth::describe))
  CAF_ADD_TYPE_ID(berth_messages, (berth::pool_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::slot_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::health_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::description))
  CAF_ADD_TYPE_ID(berth_messages, (berth::operation_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::type_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::field_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::error_info))
  CAF_ADD_TYPE_ID(berth_messages, (berth::refusal))
  CAF_ADD_TYPE_ID(berth_messages, (berth::state_event))
  CAF_ADD_TYPE_ID(berth_messages, (berth::output_event))
  // Between actors.
  CAF_ADD_TYPE_ID(berth_messages, (berth::job_order))
  CAF_ADD_TYPE_ID(berth_messages, (berth::place_job))
  CAF_ADD_TYPE_ID(berth_messages, (berth::find_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::run_job))
  CAF_ADD_TYPE_ID(berth_messages, (berth::stop_job))
  CAF_ADD_TYPE_ID(berth_messages, (berth::open_stream))
  CAF_ADD_TYPE_ID(berth_messages, (berth::output_chunk))
  CAF_ADD_TYPE_ID(berth_messages, (berth::output_taken))
  CAF_ADD_TYPE_ID(berth_messages, (berth::close_stream))
  CAF_ADD_TYPE_ID(berth_messages, (berth::announce))
  CAF_ADD_TYPE_ID(berth_messages, (berth::announce_files))
  CAF_ADD_TYPE_ID(berth_messages, (berth::record_accepted))
  CAF_ADD_TYPE_ID(berth_messages, (berth::record_ended))
  CAF_ADD_TYPE_ID(berth_messages, (berth::answer_run))
  CAF_ADD_TYPE_ID(berth_messages, (berth::recorded))
  CAF_ADD_TYPE_ID(berth_messages, (berth::record_session))
  CAF_ADD_TYPE_ID(berth_messages, (berth::judge))
  CAF_ADD_TYPE_ID(berth_messages, (berth::fill_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::empty_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::limit_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::slot_changed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::drain))
  CAF_ADD_TYPE_ID(berth_messages, (berth::drained))
  CAF_ADD_TYPE_ID(berth_messages, (berth::read_spool))
  CAF_ADD_TYPE_ID(berth_messages, (berth::spooled))
  CAF_ADD_TYPE_ID(berth_messages, (berth::end_spool))
  CAF_ADD_TYPE_ID(berth_messages, (berth::drop_spool))
  CAF_ADD_TYPE_ID(berth_messages, (berth::keep_binary))
  // Between actors, about saved states.
  CAF_ADD_TYPE_ID(berth_messages, (berth::saved_state))
  CAF_ADD_TYPE_ID(berth_messages, (berth::saved_states))
  CAF_ADD_TYPE_ID(berth_messages, (berth::begin_save))
  CAF_ADD_TYPE_ID(berth_messages, (berth::finish_save))
  CAF_ADD_TYPE_ID(berth_messages, (berth::abandon_save))
  CAF_ADD_TYPE_ID(berth_messages, (berth::save_finished))
  CAF_ADD_TYPE_ID(berth_messages, (berth::open_archives))
  CAF_ADD_TYPE_ID(berth_messages, (berth::keep_states))
  CAF_ADD_TYPE_ID(berth_messages, (berth::freeze_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::slot_frozen))
  CAF_ADD_TYPE_ID(berth_messages, (berth::roll_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::slot_rolled))
  CAF_ADD_TYPE_ID(berth_messages, (berth::drop_slot_state))
  CAF_ADD_TYPE_ID(berth_messages, (berth::files_ended))
  CAF_ADD_TYPE_ID(berth_messages, (berth::save_slot))
  CAF_ADD_TYPE_ID(berth_messages, (berth::slot_saved))
  // Between agents, models and workflows.
  CAF_ADD_TYPE_ID(berth_messages, (berth::ask_model))
  CAF_ADD_TYPE_ID(berth_messages, (berth::model_answer))
  CAF_ADD_TYPE_ID(berth_messages, (berth::cancel_model))
  CAF_ADD_TYPE_ID(berth_messages, (berth::note_progress))
  CAF_ADD_TYPE_ID(berth_messages, (berth::find_role))
  CAF_ADD_TYPE_ID(berth_messages, (berth::put_record))
  CAF_ADD_TYPE_ID(berth_messages, (berth::get_records))
  CAF_ADD_TYPE_ID(berth_messages, (berth::record_page))
  CAF_ADD_TYPE_ID(berth_messages, (berth::drop_records))
  // From the guest.
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::hello))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::warmed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::job_started))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::output))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::stdin_taken))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::binary))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::job_ended))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::job_refused))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::file_put))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::file_data))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::dir_listed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::path_done))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::files_changed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::pong))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::kernel_opened))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::kernel_ended))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::cell_ended))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::frozen))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::thawed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::renewed))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::used))
  // To the guest.
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::start_job))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::stdin_data))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::end_job))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::put_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::get_file))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::list_dir))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::stat_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::make_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::move_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::remove_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::watch_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::unwatch_path))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::ping))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::prepare))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::open_kernel))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::run_cell))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::interrupt_kernel))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::close_kernel))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::freeze))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::thaw))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::drop_checkpoint))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::renew))
  CAF_ADD_TYPE_ID(berth_messages, (berth::guest::limit))
CAF_END_TYPE_ID_BLOCK(berth_messages)
