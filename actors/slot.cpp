// SPDX-License-Identifier: Apache-2.0
#include "actors/slot.hpp"

#include "actors/ids.hpp"
#include "actors/lifecycle.hpp"
#include "actors/slot_contexts.hpp"
#include "actors/slot_files.hpp"
#include "actors/slot_job.hpp"
#include "actors/slot_saver.hpp"
#include "config/limits.hpp"
#include "config/log.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <set>

namespace berth {

namespace {

using caf::timeout_atom;

/// How long after a source's own limit its word may come that a machine was not up in time.
constexpr std::chrono::seconds its_word_within{5};

/// What a slot wants to be woken for.
enum class wake : std::uint8_t { start, warm, deadline, force, files, watch, context, kill, state };

/// A wake-up: when, what for, which job or request.
struct alarm {
  std::chrono::steady_clock::time_point at;
  wake what = wake::start;
  std::uint32_t number = 0;
};

/// What a SLOT hears beside what others may say to it: its machine and its own clock. Every message
/// of a machine carries the machine's number, so that a late word of an old one is not taken for
/// the new one's.
using slot_self = slot_actor::extend<
    caf::reacts_to<std::uint64_t, guest::hello>, caf::reacts_to<std::uint64_t, guest::warmed>,
    caf::reacts_to<std::uint64_t, guest::job_started>, caf::reacts_to<std::uint64_t, guest::output>,
    caf::reacts_to<std::uint64_t, guest::stdin_taken>, caf::reacts_to<std::uint64_t, guest::binary>,
    caf::reacts_to<std::uint64_t, guest::job_ended>,
    caf::reacts_to<std::uint64_t, guest::job_refused>,
    caf::reacts_to<std::uint64_t, guest::file_put>, caf::reacts_to<std::uint64_t, guest::file_data>,
    caf::reacts_to<std::uint64_t, guest::dir_listed>,
    caf::reacts_to<std::uint64_t, guest::path_done>,
    caf::reacts_to<std::uint64_t, guest::files_changed>, caf::reacts_to<std::uint64_t, guest::pong>,
    caf::reacts_to<std::uint64_t, guest::renewed>, caf::reacts_to<std::uint64_t, guest::used>,
    caf::reacts_to<std::uint64_t, guest::kernel_opened>,
    caf::reacts_to<std::uint64_t, guest::kernel_ended>,
    caf::reacts_to<std::uint64_t, guest::cell_ended>, caf::reacts_to<std::uint64_t, guest::frozen>,
    caf::reacts_to<std::uint64_t, guest::thawed>, caf::reacts_to<std::uint64_t, files_ended>,
    // The machine is lost: why, and whether memory ran out.
    caf::reacts_to<std::uint64_t, std::string, bool>,
    // Nothing of the machine exists any more.
    caf::reacts_to<std::uint64_t>,
    // It is time to look at the alarms.
    caf::reacts_to<timeout_atom>>;

/// Hands what a machine says to its slot. Lives on the reactor's thread.
class forwarder : public machines::machine_listener {
public:
  forwarder(slot_self slot, std::uint64_t machine)
    : slot_(std::move(slot))
    , machine_(machine) {}

  void on_frame(guest::from_guest frame) override {
    std::visit([this](auto& message) { caf::anon_send(slot_, machine_, std::move(message)); },
               frame);
  }
  void on_lost(std::string why, bool out_of_memory) override {
    caf::anon_send(slot_, machine_, std::move(why), out_of_memory);
  }
  void on_files(machines::files_done done) override {
    caf::anon_send(slot_, machine_,
                   files_ended{.step = static_cast<std::uint32_t>(done.step),
                               .checkpoint = done.checkpoint,
                               .bytes_written = done.bytes,
                               .skipped = done.skipped,
                               .error = std::move(done.error)});
  }
  void on_gone() override { caf::anon_send(slot_, machine_); }

private:
  slot_self slot_;
  std::uint64_t machine_;
};

error not_up() {
  return fail(ec::machine_failed, "the session's machine is not up");
}

/// An error of a file, with the member at fault before its text.
error with_member(const char* member, const error& why) {
  refusal told = to_refusal(why);
  return caf::make_error(static_cast<ec>(told.code), std::string{member} + ": " + told.detail,
                         told.retry_after_ms.value_or(0));
}

/// SLOT: one machine at a time, and the jobs in it.
class slot_logic {
public:
  static constexpr const char* name = "berth.slot";

  slot_logic() = default;
  slot_logic(const slot_logic&) = delete;
  slot_logic& operator=(const slot_logic&) = delete;
  ~slot_logic() {
    if (machine_)
      machine_->destroy();
  }

  slot_self::behavior_type make_behavior(slot_self::pointer self, slot_parts parts);

private:
  // Requests.
  void on_fill(const fill_slot& request, const open_files& files);
  void on_empty();
  void on_limit(const limit_slot& request);
  caf::result<outcome> on_run(run_job& request);
  void on_stop(const stop_job& request);
  caf::result<stdin_written> on_write_stdin(const write_stdin& request);
  caf::result<files_put> on_put_files(const put_files& request);
  caf::result<file_content> on_read_file(const read_file& request);
  caf::result<file_info> on_write_file(const write_file& request);
  caf::result<file_list> on_list_files(const list_files& request);
  caf::result<file_removed> on_remove_file(const remove_file& request);
  caf::result<files_watched> on_watch_files(const watch_files& request);
  caf::result<file_events> on_read_watch(const read_watch& request);
  caf::result<files_unwatched> on_unwatch_files(const unwatch_files& request);
  caf::result<session_usage> on_usage();
  caf::result<context_info> on_open_context(const open_context& request);
  caf::result<context_info> on_restart_context(const restart_context& request);
  caf::result<context_closed> on_close_context(const close_context& request);
  caf::result<slot_frozen> on_freeze(const freeze_slot& request);
  caf::result<slot_rolled> on_roll(const roll_slot& request);
  caf::result<slot_saved> on_save(const save_slot& request, const open_files& to);
  void on_drop(const drop_slot_state& request);

  // The machine.
  void on_hello(const guest::hello& message);
  void on_warmed(const guest::warmed& message);
  void on_started(const guest::job_started& message);
  void on_output(guest::output& message);
  void on_stdin_taken(const guest::stdin_taken& message);
  void on_binary(guest::binary& message);
  void on_ended(const guest::job_ended& message);
  void on_refused(const guest::job_refused& message);
  void on_cell_ended(guest::cell_ended& message);
  void on_files_changed(guest::files_changed& message);
  void on_lost(const std::string& why, bool out_of_memory);
  void on_gone();
  void on_alarm();
  void on_wake(wake what, std::uint32_t number);

  // Steps.
  void become_ready();
  void prepare(std::uint32_t number);
  void start(std::uint32_t number);
  void start_cell(std::uint32_t number, slot_job& job);
  slot_contexts::hooks context_hooks();
  bool is_up() const { return machine_ && hello_ && state_ != slot_state::ending; }
  void feed_stdin(std::uint32_t number, slot_job& job);
  void finish(std::uint32_t number, outcome result);
  void finish_all(const std::string& why, bool out_of_memory);
  void destroy();
  error place_files(std::uint32_t number, slot_job& job);
  void on_files_placed(std::uint32_t number, const expected<file_info>& answer);
  template <class Answer, class Reply, class Request, class Make>
  caf::result<Reply> ask_guest(Request request, const char* member, Make make);
  template <class Request>
  caf::result<file_info> ask_info(Request request, const char* member);
  void watch_the_time();
  void arm_for_readers();
  std::function<void()> credit(std::uint64_t size);
  error cannot_switch() const;
  template <class F>
  void on_file_word(F step);
  template <class Reply, class F>
  void switch_files(caf::typed_response_promise<Reply> promise, F begin);
  void on_frozen(const guest::frozen& message);
  void on_thawed(const guest::thawed& message);
  void report(slot_state state, std::string detail = {});
  void wake_later(std::chrono::milliseconds delay, wake what, std::uint32_t number);
  void arm();
  /// The clock that delays follow too: simulated in tests.
  std::chrono::steady_clock::time_point now() const { return self_->system().clock().now(); }
  slot_job* find_job(const std::string& job, std::uint32_t* number = nullptr);
  slot_job* job_of(std::uint32_t number);
  void fail_requests(const std::string& why);

  slot_self::pointer self_ = nullptr;
  slot_parts parts_;
  slot_state state_ = slot_state::empty;
  std::uint64_t machine_number_ = 0; // grows with every machine in this slot
  std::string machine_id_;
  std::shared_ptr<machines::machine> machine_;
  std::chrono::steady_clock::time_point started_;
  std::string wanted_warm_;
  std::multiset<std::string> warm_; // warm interpreters the guest told of
  bool hello_ = false;
  machines::machine_limits limits_;
  std::map<std::uint32_t, slot_job> jobs_;
  slot_files files_{[this](guest::to_guest message) {
    if (machine_)
      machine_->send(message);
  }};
  std::vector<std::function<void()>> when_files_rest_;
  slot_watches watches_;
  bool watches_the_time_ = false;
  slot_contexts contexts_{context_hooks()};
  std::uint64_t oom_kills_seen_ = 0; // by the end of the last interpreter that died
  std::optional<std::chrono::steady_clock::time_point> watch_alarm_;
  std::uint32_t next_number_ = 0;
  slot_saver saver_;
  std::uint64_t output_in_flight_ = 0;
  bool output_held_ = false;
  /// Alarms of this machine, and when CAF's clock wakes the slot next. One timer serves them all,
  /// for most are over long before they are due.
  std::vector<alarm> alarms_;
  std::optional<std::chrono::steady_clock::time_point> armed_;
};

slot_self::behavior_type slot_logic::make_behavior(slot_self::pointer self, slot_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  // A word of a machine that is no longer this slot's is dropped.
  auto mine = [this](std::uint64_t machine) { return machine == machine_number_ && machine_; };
  return {
      [this](const fill_slot& x) { on_fill(x, {}); },
      [this](const fill_slot& x, const open_files& files) { on_fill(x, files); },
      [this](const empty_slot&) { on_empty(); },
      [this](const limit_slot& x) { on_limit(x); },
      [this](run_job& x) { return on_run(x); },
      [this](const stop_job& x) { on_stop(x); },
      [this](const write_stdin& x) { return on_write_stdin(x); },
      [this](const put_files& x) { return on_put_files(x); },
      [this](const read_file& x) { return on_read_file(x); },
      [this](const write_file& x) { return on_write_file(x); },
      [this](const list_files& x) { return on_list_files(x); },
      [this](const stat_file& x) { return ask_info(guest::stat_path{.path = x.path}, "path"); },
      [this](const make_dir& x) { return ask_info(guest::make_path{.path = x.path}, "path"); },
      [this](const move_file& x) {
        return ask_info(guest::move_path{.from = x.from, .to = x.to}, "");
      },
      [this](const remove_file& x) { return on_remove_file(x); },
      [this](const watch_files& x) { return on_watch_files(x); },
      [this](const read_watch& x) { return on_read_watch(x); },
      [this](const unwatch_files& x) { return on_unwatch_files(x); },
      [this](const get_usage&) { return on_usage(); },
      [this](const open_context& x) { return on_open_context(x); },
      [this](const list_contexts&) { return contexts_.list(); },
      [this](const restart_context& x) { return on_restart_context(x); },
      [this](const close_context& x) { return on_close_context(x); },
      [this](const interrupt& x) -> caf::result<interrupt_sent> {
        return contexts_.interrupt_cell(x);
      },
      [this](const freeze_slot& x) { return on_freeze(x); },
      [this](const roll_slot& x) { return on_roll(x); },
      [this](const drop_slot_state& x) { on_drop(x); },
      [this](const save_slot& x, const open_files& to) { return on_save(x, to); },
      [this, mine](std::uint64_t m, const guest::hello& x) {
        if (mine(m))
          on_hello(x);
      },
      [this, mine](std::uint64_t m, const guest::warmed& x) {
        if (mine(m))
          on_warmed(x);
      },
      [this, mine](std::uint64_t m, const guest::job_started& x) {
        if (mine(m))
          on_started(x);
      },
      [this, mine](std::uint64_t m, guest::output& x) {
        if (mine(m))
          on_output(x);
      },
      [this, mine](std::uint64_t m, const guest::stdin_taken& x) {
        if (mine(m))
          on_stdin_taken(x);
      },
      [this, mine](std::uint64_t m, guest::binary& x) {
        if (mine(m))
          on_binary(x);
      },
      [this, mine](std::uint64_t m, const guest::job_ended& x) {
        if (mine(m))
          on_ended(x);
      },
      [this, mine](std::uint64_t m, const guest::job_refused& x) {
        if (mine(m))
          on_refused(x);
      },
      [this, mine](std::uint64_t m, guest::file_put& x) {
        if (mine(m))
          on_file_word([&] { files_.on_put(x); });
      },
      [this, mine](std::uint64_t m, guest::file_data& x) {
        if (mine(m))
          on_file_word([&] { files_.on_answer(x); });
      },
      [this, mine](std::uint64_t m, guest::dir_listed& x) {
        if (mine(m))
          on_file_word([&] { files_.on_answer(x); });
      },
      [this, mine](std::uint64_t m, guest::path_done& x) {
        if (mine(m))
          on_file_word([&] { files_.on_answer(x); });
      },
      [this, mine](std::uint64_t m, guest::files_changed& x) {
        if (mine(m))
          on_files_changed(x);
      },
      [](std::uint64_t, const guest::pong&) {},
      // The machine keeps these two for itself.
      [](std::uint64_t, const guest::renewed&) {},
      [](std::uint64_t, const guest::used&) {},
      [this, mine](std::uint64_t m, const guest::kernel_opened& x) {
        if (mine(m))
          contexts_.on_opened(x);
      },
      [this, mine](std::uint64_t m, const guest::kernel_ended& x) {
        if (mine(m))
          contexts_.on_kernel_ended(x);
      },
      [this, mine](std::uint64_t m, guest::cell_ended& x) {
        if (mine(m))
          on_cell_ended(x);
      },
      [this, mine](std::uint64_t m, const guest::frozen& x) {
        if (mine(m))
          on_frozen(x);
      },
      [this, mine](std::uint64_t m, const guest::thawed& x) {
        if (mine(m))
          on_thawed(x);
      },
      [this, mine](std::uint64_t m, const files_ended& x) {
        if (mine(m))
          saver_.on_files(*machine_, x);
      },
      [this, mine](std::uint64_t m, const std::string& why, bool oom) {
        if (mine(m))
          on_lost(why, oom);
      },
      [this, mine](std::uint64_t m) {
        if (mine(m))
          on_gone();
      },
      [this](timeout_atom) { on_alarm(); },
  };
}

// --- the machine's life --------------------------------------------------------------------------

void slot_logic::on_fill(const fill_slot& request, const open_files& files) {
  auto to = next(state_, slot_event::fill);
  if (!to)
    return;
  state_ = *to;
  ++machine_number_;
  machine_id_ = request.machine;
  wanted_warm_ = request.warm;
  warm_.clear();
  hello_ = false;
  output_in_flight_ = 0;
  output_held_ = false;
  alarms_.clear(); // they were the last machine's
  watches_the_time_ = false;
  watch_alarm_.reset();
  started_ = std::chrono::steady_clock::now();
  limits_ = {.memory_bytes = request.memory_mib * limits::mib,
             .processes = request.processes,
             .disk_bytes = request.disk_mib * limits::mib};
  machines::machine_spec spec{.id = request.machine, .limits = limits_, .warm = {}};
  if (!request.warm.empty())
    spec.warm.push_back(request.warm);
  for (std::size_t i = 0; i < std::min(files.files.size(), request.checkpoints.size()); ++i)
    spec.layers.push_back({.checkpoint = request.checkpoints[i], .archive = files.files[i]});
  if (!request.parent.empty() && !request.checkpoints.empty()) {
    spec.parent = request.parent;
    spec.checkpoint = request.checkpoints.front();
  }
  auto listener = std::make_shared<forwarder>(caf::actor_cast<slot_self>(self_), machine_number_);
  machine_ = parts_.source->start(spec, std::move(listener));
  // A source that sees to the time itself has the first word.
  std::chrono::milliseconds within{parts_.start_timeout_ms};
  auto its_own = parts_.source->start_within();
  if (its_own > std::chrono::milliseconds{})
    within = std::max(within, its_own + its_word_within);
  wake_later(within, wake::start, 0);
}

void slot_logic::on_hello(const guest::hello& message) {
  if (hello_)
    return;
  hello_ = true;
  if (message.version != guest::protocol_version) {
    machine_->destroy();
    return;
  }
  // For Go nothing can be kept waiting.
  bool waits = !wanted_warm_.empty() && wanted_warm_ != "go";
  if (waits && !warm_.contains(wanted_warm_))
    wake_later(warm_wait, wake::warm, 0);
  else
    become_ready();
}

void slot_logic::become_ready() {
  if (auto to = next(state_, slot_event::ready)) {
    state_ = *to;
    report(slot_state::idle);
  }
}

void slot_logic::on_warmed(const guest::warmed& message) {
  if (warm_.size() < limits::elements_max)
    warm_.insert(message.language);
  contexts_.on_warmed(message.language);
  if (state_ == slot_state::starting && hello_ && message.language == wanted_warm_)
    become_ready();
  for (auto& [number, job] : jobs_)
    if (job.waits_for_warm && job.order.request.language == message.language) {
      job.waits_for_warm = false;
      start(number);
      return;
    }
}

void slot_logic::on_limit(const limit_slot& request) {
  machines::machine_limits wanted{.memory_bytes = request.memory_mib * limits::mib,
                                  .processes = request.processes,
                                  .disk_bytes = request.disk_mib * limits::mib};
  if (!machine_ || wanted == limits_)
    return;
  limits_ = wanted;
  machine_->set_limits(wanted);
}

void slot_logic::on_empty() {
  if (!next(state_, slot_event::end)) {
    report(slot_state::empty);
    return;
  }
  finish_all("the machine was ended", false);
  contexts_.clear("the machine was ended");
  destroy();
}

void slot_logic::destroy() {
  state_ = slot_state::ending;
  fail_requests("the machine was ended");
  if (machine_)
    machine_->destroy();
}

void slot_logic::on_lost(const std::string& why, bool out_of_memory) {
  if (state_ == slot_state::ending)
    return;
  slot_state before = state_;
  state_ = slot_state::ending;
  log::warn("slot", "lost its machine",
            {{"machine", machine_id_}, {"was", std::string{name_of(before)}}, {"why", why}});
  finish_all(why, out_of_memory);
  contexts_.clear("the machine was lost: " + why);
  fail_requests("the machine was lost: " + why);
  report(slot_state::ending, why);
  machine_->destroy();
}

void slot_logic::on_gone() {
  finish_all("the machine is gone", false);
  contexts_.clear("the machine is gone");
  fail_requests("the machine is gone");
  machine_.reset();
  state_ = slot_state::empty;
  report(slot_state::empty);
}

void slot_logic::report(slot_state state, std::string detail) {
  self_->send(parts_.supervisor, slot_changed{.slot = parts_.number,
                                              .machine = machine_id_,
                                              .state = state,
                                              .detail = std::move(detail)});
}

// --- jobs ----------------------------------------------------------------------------------------

caf::result<outcome> slot_logic::on_run(run_job& request) {
  std::uint32_t number = ++next_number_;
  slot_job& job = jobs_[number];
  job.order = std::move(request.order);
  job.exclusive = request.exclusive;
  job.binary = std::move(request.binary);
  job.want_binary = request.want_binary;
  job.promise = self_->make_response_promise<outcome>();
  auto promise = job.promise;
  if (!machine_ || state_ == slot_state::ending || state_ == slot_state::starting) {
    finish(number, ended_without_run(job, job_state::machine_lost, "the machine is not there"));
    return promise;
  }
  if (state_ == slot_state::idle)
    state_ = slot_state::leased;
  state_ = next(state_, slot_event::begin).value_or(slot_state::busy);
  // Asking the machine costs more than a cell: of cells it is asked when an interpreter died.
  if (!request.order.request.kernel)
    job.oom_kills_before = machine_->usage().oom_kills;
  prepare(number);
  return promise;
}

/// Files first, then a warm interpreter if one can be had, then the start.
void slot_logic::prepare(std::uint32_t number) {
  slot_job& job = jobs_.at(number);
  const run& request = job.order.request;
  if (!request.files.empty())
    if (error why = place_files(number, job))
      return finish(number, ended_without_run(job, job_state::blocked, describe_error(why)));
  if (request.kernel) {
    if (error why = contexts_.prepare(request))
      return finish(number, ended_without_run(job, job_state::blocked, describe_error(why)));
    return start(number);
  }
  bool can_be_warm = request.language == "python" || request.language == "javascript"
                     || request.language == "rust";
  if (can_be_warm && job.binary.empty() && !warm_.contains(request.language)
      && machine_->warm(request.language)) {
    job.waits_for_warm = true;
    wake_later(warm_wait, wake::warm, number);
  }
  start(number);
}

void slot_logic::start(std::uint32_t number) {
  slot_job& job = jobs_.at(number);
  if (job.waits_for_files || job.waits_for_warm || job.sent)
    return;
  const run& request = job.order.request;
  if (request.kernel)
    return start_cell(number, job);
  bool modified = job.order.verdict.decision == decision::modify;
  guest::start_job message{.job = number,
                           .language = request.language,
                           .code = modified ? job.order.verdict.code : request.code,
                           .args = request.args,
                           .env = request.env,
                           .cwd = request.cwd,
                           .stdin_open = request.stdin_open || !request.stdin_data.empty(),
                           .output_bytes = job.order.limits.output_bytes,
                           .exclusive = job.exclusive,
                           .binary = std::move(job.binary),
                           .want_binary = job.want_binary};
  // One warm rustc compiles one program; an exclusive interpreter becomes its job.
  if (request.language == "rust" || job.exclusive)
    warm_.erase(request.language);
  job.sent = true;
  job.started_at_ms = unix_ms();
  job.started = std::chrono::steady_clock::now();
  machine_->send(message);
  job.stdin_waiting.assign(request.stdin_data.begin(), request.stdin_data.end());
  job.stdin_eof = !request.stdin_open;
  if (message.stdin_open)
    feed_stdin(number, job);
  wake_later(std::chrono::milliseconds{job.order.limits.timeout_ms}, wake::deadline, number);
}

void slot_logic::start_cell(std::uint32_t number, slot_job& job) {
  const run& request = job.order.request;
  if (!contexts_.is_known(request.context))
    return;
  bool modified = job.order.verdict.decision == decision::modify;
  guest::run_cell message{.job = number,
                          .context = request.context,
                          .code = modified ? job.order.verdict.code : request.code,
                          .stdin_open = request.stdin_open || !request.stdin_data.empty(),
                          .output_bytes = job.order.limits.output_bytes};
  job.sent = true;
  job.started_at_ms = unix_ms();
  job.started = std::chrono::steady_clock::now();
  machine_->send(message);
  contexts_.cell_sent(request.context);
  job.stdin_waiting.assign(request.stdin_data.begin(), request.stdin_data.end());
  job.stdin_eof = !request.stdin_open;
  if (message.stdin_open)
    feed_stdin(number, job);
  wake_later(std::chrono::milliseconds{job.order.limits.timeout_ms}, wake::deadline, number);
  on_started({.job = number, .path = run_path::warm});
}

slot_contexts::hooks slot_logic::context_hooks() {
  return {.send = [this](const guest::to_guest& message) { machine_->send(message); },
          .take_warm =
              [this](std::string_view wanted) {
                auto found = warm_.find(std::string{wanted});
                if (found != warm_.end() && wanted == "python_kernel")
                  // The guest lets its plain interpreter go when it makes a live one.
                  warm_.erase("python");
                if (found != warm_.end()) {
                  warm_.erase(found);
                  return slot_contexts::warmth::here;
                }
                return machine_->warm(wanted) ? slot_contexts::warmth::coming
                                              : slot_contexts::warmth::none;
              },
          .wake_later = [this](std::chrono::milliseconds delay,
                               std::uint32_t number) { wake_later(delay, wake::context, number); },
          .on_known =
              [this](const std::string& context) {
                for (auto& [number, job] : jobs_)
                  if (job.order.request.kernel && job.order.request.context == context && !job.sent)
                    return start(number);
              },
          .at_rest = [this] { return saver_.busy(); }};
}

/// Sends input as far as the guest has room for it.
void slot_logic::feed_stdin(std::uint32_t number, slot_job& job) {
  while (job.stdin_room > 0 && (!job.stdin_waiting.empty() || job.stdin_eof) && !job.stdin_closed) {
    std::size_t size = std::min({job.stdin_waiting.size(), limits::chunk_bytes_max,
                                 static_cast<std::size_t>(job.stdin_room)});
    guest::stdin_data message{.job = number, .data = {}, .eof = false};
    message.data.assign(job.stdin_waiting.begin(),
                        job.stdin_waiting.begin() + static_cast<std::ptrdiff_t>(size));
    job.stdin_waiting.erase(job.stdin_waiting.begin(),
                            job.stdin_waiting.begin() + static_cast<std::ptrdiff_t>(size));
    job.stdin_room -= size;
    message.eof = job.stdin_eof && job.stdin_waiting.empty();
    job.stdin_closed = message.eof;
    machine_->send(message);
  }
}

void slot_logic::on_started(const guest::job_started& message) {
  slot_job* job = job_of(message.job);
  if (job == nullptr || job->running)
    return;
  job->running = true;
  job->path = message.path;
  self_->send(parts_.hub, announce{.topic = "job." + job->order.job + ".state",
                                   .event = {.id = job->order.job,
                                             .state = "running",
                                             .detail = machine_id_,
                                             .at_ms = unix_ms()}});
}

void slot_logic::on_output(guest::output& message) {
  slot_job* job = job_of(message.job);
  bool known = message.stream == guest::stdout_stream || message.stream == guest::stderr_stream;
  if (job == nullptr || !known || message.data.empty())
    return;
  std::uint64_t size = message.data.size();
  auto give_back = credit(size);
  self_
      ->request(parts_.hub, caf::infinite,
                output_chunk{.job = job->order.job,
                             .stream = message.stream,
                             .data = std::move(message.data)})
      .then([give_back](const output_taken&) { give_back(); },
            [give_back](const error&) { give_back(); });
}

/// Counts bytes that the hub has not taken yet; past the credit the machine is not read. What it
/// returns gives them back.
std::function<void()> slot_logic::credit(std::uint64_t size) {
  output_in_flight_ += size;
  if (output_in_flight_ > limits::output_credit_bytes && !output_held_) {
    output_held_ = true;
    machine_->hold_output(true);
  }
  return [this, size, machine = machine_number_] {
    if (machine != machine_number_)
      return;
    output_in_flight_ -= std::min(size, output_in_flight_);
    if (output_held_ && output_in_flight_ <= limits::output_credit_bytes / 2) {
      output_held_ = false;
      machine_->hold_output(false);
    }
  };
}

void slot_logic::on_stdin_taken(const guest::stdin_taken& message) {
  if (slot_job* job = job_of(message.job)) {
    job->stdin_room = std::min(job->stdin_room + message.bytes_taken, stdin_window);
    feed_stdin(message.job, *job);
  }
}

void slot_logic::on_binary(guest::binary& message) {
  slot_job* job = job_of(message.job);
  if (job == nullptr || !job->want_binary
      || job->compiled.size() + message.data.size() > limits::cached_binary_bytes_max)
    return;
  job->compiled.insert(job->compiled.end(), message.data.begin(), message.data.end());
  if (!message.last)
    return;
  job->want_binary = false;
  self_->send(parts_.supervisor, keep_binary{.language = job->order.request.language,
                                             .code = job->order.request.code,
                                             .data = std::move(job->compiled)});
}

void slot_logic::on_ended(const guest::job_ended& message) {
  slot_job* job = job_of(message.job);
  if (job == nullptr || !job->sent)
    return;
  machines::machine_usage usage = machine_->usage();
  outcome result = ended_by_guest(*job, message, usage);
  finish(message.job, std::move(result));
}

void slot_logic::on_refused(const guest::job_refused& message) {
  slot_job* job = job_of(message.job);
  if (job == nullptr)
    return;
  job_state state = job_state::machine_lost;
  if (job->order.request.kernel) {
    contexts_.cell_ended(job->order.request.context, nullptr);
    state = job->stop ? state_of(*job->stop) : job_state::blocked;
  }
  finish(message.job, ended_without_run(*job, state, message.reason));
}

void slot_logic::on_cell_ended(guest::cell_ended& message) {
  std::uint32_t number = message.ended.job;
  slot_job* job = job_of(number);
  if (job == nullptr || !job->sent || !job->order.request.kernel)
    return;
  bool out_of_memory = false;
  if (!message.report.kernel_alive) {
    std::uint64_t kills = machine_->usage().oom_kills;
    out_of_memory = kills > std::exchange(oom_kills_seen_, kills);
  }
  auto notes = contexts_.cell_ended(job->order.request.context, &message.report);
  job->path = notes.path;
  outcome result = ended_cell(*job, message, out_of_memory);
  if (!notes.lost.empty())
    result.detail = notes.lost + (result.detail.empty() ? "" : "; ") + result.detail;
  finish(number, std::move(result));
}

void slot_logic::on_stop(const stop_job& request) {
  std::uint32_t number = 0;
  slot_job* job = find_job(request.job, &number);
  if (job == nullptr)
    return;
  if (!job->stop)
    job->stop = request.reason;
  if (!job->sent) {
    finish(number, ended_without_run(*job, state_of(*job->stop), "ended before it was started"));
    return;
  }
  if (job->order.request.kernel) {
    machine_->send(guest::interrupt_kernel{.context = job->order.request.context});
    wake_later(cell_grace, wake::kill, number);
    return;
  }
  machine_->send(guest::end_job{.job = number});
  wake_later(limits::guest_grace, wake::force, number);
}

void slot_logic::finish(std::uint32_t number, outcome result) {
  auto node = jobs_.extract(number);
  if (node.empty())
    return;
  slot_job& job = node.mapped();
  result.machine = machine_id_;
  result.machine_kind = std::string{parts_.source->kind()};
  std::erase_if(alarms_, [&](const alarm& each) {
    bool is_jobs = each.what != wake::context && each.what != wake::state;
    return each.number == number && is_jobs; // those numbers are their own
  });
  // Files that were on their way for this job are nobody's any more.
  files_.forget(job.upload);
  if (jobs_.empty())
    if (auto to = next(state_, slot_event::done))
      state_ = *to;
  job.promise.deliver(std::move(result));
}

void slot_logic::finish_all(const std::string& why, bool out_of_memory) {
  while (!jobs_.empty()) {
    auto& [number, job] = *jobs_.begin();
    job_state state = out_of_memory ? job_state::out_of_memory : job_state::machine_lost;
    if (job.stop)
      state = state_of(*job.stop);
    finish(number, ended_without_run(job, state, why));
  }
}

void slot_logic::on_wake(wake what, std::uint32_t number) {
  switch (what) {
  case wake::start:
    if (state_ == slot_state::starting)
      on_lost("the machine did not come up in time", false);
    break;
  case wake::warm:
    if (number == 0) {
      become_ready();
    } else if (slot_job* job = job_of(number); job != nullptr && job->waits_for_warm) {
      job->waits_for_warm = false;
      start(number);
    }
    break;
  case wake::deadline:
    if (slot_job* job = job_of(number))
      on_stop({.job = job->order.job, .reason = end_reason::timed_out});
    break;
  case wake::force:
    if (slot_job* job = job_of(number); job != nullptr)
      on_lost("the guest did not end a job in time", false);
    break;
  case wake::files:
    watches_the_time_ = false;
    on_file_word([this] {
      if (files_.expire(now()))
        watch_the_time();
    });
    break;
  case wake::watch:
    watch_alarm_.reset();
    watches_.time_out(now());
    arm_for_readers();
    break;
  case wake::context:
    contexts_.on_wake(number);
    break;
  case wake::kill:
    if (job_of(number) != nullptr) {
      machine_->send(guest::end_job{.job = number});
      wake_later(limits::guest_grace, wake::force, number);
    }
    break;
  case wake::state:
    if (std::string why = saver_.on_timeout(number); !why.empty())
      on_lost(why, false);
    break;
  }
}

slot_job* slot_logic::find_job(const std::string& id, std::uint32_t* number) {
  for (auto& [key, job] : jobs_)
    if (job.order.job == id) {
      if (number != nullptr)
        *number = key;
      return &job;
    }
  return nullptr;
}

slot_job* slot_logic::job_of(std::uint32_t number) {
  auto found = jobs_.find(number);
  return found == jobs_.end() ? nullptr : &found->second;
}

// --- input and files -----------------------------------------------------------------------------

caf::result<stdin_written> slot_logic::on_write_stdin(const write_stdin& request) {
  std::uint32_t number = 0;
  slot_job* job = find_job(request.job, &number);
  if (job == nullptr)
    return fail(ec::not_found, "job " + request.job + " does not run");
  if (!job->order.request.stdin_open || job->stdin_eof)
    return fail(ec::conflict, "standard input of job " + request.job + " is closed");
  if (job->stdin_waiting.size() + request.data.size() > limits::stdin_waiting_bytes_max)
    return fail(ec::no_capacity, "data: the program has not read what it was sent before");
  job->stdin_waiting.insert(job->stdin_waiting.end(), request.data.begin(), request.data.end());
  job->stdin_eof = request.eof;
  if (job->sent)
    feed_stdin(number, *job);
  return stdin_written{.job = request.job, .bytes_taken = request.data.size()};
}

/// Sends a job's files ahead of it.
error slot_logic::place_files(std::uint32_t number, slot_job& job) {
  file_upload upload;
  upload.files = std::move(job.order.request.files);
  upload.cwd = job.order.request.cwd;
  upload.done = [this, number](const expected<file_info>& answer) {
    on_files_placed(number, answer);
  };
  auto under_way = files_.upload(std::move(upload), now());
  if (!under_way)
    return under_way.error();
  job.upload = *under_way;
  job.waits_for_files = true;
  watch_the_time();
  return {};
}

void slot_logic::on_files_placed(std::uint32_t number, const expected<file_info>& answer) {
  slot_job* job = job_of(number);
  if (job == nullptr)
    return;
  job->waits_for_files = false;
  if (answer)
    start(number);
  else
    finish(number, ended_without_run(*job, job_state::blocked,
                                     "files: " + to_refusal(answer.error()).detail));
}

caf::result<files_put> slot_logic::on_put_files(const put_files& request) {
  if (!is_up())
    return not_up();
  if (request.files.empty())
    return fail(ec::malformed, "files: is empty");
  auto promise = self_->make_response_promise<files_put>();
  file_upload upload;
  upload.files = request.files;
  upload.done = [promise, count = request.files.size()](const expected<file_info>& answer) mutable {
    if (answer)
      promise.deliver(files_put{.count = static_cast<std::uint32_t>(count)});
    else
      promise.deliver(with_member("files", answer.error()));
  };
  if (auto under_way = files_.upload(std::move(upload), now()); !under_way)
    promise.deliver(under_way.error());
  watch_the_time();
  return promise;
}

caf::result<file_info> slot_logic::on_write_file(const write_file& request) {
  if (!is_up())
    return not_up();
  auto promise = self_->make_response_promise<file_info>();
  file_upload upload;
  upload.files = {{.path = request.path, .data = request.data, .mode = request.mode}};
  upload.offset = request.offset;
  upload.keep_mode = true;
  upload.done = [promise](expected<file_info> answer) mutable {
    if (answer)
      promise.deliver(std::move(*answer));
    else
      promise.deliver(with_member("path", answer.error()));
  };
  if (auto under_way = files_.upload(std::move(upload), now()); !under_way)
    promise.deliver(under_way.error());
  watch_the_time();
  return promise;
}

/// Asks the guest; `make(Answer&)` makes the client's reply of its answer.
template <class Answer, class Reply, class Request, class Make>
caf::result<Reply> slot_logic::ask_guest(Request request, const char* member, Make make) {
  if (!is_up())
    return not_up();
  auto promise = self_->make_response_promise<Reply>();
  files_.ask<Answer>(std::move(request), member, now(),
                     [promise, make](expected<Answer> answer) mutable {
                       if (answer)
                         promise.deliver(make(*answer));
                       else
                         promise.deliver(std::move(answer.error()));
                     });
  watch_the_time();
  return promise;
}

/// Asks the guest for something that is answered with what a path names then.
template <class Request>
caf::result<file_info> slot_logic::ask_info(Request request, const char* member) {
  return ask_guest<guest::path_done, file_info>(
      std::move(request), member,
      [](guest::path_done& answer) { return answer.info ? std::move(*answer.info) : file_info{}; });
}

caf::result<file_content> slot_logic::on_read_file(const read_file& request) {
  std::size_t wanted = request.bytes_max == 0 ? limits::file_read_bytes_max : request.bytes_max;
  auto size = static_cast<std::uint32_t>(std::min(wanted, limits::file_read_bytes_max));
  guest::get_file message{.path = request.path, .offset = request.offset, .bytes_max = size};
  return ask_guest<guest::file_data, file_content>(
      std::move(message), "path",
      [path = request.path, offset = request.offset](guest::file_data& answer) {
        return file_content{.path = path,
                            .data = std::move(answer.data),
                            .offset = offset,
                            .size = answer.size,
                            .eof = answer.eof};
      });
}

caf::result<file_list> slot_logic::on_list_files(const list_files& request) {
  return ask_guest<guest::dir_listed, file_list>(
      guest::list_dir{.path = request.path, .depth = request.depth}, "path",
      [](guest::dir_listed& answer) {
        return file_list{.entries = std::move(answer.entries), .truncated = answer.truncated};
      });
}

caf::result<file_removed> slot_logic::on_remove_file(const remove_file& request) {
  return ask_guest<guest::path_done, file_removed>(
      guest::remove_path{.path = request.path}, "path",
      [](guest::path_done& answer) { return file_removed{.path = std::move(answer.path)}; });
}

// --- watches -------------------------------------------------------------------------------------

caf::result<files_watched> slot_logic::on_watch_files(const watch_files& request) {
  if (!is_up())
    return not_up();
  if (watches_.full())
    return fail(ec::no_capacity, "session: has " + std::to_string(limits::watches_per_session_max)
                                     + " watches already");
  // Before the guest is asked: what it tells at once must find its watch.
  std::string id = watches_.add(request.session);
  auto promise = self_->make_response_promise<files_watched>();
  guest::watch_path message{.watch = id, .path = request.path, .recursive = request.recursive};
  files_.ask<guest::path_done>(std::move(message), "path", now(),
                               [this, promise, id](expected<guest::path_done> answer) mutable {
                                 if (answer) {
                                   promise.deliver(files_watched{.watch = id});
                                   return;
                                 }
                                 watches_.remove(id);
                                 promise.deliver(std::move(answer.error()));
                               });
  watch_the_time();
  return promise;
}

caf::result<file_events> slot_logic::on_read_watch(const read_watch& request) {
  auto promise = self_->make_response_promise<file_events>();
  watches_.read(request.watch, now() + std::chrono::milliseconds{request.wait_ms}, now(),
                [promise](expected<file_events> answer) mutable {
                  if (answer)
                    promise.deliver(std::move(*answer));
                  else
                    promise.deliver(std::move(answer.error()));
                });
  arm_for_readers();
  return promise;
}

/// One alarm for all who wait for changes: the first one's.
void slot_logic::arm_for_readers() {
  auto first = watches_.first_deadline();
  if (!first || (watch_alarm_ && *watch_alarm_ <= *first))
    return;
  watch_alarm_ = first;
  wake_later(std::chrono::ceil<std::chrono::milliseconds>(*first - now()), wake::watch, 0);
}

caf::result<files_unwatched> slot_logic::on_unwatch_files(const unwatch_files& request) {
  if (!watches_.has(request.watch))
    return fail(ec::not_found, "watch: there is no watch " + request.watch + " in this session");
  watches_.remove(request.watch);
  return ask_guest<guest::path_done, files_unwatched>(
      guest::unwatch_path{.watch = request.watch}, "watch",
      [id = request.watch](guest::path_done&) { return files_unwatched{.watch = id}; });
}

void slot_logic::on_files_changed(guest::files_changed& message) {
  std::uint64_t size = 0;
  for (const auto& event : message.events)
    size += event.path.size() + sizeof event;
  for (auto& [session, events] : watches_.take(message)) {
    auto give_back = credit(size);
    self_
        ->request(parts_.hub, caf::infinite,
                  announce_files{.session = session, .events = std::move(events)})
        .then([give_back](const output_taken&) { give_back(); },
              [give_back](const error&) { give_back(); });
  }
}

/// Looks now and then whether a request for files has waited too long.
void slot_logic::watch_the_time() {
  if (watches_the_time_ || files_.idle())
    return;
  watches_the_time_ = true;
  wake_later(file_timeout / 4, wake::files, 0);
}

/// Does what may end the last request for files; then the files can be switched.
template <class F>
void slot_logic::on_file_word(F step) {
  step();
  if (!files_.idle())
    return;
  for (auto& next : std::exchange(when_files_rest_, {}))
    next();
}

void slot_logic::fail_requests(const std::string& why) {
  on_file_word([&] { files_.fail_all(fail(ec::machine_failed, why)); });
  watches_.fail_all(fail(ec::machine_failed, why));
  saver_.fail_all(why);
}

caf::result<session_usage> slot_logic::on_usage() {
  if (!machine_)
    return fail(ec::machine_failed, "the session's machine is not up");
  machines::machine_usage now = machine_->usage();
  auto age = std::chrono::steady_clock::now() - started_;
  auto age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(age).count();
  return session_usage{.session = {},
                       .memory_bytes = now.memory_bytes,
                       .memory_limit_bytes = limits_.memory_bytes,
                       .cpu_us = now.cpu_us,
                       .processes = now.processes,
                       .disk_bytes = now.disk_bytes,
                       .disk_limit_bytes = limits_.disk_bytes,
                       .uptime_ms = static_cast<std::uint64_t>(age_ms)};
}

caf::result<context_info> slot_logic::on_open_context(const open_context& request) {
  if (!is_up())
    return fail(ec::machine_failed, "the session's machine is not up");
  auto promise = self_->make_response_promise<context_info>();
  contexts_.open(request, promise);
  return promise;
}

caf::result<context_info> slot_logic::on_restart_context(const restart_context& request) {
  if (!is_up())
    return fail(ec::machine_failed, "the session's machine is not up");
  for (auto& [number, job] : jobs_)
    if (job.order.request.kernel && job.order.request.context == request.context && job.sent
        && !job.stop)
      job.stop = end_reason::cancelled;
  auto promise = self_->make_response_promise<context_info>();
  contexts_.restart(request, promise);
  return promise;
}

caf::result<context_closed> slot_logic::on_close_context(const close_context& request) {
  if (!is_up())
    return fail(ec::machine_failed, "the session's machine is not up");
  for (auto& [number, job] : jobs_)
    if (job.order.request.kernel && job.order.request.context == request.context && !job.stop)
      job.stop = end_reason::cancelled;
  auto promise = self_->make_response_promise<context_closed>();
  contexts_.close(request, promise);
  return promise;
}

// --- saved states --------------------------------------------------------------------------------

error slot_logic::cannot_switch() const {
  if (!is_up())
    return fail(ec::machine_failed, "the session's machine is not up");
  if (!jobs_.empty() || saver_.busy())
    return fail(ec::conflict, "the session's machine is at work");
  return {};
}

caf::result<slot_frozen> slot_logic::on_freeze(const freeze_slot& request) {
  if (error why = cannot_switch())
    return why;
  auto promise = self_->make_response_promise<slot_frozen>();
  switch_files(promise, [this, request, promise] { saver_.freeze(*machine_, request, promise); });
  return promise;
}

caf::result<slot_rolled> slot_logic::on_roll(const roll_slot& request) {
  if (error why = cannot_switch())
    return why;
  auto promise = self_->make_response_promise<slot_rolled>();
  switch_files(promise, [this, request, promise] { saver_.roll(*machine_, request, promise); });
  return promise;
}

/// Begins a step of the SAVER, once the files that clients read and write are at rest.
template <class Reply, class F>
void slot_logic::switch_files(caf::typed_response_promise<Reply> promise, F begin) {
  when_files_rest_.push_back([this, promise, begin]() mutable {
    if (error why = cannot_switch()) {
      promise.deliver(std::move(why));
      return;
    }
    begin();
    wake_later(state_step_timeout, wake::state, saver_.sequence());
  });
  on_file_word([] {});
}

caf::result<slot_saved> slot_logic::on_save(const save_slot& request, const open_files& to) {
  if (!is_up())
    return fail(ec::machine_failed, "the session's machine is not up");
  auto promise = self_->make_response_promise<slot_saved>();
  saver_.save(*machine_, request, to, promise);
  return promise;
}

void slot_logic::on_frozen(const guest::frozen& message) {
  if (saver_.is_saving() && message.error.empty())
    contexts_.saved(saver_.checkpoint());
  saver_.on_frozen(*machine_, message);
  contexts_.on_awake();
}

void slot_logic::on_thawed(const guest::thawed& message) {
  if (saver_.is_back() && message.request == saver_.sequence())
    contexts_.went_back(saver_.checkpoint(), message.contexts);
  saver_.on_thawed(*machine_, message);
  contexts_.on_awake();
}

void slot_logic::on_drop(const drop_slot_state& request) {
  if (request.files)
    contexts_.drop_saved(request.checkpoint);
  if (machine_ && state_ != slot_state::ending)
    slot_saver::drop(*machine_, request);
}

void slot_logic::wake_later(std::chrono::milliseconds delay, wake what, std::uint32_t number) {
  alarms_.push_back({.at = now() + delay, .what = what, .number = number});
  arm();
}

/// Sees that the clock wakes the slot for the first alarm.
void slot_logic::arm() {
  auto first = std::ranges::min_element(alarms_, {}, &alarm::at);
  if (first == alarms_.end() || (armed_ && *armed_ <= first->at))
    return;
  armed_ = first->at;
  self_->delayed_send(self_, first->at - now(), caf::timeout_atom_v);
}

void slot_logic::on_alarm() {
  auto time = now();
  if (armed_ && *armed_ <= time)
    armed_.reset();
  auto machine = machine_number_;
  for (auto due = alarms_.begin(); due != alarms_.end();) {
    if (due->at > time) {
      ++due;
      continue;
    }
    alarm ring = *due;
    alarms_.erase(due);
    if (machine_ && machine == machine_number_)
      on_wake(ring.what, ring.number);
    due = alarms_.begin(); // what was woken may have changed them
  }
  arm();
}

slot_self::behavior_type slot(slot_self::stateful_pointer<slot_logic> self, slot_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

slot_actor spawn_slot(caf::actor_system& system, slot_parts parts) {
  return system.spawn(slot, std::move(parts));
}

} // namespace berth
