// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <span>
#include <string>

/// What makes a virtual machine itself and not the one it was copied from.
namespace berth::machines::inside {

/// Least entropy that a renewal must bring.
inline constexpr std::size_t entropy_bytes_min = 32;

/// Gives the kernel new random numbers: what is given here is mixed in, and every processor's
/// generator starts anew from it. Returns 0 or -errno.
int reseed(std::span<const char> entropy);

/// Sets the clock; microseconds since 1970. Returns 0 or -errno.
int set_clock(std::int64_t unix_us);

/// The host name, here and in the machine, which has a name space of its own for it.
class host_names {
public:
  /// Finds both, once the guest is there: to look for it takes long under emulation, and is done
  /// before a template is frozen. Returns 0 or -errno.
  int open();
  /// Returns 0 or -errno.
  int set(const std::string& name) const;

private:
  owned_fd own_;
  owned_fd guests_;
};

} // namespace berth::machines::inside
