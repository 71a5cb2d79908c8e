// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/facade.hpp"
#include "bridge/porter.hpp"

namespace berth::http {

template <class Reply, class Request>
void desk::ask(Request what, std::function<void(expected<Reply>)> done) const {
  if (waiting_->closed)
    return;
  auto kept = std::make_shared<std::function<void(expected<Reply>)>>(std::move(done));
  waiting_->callbacks.insert(kept);
  carrier_.ask<Reply>(std::move(what),
                      [post = post_, room = std::weak_ptr(waiting_),
                       weak = std::weak_ptr(kept)](expected<Reply> answer) mutable {
                        post({}, [room = std::move(room), weak = std::move(weak),
                                  answer = std::move(answer)]() mutable {
                          auto callback = weak.lock();
                          auto alive = room.lock();
                          if (!callback || !alive)
                            return;
                          alive->callbacks.erase(callback);
                          (*callback)(std::move(answer));
                        });
                      });
}

#define BERTH_DESK_ASK(request, reply)                                                             \
  template void desk::ask<reply, request>(request, std::function<void(expected<reply>)>) const

BERTH_DESK_ASK(run, outcome);
BERTH_DESK_ASK(submit, accepted);
BERTH_DESK_ASK(read, output_slice);
BERTH_DESK_ASK(cancel, cancelled);
BERTH_DESK_ASK(write_stdin, stdin_written);
BERTH_DESK_ASK(validate, verdict);
BERTH_DESK_ASK(list_jobs, job_list);
BERTH_DESK_ASK(open_session, session_info);
BERTH_DESK_ASK(close_session, session_closed);
BERTH_DESK_ASK(list_sessions, session_list);
BERTH_DESK_ASK(get_usage, session_usage);
BERTH_DESK_ASK(put_files, files_put);
BERTH_DESK_ASK(read_file, file_content);
BERTH_DESK_ASK(write_file, file_info);
BERTH_DESK_ASK(list_files, file_list);
BERTH_DESK_ASK(stat_file, file_info);
BERTH_DESK_ASK(make_dir, file_info);
BERTH_DESK_ASK(move_file, file_info);
BERTH_DESK_ASK(remove_file, file_removed);
BERTH_DESK_ASK(watch_files, files_watched);
BERTH_DESK_ASK(read_watch, file_events);
BERTH_DESK_ASK(unwatch_files, files_unwatched);
BERTH_DESK_ASK(take_snapshot, snapshot_info);
BERTH_DESK_ASK(list_snapshots, snapshot_list);
BERTH_DESK_ASK(delete_snapshot, snapshot_deleted);
BERTH_DESK_ASK(rollback, rolled_back);
BERTH_DESK_ASK(fork_session, forked);
BERTH_DESK_ASK(pause_session, session_info);
BERTH_DESK_ASK(resume_session, session_info);
BERTH_DESK_ASK(query_history, history_page);
BERTH_DESK_ASK(chat, chat_reply);
BERTH_DESK_ASK(cancel_chat, chat_cancelled);
BERTH_DESK_ASK(list_conversations, conversation_list);
BERTH_DESK_ASK(close_conversation, conversation_closed);
BERTH_DESK_ASK(run_workflow, workflow_info);
BERTH_DESK_ASK(submit_workflow, workflow_info);
BERTH_DESK_ASK(get_workflow, workflow_info);
BERTH_DESK_ASK(list_workflows, workflow_list);
BERTH_DESK_ASK(cancel_workflow, workflow_info);
BERTH_DESK_ASK(pause_workflow, workflow_info);
BERTH_DESK_ASK(resume_workflow, workflow_info);
BERTH_DESK_ASK(read_progress, progress_page);
BERTH_DESK_ASK(list_roles, role_list);
BERTH_DESK_ASK(get_config, config_text);
BERTH_DESK_ASK(set_config, config_text);
BERTH_DESK_ASK(select_role, config_text);
BERTH_DESK_ASK(list_models, model_list);
BERTH_DESK_ASK(get_pool, pool_info);
BERTH_DESK_ASK(get_health, health_info);
BERTH_DESK_ASK(describe, description);

#undef BERTH_DESK_ASK

} // namespace berth::http
