// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/qemu_process.hpp"

#include "machines/vm/vm_memory.hpp"

#include <sys/socket.h>
#include <sys/stat.h>

#include <fcntl.h>

namespace berth::machines {

using launcher::report;
using launcher::request_kind;

namespace {

/// How long QEMU may take to answer.
constexpr std::chrono::seconds answer_within{30};
constexpr std::chrono::seconds console_within{2};

} // namespace

bool qemu_process::start(parts with) {
  int monitor[2] = {-1, -1};
  int channel[2] = {-1, -1};
  bool made = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) == 0
              && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) == 0;
  owned_fd our_monitor{monitor[0]};
  owned_fd its_monitor{monitor[1]};
  channel_.reset(channel[0]);
  owned_fd its_channel{channel[1]};
  guest_bytes_ = with.guest_bytes;
  if (with.kernel) {
    // Its memory is to be a template's.
    frozen_memory_ = make_memory_file(vm_memory::file_name, guest_bytes_);
    frozen_devices_ = make_memory_file("berth-vm-devices", 0);
    made = made && frozen_memory_ && frozen_devices_;
  }
  if (!made)
    return false;
  std::vector<int> fds{with.memory ? with.memory->get() : frozen_memory_.get(), its_monitor.get(),
                       its_channel.get(), with.root->get()};
  if (with.kernel)
    fds.insert(fds.end(), {with.kernel->get(), with.initrd->get()});
  if (!launch({.memory_bytes = with.memory_bytes, .processes = with.processes}, with.arguments,
              std::move(fds)))
    return false;
  monitor_ = std::make_shared<qmp::client>(link_->loop(), std::move(our_monitor));
  std::weak_ptr<qemu_process> weak = self();
  monitor_->open({.on_event =
                      [weak](const qmp::event& happened) {
                        if (auto one = weak.lock())
                          one->on_event(happened);
                      },
                  .on_end =
                      [weak](const std::string& why) {
                        auto one = weak.lock();
                        if (!one)
                          return;
                        // How it died is known better by the launcher.
                        if (why != "QEMU has ended")
                          one->blame(why);
                        one->kill();
                      }});
  return true;
}

void qemu_process::let_go() {
  waking_ = nullptr;
  if (monitor_)
    monitor_->close();
}

void qemu_process::on_event(const qmp::event& happened) {
  if (happened.name == "RESUME") {
    if (auto then = std::exchange(waking_, nullptr))
      then(std::move(channel_), "");
  } else if (happened.name == "SHUTDOWN" || happened.name == "GUEST_PANICKED") {
    stopped();
  }
}

void qemu_process::boot(channel_handler then) {
  then(std::move(channel_), "");
}

void qemu_process::wake(const vm_state& from, channel_handler then) {
  waking_ = std::move(then);
  if (!from.pages)
    return take_state(from);
  // One that was started just now has its memory in place only once it answers.
  monitor_->ask("query-status", nullptr, answer_within,
                [weak = std::weak_ptr{self()}, from](const qmp::answer& said) {
                  auto one = weak.lock();
                  if (!one || !one->answers())
                    return;
                  if (said.error.empty())
                    return one->put_pages(from);
                  if (auto told = std::exchange(one->waking_, nullptr))
                    told({}, "QEMU does not answer: " + said.error);
                });
}

/// Brings back the pages that differ from the template's, then the devices.
void qemu_process::put_pages(const vm_state& from) {
  int pages = from.pages->get();
  ask({.kind = request_kind::write_memory}, {}, std::span{&pages, 1},
      [weak = std::weak_ptr{self()}, from](const report& said, std::vector<owned_fd>&) {
        auto one = weak.lock();
        if (!one || !one->answers())
          return;
        if (said.error == 0)
          return one->take_state(from);
        if (auto told = std::exchange(one->waking_, nullptr))
          told({}, "the machine's memory cannot be brought back: " + error_of(said));
      });
}

void qemu_process::take_state(const vm_state& from) {
  // A position of its own: several machines may read it at a time.
  owned_fd devices = reopen(from.devices->get(), O_RDONLY);
  auto refused = [weak = std::weak_ptr{self()}](const qmp::answer& said) {
    auto one = weak.lock();
    if (!one || !one->answers() || said.error.empty())
      return;
    if (auto told = std::exchange(one->waking_, nullptr))
      told({}, "QEMU does not take the state: " + said.error);
  };
  monitor_->ask("getfd", {{"fdname", "state"}}, answer_within, refused, devices.get());
  monitor_->ask("migrate-incoming", {{"uri", "fd:state"}}, answer_within, refused);
}

void qemu_process::stop(step_handler then) {
  monitor_->ask("stop", nullptr, answer_within,
                [then = std::move(then)](const qmp::answer& said) { then(said.error); });
}

void qemu_process::go_on(channel_handler then) {
  monitor_->ask("cont", nullptr, answer_within, [](const qmp::answer&) {});
  then({}, "");
}

/// QEMU may open nothing: what it writes to is given.
void qemu_process::save_devices(int to, devices_handler then) {
  owned_fd for_writing = reopen(to, O_WRONLY);
  auto one = self();
  monitor_->ask(
      "add-fd", nullptr, answer_within,
      [one, then = std::move(then)](const qmp::answer& said) {
        auto set = qmp::number_in(said.value, "fdset-id");
        if (!set)
          return then(0, "QEMU did not take a descriptor: " + said.error);
        one->monitor_->ask("xen-save-devices-state",
                           {{"filename", "/dev/fdset/" + std::to_string(*set)}, {"live", false}},
                           answer_within, [set = *set, then](const qmp::answer& saved) {
                             then(set,
                                  saved.error.empty()
                                      ? std::string{}
                                      : "the machine's devices could not be saved: " + saved.error);
                           });
      },
      for_writing.get());
}

void qemu_process::save(state_handler then) {
  saving_ = {};
  saving_.devices = std::make_shared<owned_fd>(make_memory_file("berth-vm-devices", 0));
  save_devices(saving_.devices->get(), [one = self(), then = std::move(then)](
                                           std::uint64_t fdset, const std::string& error) {
    if (!error.empty())
      return then({}, error);
    one->read_pages(fdset, then);
  });
}

void qemu_process::read_pages(std::uint64_t fdset, state_handler then) {
  auto pages = std::make_shared<owned_fd>(make_memory_file("berth-vm-pages", 0));
  int to = pages->get();
  ask({.kind = request_kind::read_memory, .bytes_max = guest_bytes_ * 9 / 8}, {}, std::span{&to, 1},
      [one = self(), pages, fdset, then = std::move(then)](const report& said,
                                                           std::vector<owned_fd>&) {
        if (one->dead())
          return;
        one->monitor_->ask("remove-fd", {{"fdset-id", fdset}}, answer_within,
                           [](const qmp::answer&) {});
        if (said.error != 0)
          return then({}, error_of(said));
        (void)seal(pages->get());
        (void)seal(one->saving_.devices->get());
        one->saving_.pages = pages;
        one->saving_.pages_bytes = said.bytes;
        then(std::exchange(one->saving_, {}), "");
      });
}

void qemu_process::freeze(step_handler then) {
  monitor_->ask("stop", nullptr, answer_within, [](const qmp::answer&) {});
  save_devices(frozen_devices_.get(),
               [then = std::move(then)](std::uint64_t, const std::string& error) { then(error); });
}

/// The process is gone, and with it the last mapping for writing.
std::string qemu_process::take_frozen(vm_template& to) {
  if (!seal(frozen_memory_.get()) || !seal(frozen_devices_.get()))
    return "a template's memory could not be sealed";
  struct stat info {};
  if (::fstat(frozen_memory_.get(), &info) == 0)
    to.resident_bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
  to.memory = std::make_shared<owned_fd>(std::move(frozen_memory_));
  to.state.devices = std::make_shared<owned_fd>(std::move(frozen_devices_));
  return {};
}

void qemu_process::console(std::function<void(const std::string&)> then) {
  monitor_->ask("ringbuf-read", {{"device", "console"}, {"size", 65536}}, console_within,
                [then = std::move(then)](const qmp::answer& said) {
                  then(said.value.is_string() ? said.value.get<std::string>() : "");
                });
}

} // namespace berth::machines
