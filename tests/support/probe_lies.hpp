// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <cstring>
#include <string>
#include <unistd.h>

/// What a guest may say that no guest says. A probe that takes a guest's place is told by its
/// machine's name what it shall be: `early-giant-x` lies before it is up, `giant-x` when it gets
/// the ping of that number, whoever is called otherwise is honest and answers pings.
namespace berth::test {

inline constexpr std::uint32_t lie_now = 666;

class liar {
public:
  explicit liar(const std::string& machine) { be(machine); }

  void be(const std::string& machine) {
    lie_ = machine.substr(0, machine.find("-x"));
    early_ = lie_.starts_with("early-");
    if (early_)
      lie_.erase(0, std::strlen("early-"));
  }
  const std::string& lie() const { return lie_; }
  /// Whether it lies before it is up.
  bool is_early() const { return early_; }

  int channel = -1;

  void say(const bytes& data) const {
    for (std::size_t at = 0; at < data.size();) {
      ssize_t count = ::write(channel, data.data() + at, data.size() - at);
      if (count <= 0)
        return;
      at += static_cast<std::size_t>(count);
    }
  }
  template <class T>
  void say_frame(const T& message) const {
    say(guest::encode_frame(message));
  }

  /// Lies. Comes back where there is more to come.
  void tell() const {
    if (lie_ == "silent")
      rest();
    if (lie_ == "dies")
      ::_exit(7);
    if (lie_ == "closes") {
      ::close(channel);
      rest();
    }
    if (lie_ == "giant")
      say({'\xff', '\xff', '\xff', '\x7f', 'x'});
    if (lie_ == "empty")
      say({0, 0, 0, 0});
    if (lie_ == "cut")
      say({0, 0, 1, 0, 'x', 'x'});
    if (lie_ == "nested")
      say_body(bytes(1'000, '\x91'));
    if (lie_ == "random")
      babble();
    if (lie_ == "hello")
      say_frame(guest::hello{});
    if (lie_ == "old")
      say_frame(guest::hello{.version = 99});
    for (std::uint32_t i = 0; lie_ == "flood"; ++i)
      say_frame(guest::pong{.request = i});
  }

  /// Says nothing and hears nothing.
  [[noreturn]] static void rest() {
    for (;;)
      ::pause();
  }

private:
  void say_body(const bytes& body) const {
    bytes frame(sizeof(std::uint32_t));
    auto size = static_cast<std::uint32_t>(body.size());
    std::memcpy(frame.data(), &size, sizeof size);
    frame.insert(frame.end(), body.begin(), body.end());
    say(frame);
  }
  /// Frames of the right length with nothing right in them.
  void babble() const {
    unsigned seed = 1;
    for (std::size_t i = 0; i < 64; ++i) {
      bytes body(12 + i);
      for (char& c : body)
        c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
      say_body(body);
    }
  }

  std::string lie_;
  bool early_ = false;
};

} // namespace berth::test
