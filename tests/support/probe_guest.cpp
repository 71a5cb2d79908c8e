// SPDX-License-Identifier: Apache-2.0
// A guest that misbehaves: what a server must bear. Static, like the real one, and started the same
// way: channel at 3, side socket at 4.
#include "tests/support/probe_lies.hpp"

#include <sys/socket.h>

#include <array>

namespace {

/// What only a containment may say: heard by nobody.
void forge() {
  std::array<char, 256> lie;
  lie.fill('\xff');
  for (std::size_t i = 0; i < 1'000; ++i)
    ::send(4, lie.data(), i % lie.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

} // namespace

int main() {
  using namespace berth;
  char name[65] = {};
  ::gethostname(name, sizeof name - 1);
  test::liar self{name};
  self.channel = 3;
  if (self.is_early())
    self.tell();
  else
    self.say_frame(guest::hello{});
  guest::frame_cutter cutter;
  std::array<char, 4096> buffer;
  for (ssize_t count = 0; (count = ::read(self.channel, buffer.data(), buffer.size())) > 0;) {
    cutter.push({buffer.data(), static_cast<std::size_t>(count)});
    while (auto body = cutter.next()) {
      auto frame = guest::decode_frame<guest::to_guest>(*body);
      const auto* ping = frame ? std::get_if<guest::ping>(&*frame) : nullptr;
      if (ping == nullptr)
        continue;
      if (ping->request == test::lie_now && self.lie() == "forger")
        forge();
      if (ping->request == test::lie_now)
        self.tell();
      self.say_frame(guest::pong{.request = ping->request});
    }
  }
}
