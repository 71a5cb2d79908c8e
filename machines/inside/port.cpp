// SPDX-License-Identifier: Apache-2.0
#include "machines/inside/port.hpp"

#include <linux/vm_sockets.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>

namespace berth::machines::inside {

namespace {

constexpr const char* port_name = "berth";
constexpr const char* ports_dir = "/sys/class/virtio-ports";
constexpr int port_tries = 3'000;
constexpr useconds_t port_pause_us = 2'000;
/// How soon a port without a host is looked at again.
constexpr std::chrono::milliseconds host_gone_pause{20};

/// The device of the port with our name, or an empty text.
std::string find_port() {
  DIR* directory = ::opendir(ports_dir);
  if (directory == nullptr)
    return {};
  std::string found;
  while (const dirent* entry = ::readdir(directory)) {
    std::ifstream in{std::string{ports_dir} + "/" + entry->d_name + "/name"};
    std::string name;
    if (std::getline(in, name) && name == port_name)
      found = std::string{"/dev/"} + entry->d_name;
  }
  ::closedir(directory);
  return found;
}

} // namespace

std::string port::open(const boot_options& options) {
  return options.vsock_port != 0 ? open_vsock(options.vsock_port) : open_serial();
}

std::string port::open_serial() {
  for (int left = port_tries; left > 0; --left) {
    std::string path = find_port();
    owned_fd stream{path.empty() ? -1 : ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)};
    if (stream) {
      attach(std::move(stream));
      return {};
    }
    ::usleep(port_pause_us);
  }
  return "there is no virtio-serial port named berth";
}

std::string port::open_vsock(std::uint32_t number) {
  listener_.reset(::socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_port = number;
  address.svm_cid = VMADDR_CID_ANY;
  sockaddr generic{};
  static_assert(sizeof generic == sizeof address);
  std::memcpy(&generic, &address, sizeof address);
  if (!listener_ || ::bind(listener_.get(), &generic, sizeof address) != 0
      || ::listen(listener_.get(), 1) != 0)
    return std::string{"vsock: "} + std::strerror(errno);
  listening_ = loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
  return {};
}

/// The newest connection is the host's: it connects again when it woke us from a snapshot, which
/// broke the one before.
void port::accept() {
  owned_fd stream{::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)};
  if (!stream)
    return;
  detach();
  attach(std::move(stream));
  flush();
}

void port::attach(owned_fd stream) {
  stream_ = std::move(stream);
  want_out_ = false;
  watch_ = loop_.watch(stream_.get(), EPOLLIN, [this](std::uint32_t events) { on_event(events); });
}

void port::detach() {
  loop_.forget(watch_);
  watch_ = 0;
  stream_.reset();
  cutter_ = {};
  // A frame that was sent in part cannot be continued for somebody else.
  if (sent_ > 0) {
    queued_ -= queue_.front().size();
    queue_.pop_front();
    sent_ = 0;
  }
}

void port::on_event(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0)
    flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
    receive();
}

void port::receive() {
  static std::array<char, 64 * limits::kib> buffer;
  ssize_t count = ::read(stream_.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (count > 0) {
    cutter_.push({buffer.data(), static_cast<std::size_t>(count)});
    while (auto body = cutter_.next())
      on_frame_(*body);
    if (cutter_.broken())
      end_machine("the host sent what is no frame");
    return;
  }
  if (listener_)
    return detach();
  // A serial port whose other end is closed says so all the time.
  loop_.forget(watch_);
  watch_ = 0;
  want_out_ = false;
  loop_.after(host_gone_pause, [this] {
    watch_ =
        loop_.watch(stream_.get(), EPOLLIN, [this](std::uint32_t events) { on_event(events); });
    flush();
  });
}

void port::send(bytes frame) {
  queued_ += frame.size();
  queue_.push_back(std::move(frame));
  if (queue_.size() == 1)
    flush();
  tell_full();
}

void port::flush() {
  while (stream_ && !queue_.empty()) {
    const bytes& first = queue_.front();
    ssize_t count = ::write(stream_.get(), first.data() + sent_, first.size() - sent_);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      break;
    sent_ += static_cast<std::size_t>(count);
    if (sent_ < first.size())
      continue;
    queued_ -= first.size();
    sent_ = 0;
    queue_.pop_front();
  }
  rewatch();
  tell_full();
}

void port::rewatch() {
  if (watch_ == 0 || want_out_ == !queue_.empty())
    return;
  want_out_ = !queue_.empty();
  loop_.rewatch(watch_, EPOLLIN | (want_out_ ? EPOLLOUT : 0U));
}

void port::tell_full() {
  bool full = queued_ >= queue_bytes_full;
  if (full == full_ || (full_ && queued_ >= queue_bytes_full / 2))
    return;
  full_ = full;
  on_full_(full_);
}

} // namespace berth::machines::inside
