// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/namespace_machine.hpp"

#include "machines/guest_channel.hpp"
#include "machines/namespace/cgroup.hpp"
#include "machines/namespace/server_link.hpp"

#include <sys/socket.h>
#include <sys/vfs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

namespace berth::machines {

using spawner::copy_text;
using spawner::report;
using spawner::report_kind;
using spawner::request;
using spawner::request_kind;

namespace {

/// How long the source's end waits for the machines' ends.
constexpr std::chrono::seconds end_within{12};
/// A machine that is put away is left alone for so long: its end takes a processor's time, which
/// the answer that its last job waits for shall have first.
constexpr std::chrono::milliseconds answer_first{2};
/// What the guest has waiting by itself; the others come from templates.
constexpr std::string_view guest_language = "bash";
/// How long files may take to be restored to a machine, before its guest has to say hello.
constexpr std::chrono::minutes restore_within{10};

machine_limits with_defaults(machine_limits asked, const machine_limits& defaults) {
  if (asked.memory_bytes == 0)
    asked.memory_bytes = defaults.memory_bytes;
  if (asked.processes == 0)
    asked.processes = defaults.processes;
  if (asked.disk_bytes == 0)
    asked.disk_bytes = defaults.disk_bytes;
  return asked;
}

} // namespace

/// One machine as the server sees it. What concerns the spawner and the listener lives on the
/// reactor's thread; sending, limits and usage are any thread's, under the mutex.
class namespace_source::one_machine : public machine,
                                      public std::enable_shared_from_this<one_machine> {
public:
  one_machine(std::shared_ptr<shared_state> source, std::uint64_t number, const machine_spec& spec,
              std::shared_ptr<machine_listener> listener, owned_fd channel,
              std::shared_ptr<way_out> out);

  void send(const guest::to_guest& message) override;
  void set_limits(const machine_limits& wanted) override;
  bool warm(std::string_view language) override;
  void hold_output(bool held) override;
  machine_usage usage() const override;
  void freeze_files(checkpoint_number checkpoint) override;
  void roll_back_files(checkpoint_number checkpoint) override;
  void drop_files(checkpoint_number checkpoint) override;
  void save_files(checkpoint_number checkpoint, checkpoint_number since,
                  std::shared_ptr<const owned_fd> to, std::uint64_t bytes_max) override;
  void destroy() override;

  // On the reactor's thread.
  void begin(owned_fd guest_end);
  void on_report(const report& said, std::vector<owned_fd>& fds);
  void on_created(const report& said, std::vector<owned_fd>& fds);
  void spawner_gone();
  const std::string& id() const { return spec_.id; }

private:
  void open_channel();
  void on_frame(guest::from_guest frame);
  void lose(std::string why, bool out_of_memory, bool dying);
  void end();
  void end_channel();
  void gone();
  void ask_files(const request& asked, std::shared_ptr<const owned_fd> fd);
  void on_files(const report& said);
  void await_hello(std::chrono::milliseconds within);
  void apply_limits_locked();

  const std::shared_ptr<shared_state> source_;
  const std::uint64_t number_;
  /// Its archives are let go when they are sent.
  machine_spec spec_;

  // The reactor's thread only.
  std::shared_ptr<machine_listener> listener_;
  reactor::token hello_timer_ = 0;
  bool created_ = false;
  bool asked_to_end_ = false;
  bool destroy_sent_ = false;
  bool told_lost_ = false;
  bool told_gone_ = false;
  /// Changes of limits asked for before the machine was there.
  std::vector<request> early_limits_;
  /// What went wrong before the spawner told how the machine died.
  std::string first_cause_;
  const std::shared_ptr<way_out> out_;
  /// Its socket there, as long as it lives.
  std::shared_ptr<void> door_;

  const std::shared_ptr<guest_channel> channel_;

  mutable std::mutex mutex_;
  bool closed_ = false;              // guarded by mutex_
  machine_limits limits_;            // guarded by mutex_
  std::uint32_t next_ticket_ = 1;    // guarded by mutex_
  std::uint64_t watchdog_kills_ = 0; // guarded by mutex_
  cgroup_handles handles_;           // guarded by mutex_
};

/// The source's link to its spawner. Held by the machines too, so that none outlives it.
class namespace_source::shared_state : public std::enable_shared_from_this<shared_state> {
public:
  shared_state(const namespace_settings& wanted, spawner_handle handle, reactor& on)
    : settings(wanted)
    , loop(on)
    , pid(handle.pid)
    , instance(std::move(handle.instance))
    , link_(std::make_shared<server_link>(std::move(handle.socket), on))
    , isolation_(std::move(handle.isolation)) {}

  const namespace_settings settings;
  reactor& loop;
  const pid_t pid;
  const std::string instance;
  std::atomic<std::uint64_t> next_number{1};
  std::atomic<int> sources{1};

  // On the reactor's thread.
  void open();
  bool ask(const request& what, std::span<const int> fds = {});
  void adopt(std::uint64_t number, std::shared_ptr<one_machine> one) { machines_[number] = one; }
  void forget(std::uint64_t number);
  /// The number of a living machine; 0 if there is none of that id.
  std::uint64_t number_of(std::string_view id) const;
  void shut_down() { link_->shut_down(); }
  void close() { link_->close(); }

  // Any thread.
  std::vector<std::string> isolation() const;
  bool template_up(std::string_view language) const;
  /// Waits until the spawner's end was handled. Not on the reactor's thread.
  bool wait_closed(std::chrono::milliseconds limit) { return link_->wait_closed(limit); }

private:
  bool on_report(std::span<const std::byte> packet, std::vector<owned_fd>& fds);
  void on_end();

  const std::shared_ptr<server_link> link_;
  std::map<std::uint64_t, std::shared_ptr<one_machine>> machines_;

  mutable std::mutex mutex_;
  std::vector<std::string> isolation_;                // guarded by mutex_
  std::map<std::string, int, std::less<>> templates_; // guarded by mutex_
};

// --- the source's state --------------------------------------------------------------------------

void namespace_source::shared_state::open() {
  auto self = shared_from_this();
  link_->open(
      {.on_packet = [self](std::span<const std::byte> packet,
                           std::vector<owned_fd>& fds) { return self->on_report(packet, fds); },
       .on_end = [self] { self->on_end(); }});
}

bool namespace_source::shared_state::ask(const request& what, std::span<const int> fds) {
  return link_->ask(std::as_bytes(std::span{&what, 1}), fds);
}

bool namespace_source::shared_state::on_report(std::span<const std::byte> packet,
                                               std::vector<owned_fd>& fds) {
  report said{};
  if (packet.size() != sizeof said)
    return false;
  std::memcpy(&said, packet.data(), sizeof said);
  said.text[sizeof said.text - 1] = '\0';
  if (said.kind == report_kind::template_state) {
    std::lock_guard guard{mutex_};
    templates_[said.text] = said.error;
    return true;
  }
  auto found = machines_.find(said.number);
  if (found == machines_.end())
    return true;
  auto one = found->second; // it may end its own entry
  one->on_report(said, fds);
  return true;
}

void namespace_source::shared_state::forget(std::uint64_t number) {
  machines_.erase(number);
}

std::uint64_t namespace_source::shared_state::number_of(std::string_view id) const {
  // A machine that replaces another may have its id: the newest it is.
  for (auto one = machines_.rbegin(); one != machines_.rend(); ++one)
    if (one->second->id() == id)
      return one->first;
  return 0;
}

void namespace_source::shared_state::on_end() {
  auto machines = std::move(machines_);
  machines_.clear();
  for (auto& [number, one] : machines)
    one->spawner_gone();
}

std::vector<std::string> namespace_source::shared_state::isolation() const {
  std::lock_guard guard{mutex_};
  auto lines = isolation_;
  for (const auto& [language, error] : templates_)
    lines.push_back("template " + language + " now: "
                    + (error == 0          ? "up"
                       : error == ENOTCONN ? "asleep until it is needed"
                                           : "down, jobs start cold"));
  if (link_->closed())
    lines.emplace_back("the spawner has ended: no machine can be started");
  return lines;
}

bool namespace_source::shared_state::template_up(std::string_view language) const {
  std::lock_guard guard{mutex_};
  auto found = templates_.find(language);
  return !link_->closed() && found != templates_.end()
         && (found->second == 0 || found->second == ENOTCONN);
}

// --- one machine ---------------------------------------------------------------------------------

namespace_source::one_machine::one_machine(std::shared_ptr<shared_state> source,
                                           std::uint64_t number, const machine_spec& spec,
                                           std::shared_ptr<machine_listener> listener,
                                           owned_fd channel, std::shared_ptr<way_out> out)
  : source_(std::move(source))
  , number_(number)
  , spec_(spec)
  , listener_(std::move(listener))
  , out_(std::move(out))
  , channel_(std::make_shared<guest_channel>(source_->loop, std::move(channel),
                                             source_->settings.send_queue_bytes))
  , limits_(with_defaults(spec.limits, source_->settings.defaults)) {}

void namespace_source::one_machine::begin(owned_fd guest_end) {
  request asked{.kind = request_kind::create,
                .number = number_,
                .port = out_ ? way_out_port : std::uint16_t{0}};
  {
    std::lock_guard guard{mutex_};
    asked.memory_bytes = limits_.memory_bytes;
    asked.processes = limits_.processes;
    asked.disk_bytes = limits_.disk_bytes;
  }
  copy_text(asked.text, spec_.id);
  if (!spec_.parent.empty()) {
    asked.checkpoint = spec_.checkpoint;
    asked.parent = source_->number_of(spec_.parent);
    if (asked.parent == 0) {
      lose("the machine to fork from is not there", false, true);
      return gone();
    }
  }
  for (const auto& layer : spec_.layers) {
    int archive = layer.archive ? layer.archive->get() : -1;
    if (archive < 0
        || !source_->ask(
            {.kind = request_kind::layer, .number = number_, .checkpoint = layer.checkpoint},
            std::span{&archive, 1})) {
      lose(archive < 0 ? "an archive is not open" : "the spawner has ended", false, true);
      return gone();
    }
  }
  bool restores = !spec_.layers.empty();
  spec_.layers.clear();
  int fd = guest_end.get();
  if (asked_to_end_ || fd < 0 || !source_->ask(asked, std::span{&fd, 1})) {
    lose(fd < 0 ? "no socket for the guest's channel" : "the spawner has ended", false, true);
    return gone();
  }
  destroy_sent_ = false;
  source_->adopt(number_, shared_from_this());
  await_hello(restores ? restore_within : source_->settings.hello_within);
}

void namespace_source::one_machine::await_hello(std::chrono::milliseconds within) {
  source_->loop.cancel(hello_timer_);
  hello_timer_ = source_->loop.after(within, [self = shared_from_this()] {
    self->hello_timer_ = 0;
    if (!self->channel_->greeted())
      self->lose("the guest did not say hello in time", false, false);
  });
}

void namespace_source::one_machine::on_created(const report& said, std::vector<owned_fd>& fds) {
  {
    std::lock_guard guard{mutex_};
    handles_.take(said.handles, fds);
    if (owned_fd& listener = handles_[spawner::handle_listener]; out_ && listener)
      door_ = out_->serve(spec_.id, std::move(listener));
    created_ = true;
    await_hello(source_->settings.hello_within);
    // Limits that were set in between.
    apply_limits_locked();
    for (const auto& asked : early_limits_)
      source_->ask(asked);
    early_limits_.clear();
  }
  open_channel(); // which may end it at once
}

void namespace_source::one_machine::on_report(const report& said, std::vector<owned_fd>& fds) {
  switch (said.kind) {
  case report_kind::created:
    on_created(said, fds);
    break;
  case report_kind::died: {
    std::string why = said.text;
    if (said.error != 0)
      why += std::string{": "} + std::strerror(said.error);
    if (!first_cause_.empty())
      why = first_cause_ + " (" + why + ")";
    // Frames that came before the death are heard before it.
    channel_->drain();
    lose(why, said.out_of_memory != 0, true);
    break;
  }
  case report_kind::gone:
    gone();
    break;
  case report_kind::files:
    on_files(said);
    break;
  case report_kind::limited:
    channel_->resume(said.ticket);
    break;
  case report_kind::memory_killed: {
    std::lock_guard guard{mutex_};
    watchdog_kills_ = said.oom_kills;
    break;
  }
  default:
    break;
  }
}

void namespace_source::one_machine::open_channel() {
  auto weak = weak_from_this();
  channel_->open({.on_frame =
                      [weak](guest::from_guest frame) {
                        if (auto self = weak.lock())
                          self->on_frame(std::move(frame));
                      },
                  .on_end =
                      [weak](std::string why) {
                        if (auto self = weak.lock())
                          self->lose(std::move(why), false, false);
                      }});
}

void namespace_source::one_machine::on_frame(guest::from_guest frame) {
  if (std::holds_alternative<guest::hello>(frame)) {
    source_->loop.cancel(hello_timer_);
    for (const auto& language : spec_.warm)
      warm(language);
  }
  listener_->on_frame(std::move(frame));
}

/// The end of a machine nobody asked to end. `dying`: the spawner knows already.
void namespace_source::one_machine::lose(std::string why, bool out_of_memory, bool dying) {
  end_channel();
  if (!dying) {
    // How it died is known better by the spawner: it is told then.
    if (first_cause_.empty())
      first_cause_ = std::move(why);
    if (!std::exchange(destroy_sent_, true))
      source_->ask({.kind = request_kind::destroy, .number = number_});
    return;
  }
  if (asked_to_end_ || std::exchange(told_lost_, true))
    return;
  listener_->on_lost(std::move(why), out_of_memory);
}

void namespace_source::one_machine::end_channel() {
  source_->loop.cancel(hello_timer_);
  channel_->close();
  door_.reset();
  std::lock_guard guard{mutex_};
  closed_ = true;
}

void namespace_source::one_machine::gone() {
  if (std::exchange(told_gone_, true))
    return;
  end_channel();
  {
    // A usage() of another thread finds nothing from now on.
    std::lock_guard guard{mutex_};
    handles_ = {};
  }
  auto listener = std::move(listener_);
  auto self = shared_from_this();
  source_->forget(number_);
  listener->on_gone();
}

void namespace_source::one_machine::spawner_gone() {
  lose("the spawner has ended", false, true);
  gone();
}

void namespace_source::one_machine::destroy() {
  source_->loop.post([self = shared_from_this()] {
    if (self->told_gone_ || std::exchange(self->asked_to_end_, true))
      return;
    self->source_->loop.after(answer_first, [self] { self->end(); });
  });
}

void namespace_source::one_machine::end() {
  end_channel();
  if (!told_gone_ && !std::exchange(destroy_sent_, true))
    source_->ask({.kind = request_kind::destroy, .number = number_});
}

bool namespace_source::one_machine::warm(std::string_view language) {
  if (language == guest_language) {
    send(guest::prepare{std::string{language}});
    return true;
  }
  if (!source_->template_up(language))
    return false;
  request asked{.kind = request_kind::warm, .number = number_};
  copy_text(asked.text, language);
  if (source_->loop.here())
    source_->ask(asked);
  else
    source_->loop.post([self = shared_from_this(), asked] { self->source_->ask(asked); });
  return true;
}

void namespace_source::one_machine::hold_output(bool held) {
  channel_->hold(held);
}

void namespace_source::one_machine::send(const guest::to_guest& message) {
  channel_->send(message);
}

void namespace_source::one_machine::apply_limits_locked() {
  // A limit below what is used now is the kernel's to refuse (v1) or to enforce (v2).
  (void)write_group_number(handles_.get(spawner::handle_memory_limit), group_memory_limit(limits_));
  (void)write_group_number(handles_.get(spawner::handle_pids_limit),
                           limits_.processes + machine_overhead_processes);
}

void namespace_source::one_machine::set_limits(const machine_limits& wanted) {
  std::unique_lock lock{mutex_};
  auto changed = with_defaults(wanted, source_->settings.defaults);
  if (closed_ || changed == limits_)
    return;
  bool disk = changed.disk_bytes != limits_.disk_bytes;
  limits_ = changed;
  apply_limits_locked();
  request asked{.kind = request_kind::limit,
                .ticket = disk ? next_ticket_++ : 0,
                .number = number_,
                .memory_bytes = changed.memory_bytes,
                .processes = changed.processes,
                .disk_bytes = changed.disk_bytes};
  if (disk)
    // What is sent from now on waits for the new size.
    channel_->pause(asked.ticket);
  lock.unlock();
  source_->loop.post([self = shared_from_this(), asked] {
    if (self->created_)
      self->source_->ask(asked);
    else
      self->early_limits_.push_back(asked);
  });
}

machine_usage namespace_source::one_machine::usage() const {
  std::lock_guard guard{mutex_};
  machine_usage used = handles_.usage();
  used.oom_kills += watchdog_kills_;
  struct statfs disk {};
  if (handles_.get(spawner::handle_disk) >= 0
      && ::fstatfs(handles_.get(spawner::handle_disk), &disk) == 0) {
    auto block = static_cast<std::uint64_t>(disk.f_bsize);
    used.disk_limit_bytes = disk.f_blocks * block;
    used.disk_bytes = (disk.f_blocks - disk.f_bfree) * block;
  }
  return used;
}

// --- states of files -----------------------------------------------------------------------------

void namespace_source::one_machine::freeze_files(checkpoint_number checkpoint) {
  ask_files({.kind = request_kind::freeze, .number = number_, .checkpoint = checkpoint}, {});
}

void namespace_source::one_machine::roll_back_files(checkpoint_number checkpoint) {
  ask_files({.kind = request_kind::roll_back, .number = number_, .checkpoint = checkpoint}, {});
}

void namespace_source::one_machine::drop_files(checkpoint_number checkpoint) {
  ask_files({.kind = request_kind::drop, .number = number_, .checkpoint = checkpoint}, {});
}

void namespace_source::one_machine::save_files(checkpoint_number checkpoint,
                                               checkpoint_number since,
                                               std::shared_ptr<const owned_fd> to,
                                               std::uint64_t bytes_max) {
  ask_files({.kind = request_kind::save,
             .number = number_,
             .checkpoint = checkpoint,
             .since = since,
             .bytes_max = bytes_max},
            std::move(to));
}

/// Asks the spawner, unless the machine is gone by then.
void namespace_source::one_machine::ask_files(const request& asked,
                                              std::shared_ptr<const owned_fd> fd) {
  source_->loop.post([self = shared_from_this(), asked, fd = std::move(fd)] {
    int number = fd ? fd->get() : -1;
    std::span<const int> fds{&number, fd ? 1U : 0U};
    if (!self->told_gone_ && !self->source_->ask(asked, fds))
      self->on_files({.kind = report_kind::files,
                      .number = self->number_,
                      .error = EPIPE,
                      .step = asked.kind,
                      .checkpoint = asked.checkpoint,
                      .text = "the spawner has ended"});
  });
}

void namespace_source::one_machine::on_files(const report& said) {
  files_done done{.step = files_step::freeze,
                  .checkpoint = said.checkpoint,
                  .bytes = said.bytes,
                  .skipped = said.skipped,
                  .error = said.error == 0 ? "" : said.text};
  if (said.error != 0 && done.error.empty())
    done.error = std::strerror(said.error);
  switch (said.step) {
  case request_kind::roll_back:
    done.step = files_step::roll_back;
    break;
  case request_kind::drop:
    done.step = files_step::drop;
    break;
  case request_kind::save:
    done.step = files_step::save;
    break;
  default:
    break;
  }
  listener_->on_files(std::move(done));
}

// --- the source ----------------------------------------------------------------------------------

namespace_source::namespace_source(const namespace_settings& settings, spawner_handle spawner,
                                   reactor& loop, std::shared_ptr<way_out> out)
  : state_(std::make_shared<shared_state>(settings, std::move(spawner), loop))
  , out_(std::move(out)) {
  loop.post([state = state_] { state->open(); });
}

namespace_source::namespace_source(const namespace_source& beside, std::shared_ptr<way_out> out)
  : state_(beside.state_)
  , out_(std::move(out)) {
  ++state_->sources;
}

namespace_source::~namespace_source() {
  if (--state_->sources > 0)
    return;
  state_->loop.post([state = state_] { state->shut_down(); });
  if (!state_->wait_closed(end_within))
    state_->loop.post([state = state_] { state->close(); });
  wait_for_spawner(state_->pid, end_within);
}

std::shared_ptr<machine> namespace_source::start(const machine_spec& spec,
                                                 std::shared_ptr<machine_listener> listener) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    ends[0] = ends[1] = -1;
  owned_fd ours{ends[0]};
  auto one = std::make_shared<one_machine>(state_, state_->next_number++, spec, std::move(listener),
                                           std::move(ours), out_);
  state_->loop.post([one, guest_end = std::make_shared<owned_fd>(ends[1])] {
    one->begin(std::move(*guest_end));
  });
  return one;
}

std::vector<std::string> namespace_source::isolation() const {
  if (!out_)
    return state_->isolation();
  // All else is as with the machines beside them.
  return out_->facts();
}

const std::string& namespace_source::instance() const {
  return state_->instance;
}

} // namespace berth::machines
