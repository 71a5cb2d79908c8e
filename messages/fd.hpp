// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>
#include <utility>

namespace berth {

/// A file descriptor that closes itself. Negative: none. Here because the guest, which may include
/// nothing but messages, has descriptors as the server has.
class owned_fd {
public:
  owned_fd() = default;
  explicit owned_fd(int value)
    : value_(value) {}
  owned_fd(owned_fd&& other) noexcept
    : value_(std::exchange(other.value_, -1)) {}
  owned_fd& operator=(owned_fd&& other) noexcept {
    if (this != &other) {
      reset();
      value_ = std::exchange(other.value_, -1);
    }
    return *this;
  }
  owned_fd(const owned_fd&) = delete;
  owned_fd& operator=(const owned_fd&) = delete;
  ~owned_fd() { reset(); }

  int get() const { return value_; }
  explicit operator bool() const { return value_ >= 0; }
  int release() { return std::exchange(value_, -1); }
  void reset(int value = -1) {
    if (value_ >= 0)
      ::close(value_);
    value_ = value;
  }

private:
  int value_ = -1;
};

} // namespace berth
