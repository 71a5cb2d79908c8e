// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/firecracker_process.hpp"

#include <sys/stat.h>

#include <array>
#include <fcntl.h>

namespace berth::machines {

namespace fc = firecracker;
using launcher::report;
using launcher::request_kind;

namespace {

/// How long Firecracker may take to answer.
constexpr std::chrono::seconds answer_within{30};
/// What it may take to write or read all of its guest's memory.
constexpr std::chrono::seconds memory_within{120};
/// How soon a socket is tried again that does not answer yet, and for how long.
constexpr std::chrono::milliseconds api_pause{2};
constexpr std::chrono::seconds api_within{60};
constexpr std::chrono::milliseconds vsock_pause{20};
/// A try alone: a guest that boots may not answer at all.
constexpr std::chrono::seconds vsock_try_within{3};
/// Who boots says itself how long is too long.
constexpr std::chrono::hours boot_within{1};
constexpr std::chrono::seconds channel_within{60};
/// What Firecracker needs beyond the guest's memory, which it may have a second time for a moment:
/// what it saves of it counts as its own.
constexpr std::uint64_t overhead_mib = 192;
constexpr std::uint64_t processes = 64;
constexpr std::uint64_t second_ms = 1000;

std::string prefixed(const char* what, const std::string& error) {
  return error.empty() ? std::string{} : what + error;
}

} // namespace

kept_state::~kept_state() {
  // Whoever had it last may be another thread.
  link_->loop().post([link = link_, number = number_] {
    link->ask_own({.kind = request_kind::drop, .state = number}, {}, nullptr);
  });
}

// --- from its start to its API -------------------------------------------------------------------

bool firecracker_process::launch_with(std::uint64_t state) {
  const std::array<std::string, 1> texts{name_};
  launched_ = launch({.memory_bytes = (2 * shape_.memory_mib + overhead_mib) << 20,
                      .processes = processes,
                      .bytes_max = shape_.memory_mib << 20,
                      .state = state,
                      .by_faults = common_->settings.memory_by_faults ? 1U : 0U},
                     texts, {});
  return launched_;
}

bool firecracker_process::start(const std::string& kernel_words) {
  kernel_words_ = kernel_words;
  return launch_with(0);
}

void firecracker_process::kill() {
  if (launched_)
    return vm_process::kill();
  // There is nothing whose end the launcher could tell.
  link_->loop().post([one = self()] {
    if (!one->launched_)
      one->give_up("it was not started");
    else
      one->vm_process::kill();
  });
}

void firecracker_process::let_go() {
  if (api_)
    api_->close();
  if (call_)
    call_->close();
}

void firecracker_process::open_api(clock::time_point until, step_handler then) {
  ask({.kind = request_kind::connect}, "vm.sock", {},
      [weak = std::weak_ptr{self()}, until, then = std::move(then)](const report& said,
                                                                    std::vector<owned_fd>& fds) {
        auto one = weak.lock();
        if (!one || one->dead())
          return;
        if (said.error == 0 && fds.size() == 1)
          return one->on_api(std::move(fds.front()), then);
        if (clock::now() > until)
          return then("Firecracker's socket does not answer: " + error_of(said));
        one->link_->loop().after(api_pause, [weak, until, then] {
          auto again = weak.lock();
          if (again && !again->dead())
            again->open_api(until, then);
        });
      });
}

void firecracker_process::on_api(owned_fd socket, const step_handler& then) {
  api_ = std::make_shared<fc::client>(link_->loop(), std::move(socket));
  std::weak_ptr<firecracker_process> weak = self();
  api_->open([weak](const std::string& why) {
    auto one = weak.lock();
    if (!one)
      return;
    // How it died is known better by the launcher.
    if (why != "Firecracker has ended")
      one->blame(why);
    one->kill();
  });
  api_->ask(fc::describe_instance(), answer_within, [weak, then](const fc::reply& came) {
    auto one = weak.lock();
    if (!one || one->dead())
      return;
    if (!came.ok())
      return then(came.error);
    auto version = came.value.find("vmm_version");
    if (version != came.value.end() && version->is_string())
      one->common_->on_version(version->get<std::string>());
    then("");
  });
}

/// One after the other, until one is refused.
void firecracker_process::ask_all(std::shared_ptr<const requests> what, std::size_t next,
                                  step_handler then) {
  if (next == what->size())
    return then("");
  const auto& one = (*what)[next];
  const bool is_slow = one.path.starts_with("/snapshot/");
  api_->ask(
      one, is_slow ? memory_within : answer_within,
      [weak = std::weak_ptr{self()}, what, next, then = std::move(then)](const fc::reply& came) {
        auto process = weak.lock();
        if (!process || process->dead())
          return;
        if (!came.ok())
          return then((*what)[next].path + ": " + came.error);
        process->ask_all(what, next + 1, then);
      });
}

void firecracker_process::ask_all(requests what, step_handler then) {
  ask_all(std::make_shared<const requests>(std::move(what)), 0, std::move(then));
}

// --- boot and wake -------------------------------------------------------------------------------

std::optional<fc::rate_limit> firecracker_process::disk_limit() const {
  const auto& wanted = common_->settings;
  fc::rate_limit limit;
  if (wanted.disk_bytes_per_second != 0)
    limit.bandwidth =
        fc::token_bucket{.size = wanted.disk_bytes_per_second, .refill_ms = second_ms};
  if (wanted.disk_operations_per_second != 0)
    limit.operations =
        fc::token_bucket{.size = wanted.disk_operations_per_second, .refill_ms = second_ms};
  if (!limit.bandwidth && !limit.operations)
    return std::nullopt;
  return limit;
}

firecracker_process::requests firecracker_process::boot_requests() const {
  return {
      fc::put_machine_config(shape_.vcpus, shape_.memory_mib),
      fc::put_boot_source("kernel", "initrd", kernel_words_),
      fc::put_drive(
          {.id = "root", .path = "disk", .root = true, .read_only = true, .limit = disk_limit()}),
      fc::put_vsock(guest_cid, "v.sock"),
      fc::put_entropy(std::nullopt),
      fc::start_instance()};
}

void firecracker_process::boot(channel_handler then) {
  std::weak_ptr<firecracker_process> weak = self();
  open_api(clock::now() + api_within, [weak, then = std::move(then)](const std::string& error) {
    auto one = weak.lock();
    if (!one)
      return;
    if (!error.empty())
      return then({}, error);
    auto what = one->boot_requests();
    if (one->common_->settings.metrics)
      what.insert(what.begin(), fc::put_metrics("metrics"));
    one->ask_all(std::move(what), [weak, then](const std::string& refused) {
      auto process = weak.lock();
      if (!process)
        return;
      if (!refused.empty())
        return then({}, "Firecracker refused to boot: " + refused);
      process->open_channel(clock::now() + boot_within, then);
    });
  });
}

void firecracker_process::wake(const vm_state& from, channel_handler then) {
  std::weak_ptr<firecracker_process> weak = self();
  make_state(
      from, [weak, then = std::move(then), keeping = from.keeping](const std::string& cause) {
        auto one = weak.lock();
        if (!one || one->dead())
          return;
        if (!cause.empty())
          return then({}, cause);
        auto kept = std::static_pointer_cast<kept_state>(keeping->place);
        if (!one->launch_with(kept->number()))
          return then({}, "the launcher has ended");
        one->open_api(clock::now() + api_within, [weak, then, kept](const std::string& error) {
          auto process = weak.lock();
          if (!process)
            return;
          if (!error.empty())
            return then({}, error);
          requests what;
          if (process->common_->settings.metrics)
            what.push_back(fc::put_metrics("metrics"));
          const bool by_faults = process->common_->settings.memory_by_faults;
          what.push_back(fc::load_snapshot(
              {.state_path = "devices",
               .backend = by_faults ? fc::memory_backend::uffd : fc::memory_backend::file,
               .memory_path = by_faults ? "faults.sock" : "memory",
               .resume = true,
               .vsock_path = {}}));
          process->ask_all(std::move(what), [weak, then, kept](const std::string& refused) {
            auto woken = weak.lock();
            if (!woken)
              return;
            if (!refused.empty())
              return then({}, "Firecracker does not take the state: " + refused);
            woken->open_channel(clock::now() + channel_within, then);
          });
        });
      });
}

/// A state that was on disk, or was saved by an earlier launcher, becomes a pair of files first.
void firecracker_process::make_state(const vm_state& from,
                                     std::function<void(const std::string&)> then) {
  if (from.keeping->place)
    return then("");
  const auto& memory = from.whole ? from.whole : base_;
  if (!memory)
    return then("the state has no memory");
  std::vector<int> fds{memory->get(), from.devices->get()};
  if (from.pages && !from.whole)
    fds.push_back(from.pages->get());
  link_->ask_own({.kind = request_kind::make}, fds,
                 [weak = std::weak_ptr{self()}, from, then = std::move(then),
                  link = link_](const report& said, std::vector<owned_fd>&) {
                   std::shared_ptr<kept_state> kept;
                   if (said.error == 0)
                     kept = std::make_shared<kept_state>(link, said.state);
                   auto one = weak.lock();
                   if (!one || one->dead())
                     return;
                   if (!kept)
                     return then("the state's files cannot be made: " + error_of(said));
                   // Another may have been as quick: one pair is enough.
                   if (!from.keeping->place)
                     from.keeping->place = kept;
                   then("");
                 });
}

// --- the channel ---------------------------------------------------------------------------------

void firecracker_process::open_channel(clock::time_point until, channel_handler then) {
  ask({.kind = request_kind::connect}, "v.sock", {},
      [weak = std::weak_ptr{self()}, until, then = std::move(then)](const report& said,
                                                                    std::vector<owned_fd>& fds) {
        auto one = weak.lock();
        if (!one || one->dead())
          return;
        if (said.error == 0 && fds.size() == 1)
          return one->call_guest(std::move(fds.front()), until, then);
        one->try_channel_again(until, then, error_of(said));
      });
}

void firecracker_process::call_guest(owned_fd socket, clock::time_point until,
                                     channel_handler then) {
  call_ = std::make_shared<fc::vsock_call>(link_->loop(), std::move(socket));
  call_->begin(guest_vsock_port, vsock_try_within,
               [weak = std::weak_ptr{self()}, until,
                then = std::move(then)](owned_fd stream, const std::string& error) {
                 auto one = weak.lock();
                 if (!one || one->dead())
                   return;
                 one->call_.reset();
                 if (error.empty())
                   return then(std::move(stream), "");
                 one->try_channel_again(until, then, error);
               });
}

/// A guest that boots does not listen yet.
void firecracker_process::try_channel_again(clock::time_point until, const channel_handler& then,
                                            const std::string& why) {
  if (clock::now() > until)
    return then({}, "no way to the guest: " + why);
  link_->loop().after(vsock_pause, [weak = std::weak_ptr{self()}, until, then] {
    auto one = weak.lock();
    if (one && !one->dead())
      one->open_channel(until, then);
  });
}

// --- states --------------------------------------------------------------------------------------

void firecracker_process::stop(step_handler then) {
  ask_all({fc::pause_vm()}, std::move(then));
}

void firecracker_process::go_on(channel_handler then) {
  std::weak_ptr<firecracker_process> weak = self();
  ask_all({fc::resume_vm()}, [weak, then = std::move(then)](const std::string& error) {
    auto one = weak.lock();
    if (!one)
      return;
    if (!error.empty())
      return then({}, error);
    one->open_channel(clock::now() + channel_within, then);
  });
}

/// Of one that stands still: Firecracker writes the state, the launcher takes it.
void firecracker_process::write_state(state_handler then) {
  std::weak_ptr<firecracker_process> weak = self();
  ask_all({fc::create_snapshot("saved/devices", "saved/memory")},
          [weak, then = std::move(then)](const std::string& error) {
            auto one = weak.lock();
            if (!one)
              return;
            if (!error.empty())
              return then({}, error);
            one->ask({.kind = request_kind::keep, .bytes_max = one->shape_.memory_mib << 20}, {},
                     {}, [link = one->link_, then](const report& said, std::vector<owned_fd>& fds) {
                       if (said.error != 0 || fds.size() != 2)
                         return then({}, prefixed("the saved state is not kept: ", error_of(said)));
                       vm_state made;
                       made.whole = std::make_shared<owned_fd>(std::move(fds[0]));
                       made.devices = std::make_shared<owned_fd>(std::move(fds[1]));
                       made.keeping->place = std::make_shared<kept_state>(link, said.state);
                       then(std::move(made), "");
                     });
          });
}

void firecracker_process::save(state_handler then) {
  write_state(std::move(then));
}

void firecracker_process::freeze(step_handler then) {
  std::weak_ptr<firecracker_process> weak = self();
  stop([weak, then = std::move(then)](const std::string& error) {
    auto one = weak.lock();
    if (!one)
      return;
    if (!error.empty())
      return then(error);
    one->write_state([weak, then](vm_state state, const std::string& refused) {
      if (auto process = weak.lock())
        process->frozen_ = std::move(state);
      then(refused);
    });
  });
}

std::string firecracker_process::take_frozen(vm_template& to) {
  if (!frozen_.whole)
    return "there is no frozen state";
  struct stat info {};
  if (::fstat(frozen_.whole->get(), &info) == 0)
    to.resident_bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
  to.memory = frozen_.whole;
  to.state = std::move(frozen_);
  frozen_ = {};
  return {};
}

} // namespace berth::machines
