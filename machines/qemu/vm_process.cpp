// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/vm_process.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace berth::machines {

using launcher::report;
using launcher::report_kind;
using launcher::request;
using launcher::request_kind;

namespace {

/// Kept of what a QEMU wrote to standard error.
constexpr std::size_t words_bytes_max = 2'000;

} // namespace

// --- the link ------------------------------------------------------------------------------------

launcher_link::launcher_link(spawner_handle handle, reactor& loop)
  : loop_(loop)
  , pid_(handle.pid)
  , link_(std::make_shared<server_link>(std::move(handle.socket), loop)) {}

void launcher_link::open() {
  auto self = shared_from_this();
  link_->open(
      {.on_packet = [self](std::span<const std::byte> packet,
                           std::vector<owned_fd>& fds) { return self->on_report(packet, fds); },
       .on_end = [self] { self->on_end(); }});
}

bool launcher_link::ask(const request& what, std::string_view arguments, std::span<const int> fds) {
  std::vector<std::byte> packet(sizeof what + arguments.size());
  request asked = what;
  asked.argument_bytes = static_cast<std::uint32_t>(arguments.size());
  std::memcpy(packet.data(), &asked, sizeof asked);
  std::ranges::copy(std::as_bytes(std::span{arguments}), packet.begin() + sizeof asked);
  return link_->ask(packet, fds);
}

void launcher_link::adopt(std::uint64_t number, std::shared_ptr<vm_process> one) {
  processes_[number] = std::move(one);
}

bool launcher_link::on_report(std::span<const std::byte> packet, std::vector<owned_fd>& fds) {
  report said{};
  if (packet.size() != sizeof said)
    return false;
  std::memcpy(&said, packet.data(), sizeof said);
  said.text[sizeof said.text - 1] = '\0';
  auto found = processes_.find(said.number);
  if (found == processes_.end())
    return true;
  auto one = found->second; // it may end its own entry
  one->on_report(said, fds);
  return true;
}

void launcher_link::on_end() {
  auto processes = std::move(processes_);
  processes_.clear();
  for (auto& [number, one] : processes)
    one->launcher_gone();
}

// --- a process -----------------------------------------------------------------------------------

bool vm_process::start(const parts& with) {
  int monitor[2] = {-1, -1};
  int channel[2] = {-1, -1};
  int errors[2] = {-1, -1};
  bool made = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) == 0
              && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) == 0
              // A pipe that is full takes no more, and nobody waits for it.
              && ::pipe2(errors, O_CLOEXEC | O_NONBLOCK) == 0;
  owned_fd our_monitor{monitor[0]};
  owned_fd its_monitor{monitor[1]};
  channel_.reset(channel[0]);
  owned_fd its_channel{channel[1]};
  errors_.reset(errors[0]);
  owned_fd its_errors{errors[1]};
  if (!made)
    return false;
  std::vector<int> fds{its_errors.get(), with.memory->get(), its_monitor.get(), its_channel.get(),
                       with.root->get()};
  if (with.kernel)
    fds.insert(fds.end(), {with.kernel->get(), with.initrd->get()});
  std::string packed;
  for (const auto& one : with.arguments)
    packed.append(one).push_back('\0');
  request asked{.kind = request_kind::launch,
                .number = number_,
                .memory_bytes = with.memory_bytes,
                .processes = with.processes};
  if (!link_->ask(asked, packed, fds))
    return false;
  link_->adopt(number_, shared_from_this());
  monitor_ = std::make_shared<qmp::client>(link_->loop(), std::move(our_monitor));
  std::weak_ptr<vm_process> weak = weak_from_this();
  monitor_->open({.on_event =
                      [weak](const qmp::event& happened) {
                        auto self = weak.lock();
                        if (self && self->told_.on_event)
                          self->told_.on_event(happened);
                      },
                  .on_end =
                      [weak](const std::string& why) {
                        // How it died is known better by the launcher.
                        if (auto self = weak.lock()) {
                          if (self->why_.empty())
                            self->why_ = why;
                          self->kill();
                        }
                      }});
  return true;
}

void vm_process::tell(handlers told) {
  told_ = std::move(told);
  if (dead_ && !std::exchange(told_end_, true) && told_.on_end)
    told_.on_end(why_, out_of_memory_);
  if (gone_ && told_.on_gone)
    told_.on_gone();
}

void vm_process::kill() {
  if (!dead_)
    link_->ask({.kind = request_kind::destroy, .number = number_});
}

std::string vm_process::last_words() {
  char text[4096];
  ssize_t count = 0;
  while (errors_ && (count = ::read(errors_.get(), text, sizeof text)) > 0) {
    words_.append(text, static_cast<std::size_t>(count));
    if (words_.size() > words_bytes_max)
      words_.erase(0, words_.size() - words_bytes_max);
  }
  while (!words_.empty() && words_.back() == '\n')
    words_.pop_back();
  return words_;
}

void vm_process::read_memory(int to, std::uint64_t bytes_max, memory_handler done) {
  ask_memory({.kind = request_kind::read_memory, .number = number_, .bytes_max = bytes_max}, to,
             std::move(done));
}

void vm_process::write_memory(int from, memory_handler done) {
  ask_memory({.kind = request_kind::write_memory, .number = number_}, from, std::move(done));
}

void vm_process::ask_memory(request what, int fd, memory_handler done) {
  what.ticket = next_ticket_++;
  if (dead_ || !link_->ask(what, {}, std::span{&fd, 1}))
    return done(0, "the machine is gone");
  memory_[what.ticket] = std::move(done);
}

void vm_process::on_report(const report& said, std::vector<owned_fd>& fds) {
  switch (said.kind) {
  case report_kind::launched: {
    std::lock_guard guard{mutex_};
    handles_.take(said.handles, fds);
    break;
  }
  case report_kind::memory: {
    auto node = memory_.extract(said.ticket);
    if (!node.empty())
      node.mapped()(said.bytes, said.error == 0        ? std::string{}
                                : said.text[0] != '\0' ? std::string{said.text}
                                                       : std::string{std::strerror(said.error)});
    break;
  }
  case report_kind::died: {
    std::string why = said.text;
    if (said.error != 0)
      why += std::string{": "} + std::strerror(said.error);
    if (!why_.empty() && why_ != "QEMU has ended")
      why = why_ + " (" + why + ")";
    if (std::string words = last_words(); !words.empty())
      why += ": " + words;
    ended(std::move(why), said.out_of_memory != 0);
    break;
  }
  case report_kind::gone:
    gone();
    break;
  default:
    break;
  }
}

void vm_process::ended(std::string why, bool out_of_memory) {
  if (std::exchange(dead_, true))
    return;
  auto self = shared_from_this();
  why_ = std::move(why);
  out_of_memory_ = out_of_memory;
  if (monitor_)
    monitor_->close();
  auto waiting = std::move(memory_);
  memory_.clear();
  for (auto& [ticket, done] : waiting)
    done(0, "the machine is gone");
  if (told_.on_end && !std::exchange(told_end_, true))
    told_.on_end(why_, out_of_memory_);
}

void vm_process::gone() {
  ended("the launcher has ended", false);
  if (std::exchange(gone_, true))
    return;
  auto self = shared_from_this();
  {
    std::lock_guard guard{mutex_};
    handles_ = {};
  }
  link_->forget(number_);
  auto told = std::move(told_);
  told_ = {};
  if (told.on_gone)
    told.on_gone();
}

void vm_process::launcher_gone() {
  gone();
}

machine_usage vm_process::usage() const {
  std::lock_guard guard{mutex_};
  return handles_.usage();
}

} // namespace berth::machines
