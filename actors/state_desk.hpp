// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "actors/machine_states.hpp"
#include "config/settings.hpp"
#include "store/snapshot_catalog.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace berth {

/// What a session's machine starts from.
struct machine_files {
  /// Archives, oldest first, with the numbers that the machine is to know their states by.
  open_files archives;
  std::vector<std::uint64_t> checkpoints;
  /// A machine to fork, at the one number in `checkpoints`; empty: none.
  std::string parent;
};

/// What the STATE DESK needs of the SUPERVISOR that it works for.
class state_host {
public:
  virtual ~state_host() = default;

  /// An open session; null when there is none with this id.
  virtual session_info* info_of(const std::string& session) = 0;
  /// The slot in which the session's machine is up; null when it is not.
  virtual const slot_actor* slot_of(const std::string& session) = 0;
  /// Jobs that run in the session now.
  virtual std::uint32_t running(const std::string& session) = 0;
  /// Puts a step of the desk among the session's jobs: behind them, or before those that wait.
  virtual void queue_step(const std::string& session, const std::string& step, bool in_front) = 0;
  /// Closes the stream of a job that ended, which answers whoever placed it.
  virtual void answer(caf::typed_response_promise<outcome> promise, outcome result) = 0;
  /// Ends all jobs of the session, those that wait included.
  virtual void end_jobs(const std::string& session, const std::string& why) = 0;
  /// The desk holds the session no longer: what waits may go on.
  virtual void go_on(const std::string& session) = 0;
  /// Destroys the session's machine; machine_gone() follows.
  virtual void leave_machine(const std::string& session) = 0;
  /// Finds the session a machine, if it needs one.
  virtual void seat(const std::string& session) = 0;
  /// Whether so many more sessions with machines can be; the error says why not.
  virtual error room_for(std::uint32_t sessions) = 0;
  /// Opens a session as a fork. It is not seated yet.
  virtual std::string open_fork(const session_info& parent) = 0;
  virtual void close(const std::string& session) = 0;
  virtual void publish(const std::string& session, std::string state, std::string detail) = 0;
  /// Writes the session as it is now to the journal.
  virtual void record(const std::string& session) = 0;
  /// The clock that delays follow too: simulated in tests.
  virtual std::chrono::steady_clock::time_point time() const = 0;
};

/// What the STATE DESK depends on.
struct state_desk_parts {
  std::shared_ptr<const settings> config;
  snapshot_store_actor store;
  history_actor history;
};

/// The STATE DESK keeps the states of sessions for the SUPERVISOR, whose part it is: snapshots,
/// rollback, forks, pause, and what a session comes back with when its machine or the server was
/// lost. It has no thread and no mailbox of its own; slots, the store and the history answer it
/// through the SUPERVISOR's.
///
/// One operation at a time holds a session: no job starts meanwhile, and it begins when none runs.
/// A state can be gone back to as soon as the machine has frozen it; its copy on disk follows
/// behind, in order, one at a time for each session.
class state_desk {
public:
  state_desk(supervisor_actor::pointer self, state_host& host, state_desk_parts parts);

  // --- operations --------------------------------------------------------------------------------

  caf::result<snapshot_info> take(const take_snapshot& request, const std::string& session);
  caf::result<snapshot_list> list(list_snapshots request);
  caf::result<snapshot_deleted> remove(const delete_snapshot& request);
  caf::result<rolled_back> roll_back(const rollback& request, const std::string& session);
  caf::result<forked> fork(const fork_session& request, const std::string& session);
  caf::result<session_info> pause(const std::string& session);

  // --- what the SUPERVISOR tells it --------------------------------------------------------------

  /// What the store has at the start.
  void know(std::vector<saved_state> states);
  /// A session that a former server left; says what becomes of it.
  void adopt(session_info& session);
  void opened(const std::string& session);
  void closed(const std::string& session);

  /// What the session's machine is to start from; nothing: not yet, seat() is called when it is
  /// known.
  std::optional<machine_files> files_for(const std::string& session);
  void machine_up(const std::string& session);
  void machine_lost(const std::string& session, const std::string& why);
  void machine_gone(const std::string& session);

  /// Whether the session sleeps: it is to have no machine.
  bool asleep(const std::string& session) const;
  void wake(const std::string& session);

  /// Whether no job may start in the session now.
  bool holds(const std::string& session) const;
  static bool is_step(const std::string& queued) { return queued.starts_with('#'); }
  void begin_step(const std::string& step);
  void cancel_step(const std::string& step);
  /// Whether a job may start; when not, the session goes on as soon as it may.
  bool may_start(const std::string& session, const std::string& job);
  /// A job of the session ended. True: the desk has its promise and delivers the outcome later.
  bool job_ended(const std::string& session, outcome& result,
                 const caf::typed_response_promise<outcome>& promise);
  /// Something else than a job may have changed the session's files.
  void touched(const std::string& session);
  void tick();
  /// Puts a session to sleep that nobody used for long.
  void pause_unused(const std::string& session);

  /// Saves what is not saved and puts every session to sleep; all_parked() tells when it is done.
  void park_all();
  bool all_parked() const;

private:
  using done = std::function<void(error)>;
  using got_state = std::function<void(expected<std::string>)>;
  using rolled = std::function<void(expected<rolled_back>)>;

  /// A step among a session's jobs.
  struct step {
    std::string session;
    std::function<void()> begin;
    done refuse;
  };

  struct session_states {
    /// What the machine has; empty while there is none.
    machine_states machine;
    /// The state that the present one grew out of; empty: the empty machine.
    std::string current;
    /// Whether anything may have changed since.
    bool changed = false;
    std::string last_job;
    std::uint64_t last_entry = 0;
    bool last_succeeded = false;
    bool held = false;
    bool asleep = false;
    /// Its jobs are being ended for a rollback: no rule looks at them.
    bool going_back = false;
    std::chrono::steady_clock::time_point last_change;
    std::chrono::steady_clock::time_point no_checkpoint_before;
    /// The job whose state before is saved, and that state.
    std::string ready_for;
    std::string before;
    std::string before_note;
    /// States that wait for their copy on disk, the first is being written.
    std::deque<std::string> saves;
    bool saving = false;
    /// The next archive adds to nothing, so that what it would add to can go.
    bool save_whole = false;
    /// States that must stay in the machine for others, which are counted.
    std::map<std::uint64_t, std::uint32_t> pinned;
    /// What the next machine starts from: a state, once its archives are open.
    std::string restore_from;
    bool opening = false;
    bool restoring = false;
    std::uint32_t failed_starts = 0;
    std::optional<machine_files> files;
    std::map<std::uint64_t, std::string> restored;
    std::string fork_of;
    done when_up;
    std::function<void()> when_gone;
  };

  /// What a state is saved as.
  struct label {
    saved_kind kind = saved_kind::snapshot;
    snapshot_reason reason = snapshot_reason::asked;
    std::string name;
    std::string description;
    bool memory = true;
  };

  /// Sessions that are being forked.
  struct forking {
    std::vector<std::string> sessions;
    std::set<std::string> missing;
    caf::typed_response_promise<forked> promise;
    std::string parent;
    std::uint64_t number = 0;
  };

  session_states* find(const std::string& session);
  const saved_state* state(const std::string& id) const { return known_.find(id); }

  // Sequences, one file each.
  void freeze(const std::string& session, label as, got_state then);
  void on_frozen(const std::string& session, const label& as, std::uint64_t number,
                 const slot_frozen& answer, const got_state& then);
  void save_behind(const std::string& session, const std::string& id);
  void save_next(const std::string& session);
  void write_archive(const std::string& session, const std::string& id, const open_files& file);
  void finish(const std::string& session, saved_state whole);
  void on_saved(const std::string& session, const std::string& id, expected<save_finished> result);
  void when_durable(const std::string& id, done then);
  void tell_durable(const std::string& id, const error& why);
  void go_to(const std::string& session, const std::string& target, rolled then);
  void replace_machine(const std::string& session, const std::string& target, rolled then);
  void stand_at(const std::string& session, const std::string& target);
  void open_files_for(const std::string& session);
  void on_opened(const std::string& session, const std::string& id, const saved_states& states,
                 const open_files& files);
  void on_not_opened(const std::string& session, const std::string& id, const error& why);
  void find_entry(const std::string& job, std::function<void(std::uint64_t)> then);
  void record_rollback(const std::string& session, rolled_back answer,
                       std::function<void(rolled_back)> then);
  void note_tip(const std::string& session, const std::string& target, done then);
  void unpin(const std::string& session, std::uint64_t number);
  void trim(const std::string& session);
  void forget_unneeded(const std::string& session);
  void forget_snapshot(const std::string& id);
  bool is_unsaved(const session_states& own) const;

  // Steps and holding.
  void hold(const std::string& session);
  void release(const std::string& session);
  void queue(const std::string& session, std::function<void()> begin, done refuse,
             bool in_front = false);

  // Operations, step by step.
  void begin_take(const take_snapshot& request, const std::string& session,
                  caf::typed_response_promise<snapshot_info> promise);
  void on_taken(const std::string& session, const expected<std::string>& id, std::uint64_t entry,
                bool wait, caf::typed_response_promise<snapshot_info> promise);
  void find_target(const rollback& request, const std::string& session, got_state then);
  void begin_roll_back(const std::string& session, const std::string& target, bool snapshot_first,
                       caf::typed_response_promise<rolled_back> promise);
  void roll_back_to(const std::string& session, const std::string& target,
                    const std::string& snapshot_before,
                    caf::typed_response_promise<rolled_back> promise);
  void begin_fork(const fork_session& request, const std::string& session,
                  caf::typed_response_promise<forked> promise);
  void start_forks(const fork_session& request, const std::string& session, const std::string& from,
                   caf::typed_response_promise<forked> promise);
  void save_forks(const std::string& from, const std::vector<std::string>& sessions);
  void fork_ready(const std::string& session);
  void fork_failed(const std::string& session, const std::string& why);
  void begin_pause(const std::string& session, done then);
  void fall_asleep(const std::string& session, done then);
  void checkpoint(const std::string& session);

  // Rules around a job.
  void save_before(const std::string& session, const std::string& job);
  void after_failure(const std::string& session, outcome result,
                     caf::typed_response_promise<outcome> promise);
  void roll_back_failed(const std::string& session, outcome result,
                        caf::typed_response_promise<outcome> promise);
  void hand_over(const std::string& session, outcome result,
                 caf::typed_response_promise<outcome> promise);

  std::string base_of(const session_states& of, std::uint64_t number, std::uint64_t& since) const;
  std::string durable_tip(const std::string& session) const;
  std::string damage_of_newest(const session_info& session, const std::string& tip) const;
  std::vector<const saved_state*> snapshots_of(const std::string& session) const;
  std::string what_came_back(const std::string& id) const;
  snapshot_info told(const saved_state& of) const;
  const history_settings& rules() const { return parts_.config->policy.history; }

  supervisor_actor::pointer self_ = nullptr;
  state_host& host_;
  state_desk_parts parts_;
  std::map<std::string, session_states> sessions_;
  /// All states, durable or not.
  snapshot_catalog known_;
  std::uint64_t last_sequence_ = 0;
  std::map<std::string, step> steps_;
  std::uint64_t last_step_ = 0;
  std::map<std::string, std::vector<done>> waiting_durable_;
  std::vector<std::shared_ptr<forking>> forks_;
  bool parking_ = false;
};

} // namespace berth
