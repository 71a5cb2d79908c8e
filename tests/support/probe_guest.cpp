// SPDX-License-Identifier: Apache-2.0
// A guest that misbehaves, by the machine's name: what a server must bear. Static, like the real
// one, and started the same way: channel at 3, side socket at 4.
#include "messages/guest.hpp"

#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

void say(const berth::bytes& data) {
  for (std::size_t at = 0; at < data.size();) {
    ssize_t count = ::write(3, data.data() + at, data.size() - at);
    if (count <= 0)
      ::_exit(0);
    at += static_cast<std::size_t>(count);
  }
}

template <class T>
void say_frame(const T& message) {
  say(berth::guest::encode_frame(message));
}

[[noreturn]] void wait_for_end() {
  char byte = 0;
  while (::read(3, &byte, 1) > 0) {
  }
  ::_exit(0);
}

} // namespace

int main() {
  using namespace berth;
  char name[65] = {};
  ::gethostname(name, sizeof name - 1);
  std::string kind = std::string{name}.substr(0, std::string{name}.find("-x"));
  if (kind == "silent")
    wait_for_end();
  if (kind == "dies")
    ::_exit(7);
  if (kind == "closes") {
    ::close(3);
    for (;;)
      ::pause();
  }
  if (kind == "giant") {
    const char length[] = {'\xff', '\xff', '\xff', '\x7f', 'x'};
    say(bytes(length, length + sizeof length));
    wait_for_end();
  }
  if (kind == "no-hello") {
    say_frame(guest::pong{.request = 1});
    wait_for_end();
  }
  if (kind == "old") {
    say_frame(guest::hello{.version = 99});
    wait_for_end();
  }
  say_frame(guest::hello{});
  if (kind == "twice")
    say_frame(guest::hello{});
  if (kind == "forger") {
    // What only a containment may say: heard by nobody.
    char lie[256];
    std::memset(lie, 0xFF, sizeof lie);
    for (int i = 0; i < 1000; ++i)
      ::send(4, lie, static_cast<std::size_t>(i % 256), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (kind == "random") {
    unsigned seed = 1;
    for (int i = 0; i < 64; ++i) {
      bytes data(static_cast<std::size_t>(16 + i));
      for (char& c : data)
        c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
      std::uint32_t size = static_cast<std::uint32_t>(data.size() - 4);
      std::memcpy(data.data(), &size, sizeof size);
      say(data);
    }
  }
  if (kind == "flood")
    for (std::uint32_t i = 0;; ++i)
      say_frame(guest::pong{.request = i});
  wait_for_end();
}
