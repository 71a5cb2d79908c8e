// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_source.hpp"

#include "machines/guest_channel.hpp"
#include "machines/vm/file_worker.hpp"
#include "machines/vm/template_maker.hpp"
#include "machines/vm/vm_files.hpp"
#include "machines/vm/vm_memory.hpp"
#include "machines/vm/vm_state.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <unistd.h>

namespace berth::machines {

namespace {

/// How long the source's end waits for the machines' ends.
constexpr std::chrono::seconds end_within{12};
/// A machine that is put away is left alone for so long: its end takes a processor's time, which
/// the answer that its last job waits for shall have first.
constexpr std::chrono::milliseconds answer_first{2};
/// A machine that is up and not used runs an idle program: what it does first is slow. Only when no
/// machine was asked for so long: until then the processors are for those that are.
constexpr std::chrono::milliseconds heat_after{150};
/// Machines that have done so and are not used yet. Code that was translated ahead takes more
/// memory than the machine otherwise needs; beyond these, that counts more than the first answer.
constexpr std::size_t heated_unused_max = 2;
constexpr std::chrono::seconds heat_within{5};
/// Processes that end before their guest ran, one after the other, until a machine is lost.
constexpr std::size_t failed_starts_max = 2;
/// Templates kept, by the memory of their machines.
constexpr std::size_t templates_max = 4;
/// What a virtual machine needs beyond its job's memory and files.
constexpr std::uint64_t guest_overhead_mib = 192;
/// Sizes of virtual machines are multiples of this: fewer templates.
constexpr std::uint64_t memory_step_mib = 128;
/// Numbers of our own jobs in a guest; a slot's are far below.
constexpr std::uint32_t own_jobs_from = 0xFFFF'FF00;
/// A checkpoint that no guest has: to thaw to it ends all interpreters.
constexpr std::uint64_t no_checkpoint = UINT64_MAX;
constexpr std::uint32_t own_request = 0xFFFF'FFFF;
/// Pauses of the channel.
constexpr std::uint32_t until_up = 1;
constexpr std::uint32_t until_heated = 2;
constexpr std::uint32_t until_back = 3;
constexpr std::uint32_t until_saved = 4;
/// Taken of what a console says.
constexpr std::size_t cause_bytes_max = 200;
/// How often a machine is stopped anew because its guest was saying something.
constexpr int stops_max = 50;

machine_limits with_defaults(machine_limits asked, const machine_limits& defaults) {
  if (asked.memory_bytes == 0)
    asked.memory_bytes = defaults.memory_bytes;
  if (asked.processes == 0)
    asked.processes = defaults.processes;
  if (asked.disk_bytes == 0)
    asked.disk_bytes = defaults.disk_bytes;
  return asked;
}

/// What a console says of why a machine stopped, as ": why"; the guest may have written anything.
std::string last_cause(const std::string& console) {
  std::size_t at = std::string::npos;
  for (std::string_view mark : {"Kernel panic", "berth: "})
    if (auto found = console.rfind(mark); found != std::string::npos)
      at = at == std::string::npos ? found : std::max(at, found);
  if (at == std::string::npos)
    return {};
  std::string line = console.substr(at, cause_bytes_max);
  line.resize(std::min(line.size(), line.find_first_of("\r\n")));
  std::ranges::replace_if(
      line, [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
  return ": " + line;
}

guest::renew fresh_identity(const std::string& hostname) {
  std::array<char, 64> random{};
  std::array<unsigned char, 16> id{};
  (void)!::getrandom(random.data(), random.size(), 0);
  (void)!::getrandom(id.data(), id.size(), 0);
  guest::renew message;
  message.entropy.assign(random.begin(), random.end());
  message.clock_us = std::chrono::duration_cast<std::chrono::microseconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  message.hostname = hostname;
  for (unsigned char byte : id) {
    message.machine_id += "0123456789abcdef"[byte >> 4];
    message.machine_id += "0123456789abcdef"[byte & 15];
  }
  return message;
}

} // namespace

std::uint64_t vm_memory_mib(const machine_limits& limits) {
  std::uint64_t wanted = ((limits.memory_bytes + limits.disk_bytes) >> 20) + guest_overhead_mib;
  return (wanted + memory_step_mib - 1) / memory_step_mib * memory_step_mib;
}

/// One virtual machine as the server sees it. All but sending, limits and usage lives on the
/// reactor's thread.
class vm_source::one_machine : public machine, public std::enable_shared_from_this<one_machine> {
public:
  one_machine(std::shared_ptr<shared_state> source, const machine_spec& spec,
              std::shared_ptr<machine_listener> listener);

  void send(const guest::to_guest& message) override;
  void set_limits(const machine_limits& wanted) override;
  bool warm(std::string_view language) override;
  void hold_output(bool held) override { channel_->hold(held); }
  machine_usage usage() const override;
  void freeze_files(checkpoint_number checkpoint) override;
  void roll_back_files(checkpoint_number checkpoint) override;
  void drop_files(checkpoint_number checkpoint) override;
  void save_files(checkpoint_number checkpoint, checkpoint_number since,
                  std::shared_ptr<const owned_fd> to, std::uint64_t bytes_max) override;
  void destroy() override;

  // On the reactor's thread.
  void begin();
  void source_gone();
  const std::string& id() const { return spec_.id; }
  const vm_state* state_at(checkpoint_number checkpoint) const;
  bool heated_unused() const { return heated_ && !channel_->spoken_to(); }

private:
  /// What the machine does besides serving.
  enum class doing { waiting, coming_up, serving, freezing, rolling_back };

  void on_template(std::shared_ptr<const vm_template> from, const std::string& why);
  void fork_from_parent();
  void restore();
  void on_restored(std::vector<vm_files::saved> saved, const std::string& why);
  void outgrow(std::uint64_t memory_mib);
  void come_up();
  void on_running(owned_fd channel);
  void on_renewed(const guest::renewed& message);
  void after_renewed();
  void say_hello();
  void on_frame(guest::from_guest frame);
  bool is_own(const guest::from_guest& frame);
  void on_used(const guest::used& message);
  void plan_heat();
  void heat_after_calm(reactor::clock::duration wait);
  void heat();
  void heated();
  void stop_for_freeze();
  void stop_again();
  void save();
  void go_on(std::string error);
  void end_step(files_step step, checkpoint_number checkpoint, const std::string& error = {});
  void lose(std::string why);
  void on_stopped();
  void on_process_end(const std::string& why, bool out_of_memory);
  void on_process_gone();
  void end();
  void gone();
  /// Its end was asked for, or came, or is on its way.
  bool ending() const { return asked_to_end_ || told_lost_ || told_gone_ || !first_cause_.empty(); }

  const std::shared_ptr<shared_state> source_;
  machine_spec spec_;
  const std::shared_ptr<guest_channel> channel_;

  // The reactor's thread only.
  std::shared_ptr<machine_listener> listener_;
  std::shared_ptr<const vm_template> template_;
  std::shared_ptr<virtual_machine> process_;
  bool woken_ = false;             // its guest runs
  std::size_t processes_left_ = 0; // not gone yet
  doing doing_ = doing::waiting;
  std::map<checkpoint_number, vm_state> states_;
  checkpoint_number step_checkpoint_ = 0;
  int stops_ = 0;
  /// What it begins from instead of a fresh template, until it serves: a state of a guest at rest.
  std::optional<vm_state> begins_from_;
  /// Processes that ended, one after the other, before its guest ran.
  std::size_t failed_starts_ = 0;
  reactor::token hello_timer_ = 0;
  reactor::token heat_timer_ = 0;
  std::vector<std::string> to_heat_;
  std::uint32_t own_jobs_ = 0; // that run
  bool heated_ = false;
  bool said_hello_ = false;
  bool hears_rest_ = false; // its process is dead
  bool asked_to_end_ = false;
  bool told_lost_ = false;
  bool told_gone_ = false;
  std::string first_cause_;

  mutable std::mutex mutex_;
  machine_limits limits_;                          // guarded by mutex_
  machine_usage used_;                             // guarded by mutex_
  std::shared_ptr<virtual_machine> usage_process_; // guarded by mutex_
  bool limits_known_ = false;                      // guarded by mutex_; the guest was told
  std::uint64_t memory_mib_ = 0;                   // guarded by mutex_; of the virtual machine
};

/// What all machines of the source share.
class vm_source::shared_state : public std::enable_shared_from_this<shared_state> {
public:
  shared_state(std::unique_ptr<vm_engine> by, reactor& on)
    : loop(on)
    , engine(std::move(by))
    , settings(engine->settings()) {}

  using template_handler =
      std::function<void(std::shared_ptr<const vm_template>, const std::string& why)>;

  reactor& loop;
  const std::unique_ptr<vm_engine> engine;
  const vm_settings& settings;
  file_worker files;
  /// What is run once in each template, as a Bash program; may be empty.
  std::string start_command;

  // On the reactor's thread.

  /// The template of machines with so much memory, as soon as it stands.
  void with_template(std::uint64_t memory_mib, template_handler then);
  /// The template that a saved state is bound to: one that stands, or one from disk.
  void with_saved_template(const std::string& key, const std::string& id, template_handler then);
  /// A machine did not come up from it: one that was read from disk is made anew.
  void distrust(const std::shared_ptr<const vm_template>& which);
  /// A process that waits for a state of the template.
  std::shared_ptr<virtual_machine> take_process(const std::shared_ptr<const vm_template>& of,
                                                const std::string& name);
  void adopt(const std::shared_ptr<one_machine>& one) {
    machines_.push_back(one);
    last_asked_ = reactor::clock::now();
  }
  /// How long until nobody has asked for a machine for `heat_after`.
  reactor::clock::duration until_calm() const {
    return last_asked_ + heat_after - reactor::clock::now();
  }
  std::size_t heated_unused() const;
  void forget(const std::shared_ptr<one_machine>& one) { std::erase(machines_, one); }
  /// The newest other machine of that id: one that replaces another may have its id.
  std::shared_ptr<one_machine> find(std::string_view id, const one_machine* asks) const;
  void shut_down();
  void close();

  // Any thread.
  std::vector<std::string> isolation() const;
  void add_facts(std::vector<std::string> facts);
  std::string wait_template(std::uint64_t memory_mib, std::chrono::milliseconds limit);
  /// How saved states name a template; empty as long as it is not on disk.
  std::string id_of(const std::shared_ptr<const vm_template>& which) const;

private:
  /// A template, or the making of one.
  struct place {
    std::shared_ptr<const vm_template> made;
    std::shared_ptr<template_maker> maker;
    bool in_the_making = false;
    std::vector<template_handler> waiting;
    std::deque<std::shared_ptr<virtual_machine>> spares;
    std::uint64_t last_used = 0;
  };

  void make(std::uint64_t memory_mib);
  void boot(std::uint64_t memory_mib, const vm_plan& plan);
  std::string path_of(const std::string& key) const;
  void keep(const std::shared_ptr<const vm_template>& made);
  void on_made(std::uint64_t memory_mib, std::shared_ptr<const vm_template> made,
               const std::string& why);
  void forget_oldest();
  void refill(std::uint64_t memory_mib);

  std::map<std::uint64_t, place> templates_;
  std::vector<std::shared_ptr<one_machine>> machines_; // in the order they began
  /// Templates of saved states that are not the present ones.
  std::map<std::string, std::weak_ptr<const vm_template>> older_;
  std::uint64_t uses_ = 0;
  reactor::clock::time_point last_asked_;
  bool ending_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> facts_;                      // guarded by mutex_
  std::map<std::uint64_t, std::string> outcomes_;       // guarded by mutex_; "": it stands
  std::map<std::uint64_t, std::string> template_facts_; // guarded by mutex_
  /// By template, for as long as that lives.
  std::map<std::weak_ptr<const vm_template>, std::string, std::owner_less<>>
      ids_; // guarded by mutex_
};

// --- templates -----------------------------------------------------------------------------------

void vm_source::shared_state::with_template(std::uint64_t memory_mib, template_handler then) {
  if (ending_ || engine->closed())
    return then(nullptr, "the launcher has ended");
  place& at = templates_[memory_mib];
  at.last_used = ++uses_;
  if (at.made)
    return then(at.made, "");
  at.waiting.push_back(std::move(then));
  if (!at.in_the_making)
    make(memory_mib);
}

void vm_source::shared_state::make(std::uint64_t memory_mib) {
  vm_plan plan = engine->plan(memory_mib);
  templates_[memory_mib].in_the_making = true;
  files.add([self = shared_from_this(), memory_mib, plan = std::move(plan)]() mutable {
    // One that an earlier server made of the same parts is as good, and is there sooner.
    std::string why;
    const std::string path = self->path_of(plan.key);
    auto made = !self->settings.data_dir.empty() && ::access(path.c_str(), F_OK) == 0
                    ? vm_files::read_template(path, why)
                    : nullptr;
    if (made && !(made->shape == plan.shape && made->key == plan.key))
      why = "it is another template's";
    if (!why.empty()) {
      ::unlink(path.c_str());
      self->add_facts({path + ": was damaged, and is made anew"});
      made = nullptr;
    }
    if (!made)
      self->engine->read_image(plan);
    self->loop.post([self, memory_mib, plan = std::move(plan), made] {
      if (made)
        self->on_made(memory_mib, made, "");
      else
        self->boot(memory_mib, plan);
    });
  });
}

std::string vm_source::shared_state::path_of(const std::string& key) const {
  return settings.data_dir + "/templates/" + key + ".vmt";
}

void vm_source::shared_state::boot(std::uint64_t memory_mib, const vm_plan& plan) {
  auto& maker = templates_[memory_mib].maker;
  maker = std::make_shared<template_maker>(
      loop, *engine,
      template_maker::plan{.of = plan, .start = start_command, .within = settings.hello_within},
      [self = shared_from_this(), memory_mib](std::shared_ptr<const vm_template> made,
                                              const std::string& why) {
        if (made)
          self->keep(made);
        self->on_made(memory_mib, std::move(made), why);
      });
  auto started = maker; // its failure takes it away
  started->begin();
}

/// Writes a new template down, for later servers and for the states that are bound to it.
void vm_source::shared_state::keep(const std::shared_ptr<const vm_template>& made) {
  if (settings.data_dir.empty())
    return;
  files.add([self = shared_from_this(), made] {
    std::error_code failed;
    std::filesystem::create_directories(self->settings.data_dir + "/templates", failed);
    std::string id;
    auto done = vm_files::write_template(self->path_of(made->key), *made, id);
    if (!done.why.empty())
      return self->add_facts({"a template is not on disk: " + done.why});
    std::lock_guard guard{self->mutex_};
    std::erase_if(self->ids_, [](const auto& one) { return one.first.expired(); });
    self->ids_[made] = id;
  });
}

std::string vm_source::shared_state::id_of(const std::shared_ptr<const vm_template>& which) const {
  if (!which->id.empty())
    return which->id;
  std::lock_guard guard{mutex_};
  auto found = ids_.find(which);
  return found == ids_.end() ? std::string{} : found->second;
}

void vm_source::shared_state::with_saved_template(const std::string& key, const std::string& id,
                                                  template_handler then) {
  for (auto& [memory, at] : templates_)
    if (at.made && id_of(at.made) == id)
      return then(at.made, "");
  if (auto kept = older_[id].lock())
    return then(kept, "");
  bool is_key = key.size() == 16 && key.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!is_key || settings.data_dir.empty())
    return then(nullptr, "the saved state's template is unknown");
  files.add([self = shared_from_this(), path = path_of(key), id, then = std::move(then)] {
    std::string why;
    auto made = vm_files::read_template(path, why);
    if (made && made->id != id) {
      made = nullptr;
      why = "the template that the saved state is bound to is gone";
    }
    if (made && made->shape.network != self->settings.network) {
      made = nullptr;
      why = self->settings.network ? "it was saved when its machine type had no network"
                                   : "it was saved when its machine type had a network";
    }
    self->loop.post([self, made, why, id, then] {
      std::erase_if(self->older_, [](const auto& one) { return one.second.expired(); });
      if (made)
        self->older_[id] = made;
      then(made, why);
    });
  });
}

void vm_source::shared_state::on_made(std::uint64_t memory_mib,
                                      std::shared_ptr<const vm_template> made,
                                      const std::string& why) {
  place& at = templates_[memory_mib];
  auto maker = std::move(at.maker);
  at.in_the_making = false;
  at.made = made;
  auto waiting = std::move(at.waiting);
  at.waiting.clear();
  {
    std::lock_guard guard{mutex_};
    outcomes_[memory_mib] = made ? "" : why;
    std::string fact = "template of " + std::to_string(memory_mib) + " MiB: ";
    if (made) {
      fact += "key " + made->key
              + (made->boot_us == 0
                     ? std::string{", read from disk"}
                     : ", booted in " + std::to_string(made->boot_us / 1000)
                           + " ms, first Python output after "
                           + std::to_string(made->first_output_us / 1000) + " ms, frozen after "
                           + std::to_string(made->made_us / 1000) + " ms")
              + ", " + std::to_string(made->resident_bytes >> 20) + " MiB in use, warm:";
      for (const auto& language : made->warm)
        fact += " " + language;
    } else {
      fact += "none: " + why;
    }
    template_facts_[memory_mib] = fact;
  }
  changed_.notify_all();
  if (!made)
    templates_.erase(memory_mib); // tried anew for the next machine
  else
    refill(memory_mib);
  for (auto& then : waiting)
    then(made, why);
  forget_oldest();
}

void vm_source::shared_state::distrust(const std::shared_ptr<const vm_template>& which) {
  auto found = templates_.find(which->shape.memory_mib);
  if (ending_ || which->id.empty() || found == templates_.end() || found->second.made != which)
    return;
  for (auto& one : found->second.spares)
    one->kill();
  templates_.erase(found);
  add_facts({path_of(which->key) + ": no machine came up from it, and it is made anew"});
  files.add([path = path_of(which->key)] { ::unlink(path.c_str()); });
}

void vm_source::shared_state::forget_oldest() {
  while (templates_.size() > templates_max) {
    auto oldest = templates_.end();
    for (auto at = templates_.begin(); at != templates_.end(); ++at)
      if (at->second.made
          && (oldest == templates_.end() || at->second.last_used < oldest->second.last_used))
        oldest = at;
    if (oldest == templates_.end())
      return;
    for (auto& one : oldest->second.spares)
      one->kill();
    std::lock_guard guard{mutex_};
    template_facts_.erase(oldest->first);
    templates_.erase(oldest);
  }
}

std::shared_ptr<virtual_machine>
vm_source::shared_state::take_process(const std::shared_ptr<const vm_template>& of,
                                      const std::string& name) {
  auto found = templates_.find(of->shape.memory_mib);
  if (found == templates_.end() || found->second.made != of)
    return engine->start(*of, name);
  place& at = found->second;
  at.last_used = ++uses_;
  std::shared_ptr<virtual_machine> taken;
  while (!taken && !at.spares.empty()) {
    if (at.spares.front()->answers())
      taken = std::move(at.spares.front());
    at.spares.pop_front();
  }
  // Behind the machine that is being started: it has the processor first.
  loop.after(std::chrono::milliseconds{5},
             [self = shared_from_this(), mib = of->shape.memory_mib] { self->refill(mib); });
  return taken ? taken : engine->start(*of, name);
}

void vm_source::shared_state::refill(std::uint64_t memory_mib) {
  auto found = templates_.find(memory_mib);
  if (ending_ || found == templates_.end() || !found->second.made)
    return;
  auto& spares = found->second.spares;
  std::erase_if(spares, [](const auto& one) { return !one->answers(); });
  while (spares.size() < engine->spares()) {
    auto one = engine->start(*found->second.made, "");
    if (!one)
      return;
    spares.push_back(std::move(one));
  }
}

std::shared_ptr<vm_source::one_machine>
vm_source::shared_state::find(std::string_view id, const one_machine* asks) const {
  for (auto one = machines_.rbegin(); one != machines_.rend(); ++one)
    if ((*one)->id() == id && one->get() != asks)
      return *one;
  return nullptr;
}

std::size_t vm_source::shared_state::heated_unused() const {
  auto count =
      std::ranges::count_if(machines_, [](const auto& one) { return one->heated_unused(); });
  return static_cast<std::size_t>(count);
}

void vm_source::shared_state::shut_down() {
  ending_ = true;
  engine->shut_down();
}

void vm_source::shared_state::close() {
  engine->close();
  auto machines = machines_;
  for (const auto& one : machines)
    one->source_gone();
  templates_.clear();
}

std::vector<std::string> vm_source::shared_state::isolation() const {
  std::lock_guard guard{mutex_};
  auto lines = engine->facts();
  lines.insert(lines.end(), facts_.begin(), facts_.end());
  for (const auto& [memory, fact] : template_facts_)
    lines.push_back(fact);
  if (engine->closed())
    lines.emplace_back("the launcher has ended: no machine can be started");
  return lines;
}

void vm_source::shared_state::add_facts(std::vector<std::string> facts) {
  std::lock_guard guard{mutex_};
  for (auto& fact : facts)
    facts_.push_back(std::move(fact));
}

std::string vm_source::shared_state::wait_template(std::uint64_t memory_mib,
                                                   std::chrono::milliseconds limit) {
  std::unique_lock lock{mutex_};
  if (!changed_.wait_for(lock, limit, [&] { return outcomes_.contains(memory_mib); }))
    return "the template was not ready in time";
  return outcomes_[memory_mib];
}

// --- one machine ---------------------------------------------------------------------------------

vm_source::one_machine::one_machine(std::shared_ptr<shared_state> source, const machine_spec& spec,
                                    std::shared_ptr<machine_listener> listener)
  : source_(std::move(source))
  , spec_(spec)
  , channel_(std::make_shared<guest_channel>(source_->loop, owned_fd{},
                                             source_->settings.send_queue_bytes))
  , listener_(std::move(listener))
  , limits_(with_defaults(spec.limits, source_->settings.defaults)) {
  // What is said before it is up waits.
  channel_->pause(until_up);
}

void vm_source::one_machine::send(const guest::to_guest& message) {
  channel_->send(message);
}

void vm_source::one_machine::begin() {
  source_->adopt(shared_from_this());
  auto weak = weak_from_this();
  channel_->open({.on_frame =
                      [weak](guest::from_guest frame) {
                        if (auto self = weak.lock())
                          self->on_frame(std::move(frame));
                      },
                  .on_end =
                      [weak](std::string why) {
                        if (auto self = weak.lock())
                          self->lose(std::move(why));
                      }});
  hello_timer_ = source_->loop.after(source_->settings.hello_within, [self = shared_from_this()] {
    self->hello_timer_ = 0;
    self->lose("the machine was not up in time");
  });
  if (!spec_.parent.empty())
    return fork_from_parent();
  if (!spec_.layers.empty())
    return restore();
  std::uint64_t memory_mib = 0;
  {
    std::lock_guard guard{mutex_};
    memory_mib = vm_memory_mib(limits_);
  }
  source_->with_template(memory_mib,
                         [weak](std::shared_ptr<const vm_template> from, const std::string& why) {
                           if (auto self = weak.lock())
                             self->on_template(std::move(from), why);
                         });
}

void vm_source::one_machine::fork_from_parent() {
  auto parent = source_->find(spec_.parent, this);
  const vm_state* state = parent ? parent->state_at(spec_.checkpoint) : nullptr;
  if (state == nullptr)
    return lose("the machine to fork from, or its state, is not there");
  states_[spec_.checkpoint] = *state;
  begins_from_ = *state;
  on_template(parent->template_, "");
}

/// Each saved state is whole, but for its template: the last one is where the machine begins.
void vm_source::one_machine::restore() {
  source_->files.add([self = shared_from_this(), layers = spec_.layers] {
    std::vector<vm_files::saved> all(layers.size());
    std::string why;
    for (std::size_t i = 0; i < layers.size() && why.empty(); ++i)
      why = layers[i].archive ? vm_files::read_state(layers[i].archive->get(), all[i]).why
                              : "a saved state is not open";
    self->source_->loop.post(
        [self, saved = std::move(all), why] { self->on_restored(saved, why); });
  });
}

void vm_source::one_machine::on_restored(std::vector<vm_files::saved> saved,
                                         const std::string& why) {
  if (ending())
    return;
  if (!why.empty())
    return lose(why);
  for (std::size_t i = 0; i < saved.size(); ++i) {
    if (saved[i].template_id != saved.back().template_id)
      return lose("the saved states are of different templates");
    if (spec_.layers[i].checkpoint != 0)
      states_[spec_.layers[i].checkpoint] = saved[i].state;
  }
  begins_from_ = saved.back().state;
  spec_.layers.clear();
  source_->with_saved_template(
      saved.back().key, saved.back().template_id,
      [weak = weak_from_this()](std::shared_ptr<const vm_template> from, const std::string& cause) {
        if (auto self = weak.lock())
          self->on_template(std::move(from), cause);
      });
}

void vm_source::one_machine::on_template(std::shared_ptr<const vm_template> from,
                                         const std::string& why) {
  if (ending())
    return;
  if (!from)
    return lose("no template to start from: " + why);
  template_ = std::move(from);
  come_up();
}

/// Begins from its state, in a process of its own.
void vm_source::one_machine::come_up() {
  if (doing_ != doing::rolling_back)
    doing_ = doing::coming_up;
  const vm_state from = begins_from_ ? *begins_from_ : template_->state;
  // Nothing is said to a guest, nor heard of it, before it runs.
  channel_->replace(owned_fd{});
  woken_ = false;
  process_ = source_->take_process(template_, spec_.id);
  if (!process_)
    return lose("the launcher has ended");
  {
    std::lock_guard guard{mutex_};
    usage_process_ = process_;
  }
  ++processes_left_;
  process_->known_as(spec_.id);
  auto weak = weak_from_this();
  std::weak_ptr<virtual_machine> mine = process_;
  process_->tell({.on_stopped =
                      [weak, mine] {
                        auto self = weak.lock();
                        if (self && self->process_ == mine.lock())
                          self->on_stopped();
                      },
                  .on_end =
                      [weak, mine](const std::string& why, bool out_of_memory) {
                        auto self = weak.lock();
                        if (self && self->process_ == mine.lock())
                          self->on_process_end(why, out_of_memory);
                      },
                  // It keeps the machine until it is gone.
                  .on_gone = [self = shared_from_this()] { self->on_process_gone(); }});
  process_->wake(from, [weak, mine](owned_fd channel, const std::string& error) {
    auto self = weak.lock();
    if (!self || self->process_ != mine.lock() || self->ending())
      return;
    if (!error.empty())
      return self->lose(error);
    self->on_running(std::move(channel));
  });
}

void vm_source::one_machine::on_running(owned_fd channel) {
  woken_ = true;
  failed_starts_ = 0;
  channel_->replace(std::move(channel));
  channel_->send_first(fresh_identity(spec_.id));
}

void vm_source::one_machine::on_renewed(const guest::renewed& message) {
  if (!message.error.empty())
    return lose("the guest could not be made anew: " + message.error);
  if (doing_ == doing::rolling_back) {
    doing_ = doing::serving;
    begins_from_.reset();
    channel_->resume(until_back);
    return end_step(files_step::roll_back, step_checkpoint_);
  }
  if (doing_ == doing::freezing)
    return stop_for_freeze();
  if (doing_ != doing::coming_up)
    return;
  if (begins_from_)
    // Files are what goes over; interpreters of the parent end here.
    return channel_->send_first(guest::thaw{.request = own_request, .checkpoint = no_checkpoint});
  after_renewed();
}

void vm_source::one_machine::after_renewed() {
  {
    std::lock_guard guard{mutex_};
    channel_->send_first(guest::limit{.memory_bytes = limits_.memory_bytes,
                                      .processes = limits_.processes,
                                      .disk_bytes = limits_.disk_bytes});
    limits_known_ = true;
    memory_mib_ = template_->shape.memory_mib;
    used_.disk_limit_bytes = limits_.disk_bytes;
  }
  say_hello();
}

void vm_source::one_machine::say_hello() {
  doing_ = doing::serving;
  source_->loop.cancel(hello_timer_);
  begins_from_.reset();
  channel_->resume(until_up);
  if (std::exchange(said_hello_, true))
    return; // it outgrew its first memory
  auto self = shared_from_this();
  listener_->on_frame(template_->hello);
  for (const auto& language : spec_.warm)
    if (std::ranges::find(template_->warm, language) != template_->warm.end())
      listener_->on_frame(guest::warmed{language});
  if (!asked_to_end_)
    plan_heat();
}

void vm_source::one_machine::plan_heat() {
  for (const auto& language : spec_.warm)
    if (*idle_program(language) != '\0'
        && std::ranges::find(template_->warm, language) != template_->warm.end())
      to_heat_.push_back(language);
  if (!to_heat_.empty())
    heat_after_calm(heat_after);
}

void vm_source::one_machine::heat_after_calm(reactor::clock::duration wait) {
  auto whole = std::chrono::ceil<std::chrono::milliseconds>(wait);
  heat_timer_ = source_->loop.after(whole, [self = shared_from_this()] {
    self->heat_timer_ = 0;
    if (auto longer = self->source_->until_calm(); longer > reactor::clock::duration::zero())
      self->heat_after_calm(longer);
    else
      self->heat();
  });
}

/// Runs what does nothing, so that the machine's first job finds its code translated. Jobs that
/// come meanwhile wait for it.
void vm_source::one_machine::heat() {
  if (doing_ != doing::serving || channel_->spoken_to() || ending()
      || source_->heated_unused() >= heated_unused_max)
    return;
  heated_ = true;
  channel_->pause(until_heated);
  for (const auto& language : to_heat_) {
    guest::start_job job;
    job.job = own_jobs_from + own_jobs_++;
    job.language = language;
    job.code = idle_program(language);
    job.output_bytes = 1024;
    channel_->send_first(job);
  }
  // A guest that does not answer harms itself, but must not keep the slot's words for good.
  source_->loop.after(heat_within, [channel = channel_] { channel->resume(until_heated); });
  to_heat_.clear();
}

void vm_source::one_machine::heated() {
  if (--own_jobs_ == 0)
    channel_->resume(until_heated);
}

/// Frames that answer what we asked, not the slot.
bool vm_source::one_machine::is_own(const guest::from_guest& frame) {
  if (const auto* message = std::get_if<guest::renewed>(&frame)) {
    on_renewed(*message);
    return true;
  }
  if (const auto* message = std::get_if<guest::used>(&frame)) {
    on_used(*message);
    return true;
  }
  if (doing_ == doing::coming_up) {
    const auto* thawed = std::get_if<guest::thawed>(&frame);
    if (thawed != nullptr && thawed->request == own_request)
      after_renewed();
    // Whatever else a machine says that is not up yet is about an earlier life.
    return true;
  }
  auto of_own_job = [](std::uint32_t job) { return job >= own_jobs_from; };
  if (const auto* message = std::get_if<guest::job_ended>(&frame);
      message && of_own_job(message->job)) {
    if (own_jobs_ > 0)
      heated();
    return true;
  }
  if (const auto* message = std::get_if<guest::job_refused>(&frame);
      message && of_own_job(message->job)) {
    if (own_jobs_ > 0)
      heated();
    return true;
  }
  if (const auto* message = std::get_if<guest::job_started>(&frame))
    return of_own_job(message->job);
  if (const auto* message = std::get_if<guest::output>(&frame))
    return of_own_job(message->job);
  return false;
}

void vm_source::one_machine::on_frame(guest::from_guest frame) {
  if (is_own(frame))
    return;
  listener_->on_frame(std::move(frame));
}

void vm_source::one_machine::on_used(const guest::used& message) {
  std::lock_guard guard{mutex_};
  used_ = {.memory_bytes = message.memory_bytes,
           .memory_peak_bytes = message.memory_peak_bytes,
           .cpu_us = message.cpu_us,
           .processes = message.processes,
           .disk_bytes = message.disk_bytes,
           .disk_limit_bytes = message.disk_limit_bytes,
           .oom_kills = message.oom_kills};
}

/// As the guest tells it; before it told anything, as the host sees its process.
machine_usage vm_source::one_machine::usage() const {
  std::lock_guard guard{mutex_};
  if (used_.memory_bytes > 0 || !usage_process_)
    return used_;
  machine_usage seen = usage_process_->usage();
  return {.memory_bytes = seen.memory_bytes,
          .memory_peak_bytes = seen.memory_peak_bytes,
          .cpu_us = seen.cpu_us,
          .disk_limit_bytes = limits_.disk_bytes};
}

void vm_source::one_machine::set_limits(const machine_limits& wanted) {
  std::lock_guard guard{mutex_};
  auto changed = with_defaults(wanted, source_->settings.defaults);
  if (changed == limits_)
    return;
  limits_ = changed;
  if (limits_known_ && vm_memory_mib(changed) > memory_mib_ && !channel_->spoken_to()) {
    // What is said from now on waits for the larger machine.
    limits_known_ = false;
    channel_->pause(until_up);
    source_->loop.post(
        [self = shared_from_this(), mib = vm_memory_mib(changed)] { self->outgrow(mib); });
  } else if (limits_known_)
    channel_->send(guest::limit{.memory_bytes = changed.memory_bytes,
                                .processes = changed.processes,
                                .disk_bytes = changed.disk_bytes});
}

/// Memory cannot be added to a machine that runs; but one that has not served anybody yet is
/// replaced by a larger one, and nobody notices.
void vm_source::one_machine::outgrow(std::uint64_t memory_mib) {
  if (ending() || doing_ != doing::serving)
    return;
  source_->loop.cancel(heat_timer_);
  own_jobs_ = 0;
  channel_->resume(until_heated);
  doing_ = doing::coming_up;
  // The old machine's end is not this one's.
  channel_->replace(owned_fd{});
  if (auto old = std::exchange(process_, nullptr))
    old->kill();
  hello_timer_ = source_->loop.after(source_->settings.hello_within, [self = shared_from_this()] {
    self->hello_timer_ = 0;
    self->lose("the larger machine was not up in time");
  });
  source_->with_template(
      memory_mib,
      [weak = weak_from_this()](std::shared_ptr<const vm_template> from, const std::string& why) {
        if (auto self = weak.lock())
          self->on_template(std::move(from), why);
      });
}

bool vm_source::one_machine::warm(std::string_view language) {
  channel_->send(guest::prepare{std::string{language}});
  return true;
}

// --- its end -------------------------------------------------------------------------------------

void vm_source::one_machine::lose(std::string why) {
  if (hears_rest_)
    return;
  if (first_cause_.empty())
    first_cause_ = std::move(why);
  channel_->close();
  source_->loop.cancel(hello_timer_);
  if (process_ && !process_->dead())
    return process_->kill(); // how it died is told then
  on_process_end("", false);
  if (processes_left_ == 0)
    gone();
}

/// The guest ended it, or its kernel did.
void vm_source::one_machine::on_stopped() {
  process_->console(
      [weak = weak_from_this(), mine = std::weak_ptr{process_}](const std::string& console) {
        auto self = weak.lock();
        if (self && self->process_ && self->process_ == mine.lock())
          self->lose("the virtual machine stopped by itself" + last_cause(console));
      });
}

/// The process died, or there is none.
void vm_source::one_machine::on_process_end(const std::string& why, bool out_of_memory) {
  auto self = shared_from_this();
  // One that had waited may have been dead or dying when it was taken: the next one is as good.
  if (!ending() && process_ && !woken_ && ++failed_starts_ <= failed_starts_max)
    return come_up();
  // Frames that came before the death are heard before it. That the channel ended is no news.
  hears_rest_ = true;
  channel_->drain();
  channel_->close();
  if (asked_to_end_ || std::exchange(told_lost_, true))
    return;
  if (doing_ == doing::coming_up && !begins_from_ && template_)
    source_->distrust(template_);
  std::string told = first_cause_;
  if (!why.empty())
    told += told.empty() ? why : " (" + why + ")";
  listener_->on_lost(std::move(told), out_of_memory);
}

void vm_source::one_machine::on_process_gone() {
  --processes_left_;
  if (processes_left_ == 0 && (asked_to_end_ || told_lost_))
    gone();
}

void vm_source::one_machine::destroy() {
  source_->loop.post([self = shared_from_this()] {
    if (self->told_gone_ || std::exchange(self->asked_to_end_, true))
      return;
    self->source_->loop.after(answer_first, [self] { self->end(); });
  });
}

void vm_source::one_machine::end() {
  channel_->close();
  source_->loop.cancel(hello_timer_);
  source_->loop.cancel(heat_timer_);
  if (process_ && !process_->dead())
    process_->kill();
  if (processes_left_ == 0)
    gone();
}

void vm_source::one_machine::source_gone() {
  if (!told_gone_) {
    if (first_cause_.empty())
      first_cause_ = "the launcher has ended";
    on_process_end("", false);
    gone();
  }
}

void vm_source::one_machine::gone() {
  if (std::exchange(told_gone_, true))
    return;
  auto self = shared_from_this();
  channel_->close();
  source_->loop.cancel(hello_timer_);
  source_->loop.cancel(heat_timer_);
  states_.clear();
  process_.reset();
  {
    std::lock_guard guard{mutex_};
    usage_process_.reset();
  }
  auto listener = std::move(listener_);
  source_->forget(self);
  listener->on_gone();
}

// --- states --------------------------------------------------------------------------------------

const vm_state* vm_source::one_machine::state_at(checkpoint_number checkpoint) const {
  auto found = states_.find(checkpoint);
  return found == states_.end() ? nullptr : &found->second;
}

void vm_source::one_machine::end_step(files_step step, checkpoint_number checkpoint,
                                      const std::string& error) {
  if (listener_)
    listener_->on_files({.step = step, .checkpoint = checkpoint, .error = error});
}

void vm_source::one_machine::freeze_files(checkpoint_number checkpoint) {
  source_->loop.post([self = shared_from_this(), checkpoint] {
    if (self->ending())
      return;
    if (self->doing_ != doing::serving || self->states_.contains(checkpoint))
      return self->end_step(files_step::freeze, checkpoint, "the machine is at another step");
    self->doing_ = doing::freezing;
    self->step_checkpoint_ = checkpoint;
    self->stops_ = 0;
    if (!self->process_->save_ends_channel())
      return self->stop_for_freeze();
    // What was said before is heard when this is answered; what is said later waits.
    self->channel_->pause(until_saved);
    self->channel_->send_first(fresh_identity(self->spec_.id));
  });
}

/// Stops the machine where no frame is under way in either direction.
void vm_source::one_machine::stop_for_freeze() {
  process_->stop([weak = weak_from_this()](const std::string& error) {
    auto self = weak.lock();
    if (!self || self->doing_ != doing::freezing || self->ending())
      return;
    if (!error.empty())
      return self->lose("the machine cannot be stopped: " + error);
    self->channel_->drain();
    if (self->channel_->at_frame_end())
      self->save();
    else
      self->stop_again();
  });
}

void vm_source::one_machine::stop_again() {
  if (++stops_ > stops_max)
    return lose("the guest does not come to rest");
  process_->go_on([](const owned_fd&, const std::string&) {});
  source_->loop.after(std::chrono::milliseconds{1}, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (self && self->doing_ == doing::freezing && self->process_ && !self->process_->dead())
      self->stop_for_freeze();
  });
}

void vm_source::one_machine::save() {
  if (ending())
    return;
  if (process_->save_ends_channel())
    channel_->replace(owned_fd{});
  process_->save([weak = weak_from_this()](vm_state state, const std::string& error) {
    auto self = weak.lock();
    if (!self || self->doing_ != doing::freezing || !self->process_ || self->ending())
      return;
    if (error.empty())
      self->states_[self->step_checkpoint_] = std::move(state);
    self->go_on(error);
  });
}

/// It goes on, whether it could be saved or not.
void vm_source::one_machine::go_on(std::string error) {
  process_->go_on([weak = weak_from_this(), error = std::move(error)](owned_fd channel,
                                                                      const std::string& why) {
    auto self = weak.lock();
    if (!self || self->doing_ != doing::freezing || self->ending())
      return;
    if (!why.empty())
      return self->lose("the machine does not go on: " + why);
    if (channel)
      self->channel_->replace(std::move(channel));
    self->channel_->resume(until_saved);
    self->doing_ = doing::serving;
    self->end_step(files_step::freeze, self->step_checkpoint_, error);
  });
}

void vm_source::one_machine::roll_back_files(checkpoint_number checkpoint) {
  source_->loop.post([self = shared_from_this(), checkpoint] {
    if (self->ending())
      return;
    auto found = self->states_.find(checkpoint);
    if (self->doing_ != doing::serving || found == self->states_.end())
      return self->end_step(files_step::roll_back, checkpoint,
                            found == self->states_.end() ? "there is no such state"
                                                         : "the machine is at another step");
    self->doing_ = doing::rolling_back;
    self->step_checkpoint_ = checkpoint;
    self->channel_->pause(until_back);
    self->begins_from_ = found->second;
    // The machine that is, ends; the one that was goes on under its name.
    auto old = std::exchange(self->process_, nullptr);
    old->kill();
    self->come_up();
  });
}

void vm_source::one_machine::drop_files(checkpoint_number checkpoint) {
  source_->loop.post([self = shared_from_this(), checkpoint] {
    self->states_.erase(checkpoint);
    self->end_step(files_step::drop, checkpoint);
  });
}

void vm_source::one_machine::save_files(checkpoint_number checkpoint, checkpoint_number,
                                        std::shared_ptr<const owned_fd> to,
                                        std::uint64_t bytes_max) {
  source_->loop.post([self = shared_from_this(), checkpoint, to = std::move(to), bytes_max] {
    const vm_state* state = self->state_at(checkpoint);
    if (self->told_gone_)
      return;
    if (state == nullptr || !self->template_)
      return self->end_step(files_step::save, checkpoint, "there is no such state");
    self->source_->files.add(
        [self, checkpoint, to, bytes_max, state = *state, from = self->template_] {
          std::string id = self->source_->id_of(from);
          auto done = id.empty() ? vm_files::outcome{.why = "its template is not on disk"}
                                 : vm_files::write_state(to->get(), state, *from, id, bytes_max);
          self->source_->loop.post([self, checkpoint, done] {
            if (self->listener_)
              self->listener_->on_files({.step = files_step::save,
                                         .checkpoint = checkpoint,
                                         .bytes = done.bytes,
                                         .error = done.why});
          });
        });
  });
}

// --- the source ----------------------------------------------------------------------------------

vm_source::vm_source(std::unique_ptr<vm_engine> engine, std::string start_command, reactor& loop)
  : kind_(engine->kind())
  , state_(std::make_shared<shared_state>(std::move(engine), loop)) {
  state_->start_command = std::move(start_command);
  // No template yet: where nobody asks for a machine, none is booted and no spare waits.
  loop.post([state = state_] { state->engine->open(); });
}

vm_source::~vm_source() {
  state_->files.stop();
  state_->loop.post([state = state_] { state->shut_down(); });
  (void)state_->engine->wait_closed(end_within);
  // On the reactor's thread, before it is left: nothing of this source runs any more.
  std::mutex mutex;
  std::condition_variable changed;
  bool closed = false;
  state_->loop.post([&, state = state_] {
    state->close();
    std::lock_guard guard{mutex};
    closed = true;
    changed.notify_all();
  });
  std::unique_lock lock{mutex};
  changed.wait(lock, [&] { return closed; });
  state_->engine->wait_ended(end_within);
}

std::shared_ptr<machine> vm_source::start(const machine_spec& spec,
                                          std::shared_ptr<machine_listener> listener) {
  auto one = std::make_shared<one_machine>(state_, spec, std::move(listener));
  state_->loop.post([one] { one->begin(); });
  return one;
}

std::chrono::milliseconds vm_source::start_within() const {
  return state_->settings.hello_within;
}

std::vector<std::string> vm_source::isolation() const {
  return state_->isolation();
}

std::string vm_source::wait_ready(std::chrono::milliseconds limit) {
  const std::uint64_t memory_mib = vm_memory_mib(state_->settings.defaults);
  state_->loop.post([state = state_, memory_mib] {
    state->with_template(memory_mib,
                         [](const std::shared_ptr<const vm_template>&, const std::string&) {});
  });
  return state_->wait_template(memory_mib, limit);
}

const std::string& vm_source::instance() const {
  return state_->engine->instance();
}

} // namespace berth::machines
