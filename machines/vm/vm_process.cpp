// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_process.hpp"

#include <sys/epoll.h>

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

/// Kept of what a process wrote to standard error.
constexpr std::size_t words_bytes_max = 2'000;
/// How often is read at a time.
constexpr int words_rounds = 16;

report report_of_end() {
  report said{.kind = report_kind::answered, .error = ESRCH};
  std::string_view{"the machine is gone"}.copy(said.text, sizeof said.text - 1);
  return said;
}

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

bool launcher_link::ask(const request& what, std::string_view texts, std::span<const int> fds) {
  std::vector<std::byte> packet(sizeof what + texts.size());
  request asked = what;
  asked.argument_bytes = static_cast<std::uint32_t>(texts.size());
  std::memcpy(packet.data(), &asked, sizeof asked);
  std::ranges::copy(std::as_bytes(std::span{texts}), packet.begin() + sizeof asked);
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
  if (said.kind == report_kind::answered && said.number == 0) {
    if (auto node = asked_.extract(said.ticket); !node.empty())
      node.mapped()(said, fds);
    return true;
  }
  auto found = processes_.find(said.number);
  if (found == processes_.end())
    return true;
  auto one = found->second; // it may end its own entry
  one->on_report(said, fds);
  return true;
}

void launcher_link::ask_own(request what, std::span<const int> fds, answer_handler done) {
  what.ticket = next_ticket_++;
  what.number = 0;
  if (ask(what, {}, fds)) {
    if (done)
      asked_[what.ticket] = std::move(done);
    return;
  }
  std::vector<owned_fd> none;
  if (done)
    done(report_of_end(), none);
}

void launcher_link::on_end() {
  auto asked = std::move(asked_);
  asked_.clear();
  for (auto& [ticket, done] : asked) {
    std::vector<owned_fd> none;
    done(report_of_end(), none);
  }
  auto processes = std::move(processes_);
  processes_.clear();
  for (auto& [number, one] : processes)
    one->launcher_gone();
}

// --- a process -----------------------------------------------------------------------------------

bool vm_process::launch(request asked, std::span<const std::string> texts, std::vector<int> fds) {
  int errors[2] = {-1, -1};
  // A pipe that is full takes no more, and nobody waits for it.
  if (::pipe2(errors, O_CLOEXEC | O_NONBLOCK) != 0)
    return false;
  errors_.reset(errors[0]);
  owned_fd its_errors{errors[1]};
  fds.insert(fds.begin(), its_errors.get());
  std::string packed;
  for (const auto& one : texts)
    packed.append(one).push_back('\0');
  asked.kind = request_kind::launch;
  asked.number = number_;
  asked.port = out_ ? way_out_port : std::uint16_t{0};
  if (!link_->ask(asked, packed, fds))
    return false;
  link_->adopt(number_, shared_from_this());
  errors_watch_ =
      link_->loop().watch(errors_.get(), EPOLLIN, [this](std::uint32_t) { (void)last_words(); });
  return true;
}

void vm_process::tell(handlers told) {
  told_ = std::move(told);
  if (dead_ && !std::exchange(told_end_, true) && told_.on_end)
    told_.on_end(why_, out_of_memory_);
  if (gone_ && told_.on_gone)
    told_.on_gone();
}

void vm_process::known_as(const std::string& machine) {
  machine_ = machine;
  serve_out();
}

/// As soon as there is a socket, and a name for whoever speaks there.
void vm_process::serve_out() {
  if (out_ && listener_ && !machine_.empty() && !dead_)
    door_ = out_->serve(machine_, std::move(listener_));
}

void vm_process::kill() {
  if (!dead_)
    link_->ask({.kind = request_kind::destroy, .number = number_});
}

const std::string& vm_process::last_words() {
  char text[4096];
  for (int round = 0; errors_ && round < words_rounds; ++round) {
    ssize_t count = ::read(errors_.get(), text, sizeof text);
    if (count == 0) {
      link_->loop().forget(errors_watch_);
      errors_.reset();
    }
    if (count <= 0)
      break;
    words_.append(text, static_cast<std::size_t>(count));
    if (words_.size() > words_bytes_max)
      words_.erase(0, words_.size() - words_bytes_max);
  }
  while (!words_.empty() && (words_.back() == '\n' || words_.back() == '\r'))
    words_.pop_back();
  return words_;
}

void vm_process::blame(const std::string& why) {
  if (why_.empty())
    why_ = why;
}

void vm_process::stopped() {
  auto self = shared_from_this();
  if (told_.on_stopped)
    told_.on_stopped();
}

void vm_process::ask(request what, std::string_view text, std::span<const int> fds,
                     answer_handler done) {
  what.ticket = next_ticket_++;
  what.number = number_;
  if (!dead_ && link_->ask(what, text, fds)) {
    asked_[what.ticket] = std::move(done);
    return;
  }
  std::vector<owned_fd> none;
  done(report_of_end(), none);
}

std::string vm_process::error_of(const report& said) {
  if (said.error == 0)
    return {};
  return said.text[0] != '\0' ? std::string{said.text} : std::string{std::strerror(said.error)};
}

void vm_process::on_report(const report& said, std::vector<owned_fd>& fds) {
  switch (said.kind) {
  case report_kind::launched: {
    {
      std::lock_guard guard{mutex_};
      handles_.take(said.handles, fds);
      listener_ = std::move(handles_[spawner::handle_listener]);
    }
    serve_out();
    break;
  }
  case report_kind::answered:
    if (auto node = asked_.extract(said.ticket); !node.empty())
      node.mapped()(said, fds);
    break;
  case report_kind::died: {
    std::string why = said.text;
    if (said.error != 0)
      why += std::string{": "} + std::strerror(said.error);
    if (!why_.empty())
      why = why_ + " (" + why + ")";
    if (const std::string& words = last_words(); !words.empty())
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
  link_->loop().forget(errors_watch_);
  errors_.reset();
  listener_.reset();
  door_.reset();
  let_go();
  auto waiting = std::move(asked_);
  asked_.clear();
  for (auto& [ticket, done] : waiting) {
    std::vector<owned_fd> none;
    done(report_of_end(), none);
  }
  if (told_.on_end && !std::exchange(told_end_, true))
    told_.on_end(why_, out_of_memory_);
}

void vm_process::give_up(const std::string& why) {
  ended(why, false);
  gone();
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

machine_usage vm_process::usage() const {
  std::lock_guard guard{mutex_};
  return handles_.usage();
}

} // namespace berth::machines
