// SPDX-License-Identifier: Apache-2.0
// Process 1 of a virtual machine that misbehaves, by the name it is given when it is cloned: what a
// server must bear. It boots like the real one and has the whole channel to itself.
#include "machines/inside/boot.hpp"
#include "tests/support/probe_lies.hpp"

#include <linux/vm_sockets.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <string>
#include <unistd.h>

namespace {

using namespace berth;
using machines::inside::end_machine;

int listener = -1;

int open_serial() {
  const std::string ports = "/sys/class/virtio-ports/";
  for (;; ::usleep(2'000)) {
    DIR* directory = ::opendir(ports.c_str());
    while (const dirent* entry = directory != nullptr ? ::readdir(directory) : nullptr) {
      std::ifstream in{ports + entry->d_name + "/name"};
      std::string name;
      if (std::getline(in, name) && name == "berth")
        return ::open((std::string{"/dev/"} + entry->d_name).c_str(), O_RDWR | O_CLOEXEC);
    }
    if (directory != nullptr)
      ::closedir(directory);
  }
}

int listen_at(std::uint32_t port) {
  int made = ::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_port = port;
  address.svm_cid = VMADDR_CID_ANY;
  sockaddr generic{};
  static_assert(sizeof generic == sizeof address);
  std::memcpy(&generic, &address, sizeof address);
  if (made < 0 || ::bind(made, &generic, sizeof address) != 0 || ::listen(made, 1) != 0)
    end_machine("no vsock");
  return made;
}

/// The host's end is another one: a vsock has to be accepted anew.
void next_host(int& channel) {
  if (listener < 0)
    return void(::usleep(2'000));
  if (channel >= 0)
    ::close(channel);
  channel = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
}

void tell(const test::liar& self) {
  if (self.lie() == "reboots")
    end_machine("it was told to");
  self.tell();
}

void hear(test::liar& self, std::span<const char> body) {
  auto frame = guest::decode_frame<guest::to_guest>(body);
  if (!frame)
    return;
  if (const auto* renew = std::get_if<guest::renew>(&*frame)) {
    self.be(renew->hostname);
    return self.is_early() ? tell(self) : self.say_frame(guest::renewed{});
  }
  // What the server asks of a guest that goes on from another's state.
  if (const auto* thaw = std::get_if<guest::thaw>(&*frame))
    return self.say_frame(guest::thawed{.request = thaw->request});
  const auto* ping = std::get_if<guest::ping>(&*frame);
  if (ping != nullptr && ping->request == test::lie_now)
    tell(self);
  if (ping != nullptr)
    self.say_frame(guest::pong{.request = ping->request});
}

} // namespace

int main() {
  machines::inside::boot_options options;
  if (std::string why = machines::inside::boot(options); !why.empty())
    end_machine(why);
  test::liar self{options.hostname};
  if (options.vsock_port != 0)
    listener = listen_at(options.vsock_port);
  else
    self.channel = open_serial();
  if (self.channel < 0)
    next_host(self.channel);
  self.say_frame(guest::hello{});
  guest::frame_cutter cutter;
  for (std::array<char, 4096> buffer;;) {
    ssize_t count = ::read(self.channel, buffer.data(), buffer.size());
    if (count <= 0) {
      cutter = {};
      next_host(self.channel);
      continue;
    }
    cutter.push({buffer.data(), static_cast<std::size_t>(count)});
    while (auto body = cutter.next())
      hear(self, *body);
  }
}
