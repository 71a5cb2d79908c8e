// SPDX-License-Identifier: Apache-2.0
#include "guest/interpreters.hpp"

#include "guest/send_fds.hpp"
#include "messages/limits.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <span>

namespace berth::guest {

namespace {

// The letters and layouts of machines/namespace/templates/protocol.h, which this layer does not
// include.
constexpr char letter_ready = 'w';
constexpr char letter_fork = 'F';
constexpr char letter_run = 'R';
struct ready_message {
  char letter;
  char reserved[3];
  std::int32_t pid;
};

} // namespace

std::uint64_t cpu_time_us(pid_t pid) {
  clockid_t clock;
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
    return 0;
  return static_cast<std::uint64_t>(time.tv_sec) * 1000000
         + static_cast<std::uint64_t>(time.tv_nsec) / 1000;
}

bool taken_interpreter::run(int stdin_fd, int stdout_fd, int stderr_fd, int job_fd) const {
  std::array<int, 4> fds{stdin_fd, stdout_fd, stderr_fd, job_fd};
  return send_with_fds(control.get(), std::span{&letter_run, 1}, fds);
}

void interpreters::serve(owned_fd side_socket) {
  side_socket_ = std::move(side_socket);
  loop_.watch(side_socket_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

void interpreters::accept() {
  std::array<char, limits::name_bytes_max> name;
  iovec part{name.data(), name.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t size = recvmsg(side_socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (size <= 0) {
    // The spawner is gone; what is warm stays.
    loop_.forget(side_socket_.get());
    side_socket_.reset();
    return;
  }
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (head == nullptr || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS
      || head->cmsg_len != CMSG_LEN(sizeof(int)))
    return;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  add({name.data(), static_cast<std::size_t>(size)}, owned_fd{fd}, true, {});
}

void interpreters::add(std::string language, owned_fd control, bool origin, taker waiting) {
  int fd = control.get();
  all_.push_back({std::move(language), std::move(control), -1, origin, std::move(waiting)});
  auto it = std::prev(all_.end());
  loop_.watch(fd, EPOLLIN, [this, it](std::uint32_t) { on_message(it); });
}

void interpreters::on_message(iterator it) {
  ready_message message{};
  ssize_t size = recv(it->control.get(), &message, sizeof message, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (size <= 0)
    return drop(it);
  // A failed fork is told by the end of the new one's socket, too.
  if (message.letter != letter_ready || size != sizeof message || it->pid > 0 || message.pid <= 1)
    return;
  it->pid = message.pid;
  if (it->waiting) {
    taker waiting = std::move(it->waiting);
    waiting(release(it));
  } else if (it->origin) {
    on_origin_ready_(it->language);
  }
}

void interpreters::drop(iterator it) {
  loop_.forget(it->control.get());
  taker waiting = std::move(it->waiting);
  all_.erase(it);
  if (waiting)
    waiting(std::nullopt);
}

taken_interpreter interpreters::release(iterator it) {
  loop_.forget(it->control.get());
  taken_interpreter taken{it->pid, std::move(it->control), cpu_time_us(it->pid)};
  all_.erase(it);
  return taken;
}

bool interpreters::available(std::string_view language) const {
  for (const interpreter& each : all_)
    if (each.language == language && each.pid > 0)
      return true;
  return false;
}

void interpreters::take(std::string_view language, bool last, taker call) {
  for (auto it = all_.begin(); it != all_.end(); ++it)
    if (it->language == language && it->pid > 0 && (last || !it->origin))
      return call(release(it));
  for (interpreter& each : all_)
    if (each.language == language && !each.origin && !each.waiting) {
      each.waiting = std::move(call);
      return;
    }
  for (interpreter& each : all_)
    if (each.language == language && each.origin && each.pid > 0)
      if (ask_for_spare(each, call))
        return;
  call(std::nullopt);
}

void interpreters::refill(std::string_view language) {
  interpreter* origin = nullptr;
  for (interpreter& each : all_) {
    if (each.language != language)
      continue;
    if (!each.origin)
      return;
    if (each.pid > 0)
      origin = &each;
  }
  if (origin != nullptr)
    ask_for_spare(*origin, {});
}

bool interpreters::ask_for_spare(interpreter& origin, taker waiting) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return false;
  owned_fd ours{ends[0]};
  owned_fd theirs{ends[1]};
  int fd = theirs.get();
  if (!send_with_fds(origin.control.get(), std::span{&letter_fork, 1}, std::span{&fd, 1}))
    return false;
  add(origin.language, std::move(ours), false, std::move(waiting));
  return true;
}

void interpreters::dismiss(std::string_view language) {
  for (auto it = all_.begin(); it != all_.end(); ++it)
    if (it->language == language && it->origin && it->pid > 0)
      // It exits when its socket is closed.
      return drop(it);
}

void interpreters::gone(pid_t pid) {
  for (auto it = all_.begin(); it != all_.end(); ++it)
    if (it->pid == pid)
      return drop(it);
}

void interpreters::append_pids(std::vector<pid_t>& to) const {
  for (const interpreter& each : all_)
    if (each.pid > 0)
      to.push_back(each.pid);
}

} // namespace berth::guest
