// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"

namespace berth {

namespace {

using terminal::table;
using terminal::tint;

/// What is written to disk, or started many times, may take long.
constexpr std::chrono::minutes patience{5};

void show_sessions(const std::vector<session_info>& sessions) {
  table rows{{"SESSION", "NAME", "STATE", "AGENT", "JOBS", "AGE", "USED", "KIND", "MACHINE"}};
  for (const auto& one : sessions)
    rows.add({one.session, one.name, std::string{name_of(one.state)}, one.agent_id,
              std::to_string(one.jobs_run), terminal::age(one.created_at_ms),
              terminal::age(one.last_used_at_ms) + " ago", one.machine_kind, one.machine},
             {tint::plain, tint::plain, tint_of(name_of(one.state))});
  rows.print("no session is open");
}

void show_session(const session_info& one) {
  show_sessions({one});
  if (!one.detail.empty())
    terminal::report(terminal::clean(one.detail));
}

std::string contexts_of(const std::vector<std::string>& contexts) {
  std::string all;
  for (const auto& name : contexts)
    all += (all.empty() ? "" : ", ") + terminal::clean(name);
  return all;
}

} // namespace

int command_sessions(const common_options& common, const std::string& agent) {
  list_sessions request;
  request.agent_id = agent;
  return ask_and_show<session_list>(common, request,
                                    [](const session_list& list) { show_sessions(list.sessions); });
}

int command_session_new(const common_options& common, const open_session& request) {
  return ask_and_show<session_info>(
      common, request, [](const session_info& one) { std::printf("%s\n", one.name.c_str()); },
      patience);
}

int command_session_rm(const common_options& common, const std::vector<std::string>& sessions) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  int code = 0;
  for (const auto& name : sessions) {
    auto answer = (*server)->ask<session_closed>(close_session{.session = name});
    if (!answer)
      code = terminal::report(answer.error());
    else if (common.json)
      print_json(*answer);
    else
      std::printf("%s\n", terminal::clean(name).c_str());
  }
  return code;
}

int command_fork(const common_options& common, const fork_session& request) {
  return ask_and_show<forked>(
      common, request,
      [](const forked& made) {
        show_sessions(made.sessions);
        std::string alive = contexts_of(made.contexts);
        std::printf("\n%zu with the parent's %s%s\n", made.sessions.size(),
                    std::string{name_of(made.content)}.c_str(),
                    alive.empty() ? "" : (", alive in each: " + alive).c_str());
      },
      patience);
}

int command_pause(const common_options& common, const std::string& session) {
  return ask_and_show<session_info>(common, pause_session{.session = session}, show_session,
                                    patience);
}

int command_resume(const common_options& common, const std::string& session) {
  return ask_and_show<session_info>(common, resume_session{.session = session}, show_session,
                                    patience);
}

int command_snapshot(const common_options& common, const take_snapshot& request) {
  return ask_and_show<snapshot_info>(
      common, request,
      [](const snapshot_info& made) { std::printf("%s\n", made.snapshot.c_str()); }, patience);
}

int command_snapshots(const common_options& common, const list_snapshots& request) {
  return ask_and_show<snapshot_list>(common, request, [](const snapshot_list& list) {
    table rows{{"SNAPSHOT", "SESSION", "WHEN", "ENTRY", "WHY", "CONTENT", "SIZE", "DURABLE",
                "DESCRIPTION"}};
    for (const auto& one : list.snapshots) {
      bool sound = one.damage.empty();
      rows.add({one.snapshot, one.session, terminal::moment(one.created_at_ms),
                one.entry == 0 ? "" : std::to_string(one.entry), std::string{name_of(one.reason)},
                sound ? std::string{name_of(one.content)} : "damaged",
                terminal::size(one.size_bytes), one.durable ? "yes" : "not yet",
                sound ? one.description : one.damage},
               {tint::plain, tint::plain, tint::plain, tint::plain, tint::plain,
                sound ? tint::plain : tint::red});
    }
    rows.print("there is no snapshot");
    if (!list.snapshots.empty())
      std::printf("\nall snapshots take %s of at most %s\n",
                  terminal::size(list.bytes_used).c_str(), terminal::size(list.bytes_max).c_str());
  });
}

int command_delete_snapshot(const common_options& common, const std::string& snapshot) {
  return ask_and_show<snapshot_deleted>(
      common, delete_snapshot{.snapshot = snapshot},
      [](const snapshot_deleted& gone) { std::printf("%s\n", gone.snapshot.c_str()); });
}

int command_rollback(const common_options& common, const rollback& request) {
  return ask_and_show<rolled_back>(
      common, request,
      [](const rolled_back& done) {
        std::printf("%s is at %s: %s", done.session.c_str(), done.snapshot.c_str(),
                    std::string{name_of(done.content)}.c_str());
        if (std::string alive = contexts_of(done.contexts); !alive.empty())
          std::printf(", alive: %s", alive.c_str());
        std::printf("\n");
        if (!done.snapshot_before.empty())
          std::printf("what was before is saved as %s\n", done.snapshot_before.c_str());
        if (!done.detail.empty())
          terminal::report(terminal::clean(done.detail));
      },
      patience);
}

} // namespace berth
