// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>

/// What the proxy spends on machines, whatever their programs do.
namespace berth::machines::egress {

/// Bytes of a request's first lines, headers included, and how many headers.
inline constexpr std::size_t head_bytes_max = 16 * 1024;
inline constexpr std::size_t headers_max = 100;
/// Addresses of one name that are tried.
inline constexpr std::size_t addresses_max = 4;
/// Names that wait to be looked up, of all machines, and threads that do it.
inline constexpr std::size_t lookups_waiting_max = 256;
inline constexpr std::size_t lookup_threads = 4;

/// What tests make smaller.
struct bounds {
  /// Connections of one machine; others wait until one has ended.
  std::size_t connections_per_machine = 64;
  /// Connections of all machines; one more is answered with 503.
  std::size_t connections = 1024;
  /// Bytes of one connection that wait for their reader, each way.
  std::size_t buffer_bytes = 32 * 1024;
  /// How long a request may take to be said whole.
  std::chrono::milliseconds head_within{15'000};
  std::chrono::milliseconds lookup_within{15'000};
  /// Until a connection stands, for each address.
  std::chrono::milliseconds connect_within{10'000};
  /// Without a byte in either direction.
  std::chrono::milliseconds idle_within{120'000};
  /// How long an answer that refuses may take to be read.
  std::chrono::milliseconds farewell_within{2'000};
};

} // namespace berth::machines::egress
