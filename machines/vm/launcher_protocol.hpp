// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

/// What the server and its LAUNCHER say to each other: fixed structs over one SEQPACKET socket, as
/// with the spawner of namespace machines (namespace/protocol.hpp, whose packets and handles these
/// are). The launcher holds the privileges and believes the server no more than it must: what a
/// request asks for is done by a process behind walls, whatever it says.
namespace berth::machines::launcher {

/// Longest text in a packet, its end included.
inline constexpr std::size_t text_bytes_max = 96;
/// Arguments of one QEMU, with their ends.
inline constexpr std::size_t argument_bytes_max = 16 * 1024;
inline constexpr std::size_t arguments_max = 128;

enum class request_kind : std::uint32_t {
  /// Starts a hypervisor as `number`. The packet goes on with texts, each with a NUL at its end: of
  /// QEMU its arguments, of Firecracker the machine's name. Descriptors: what becomes standard
  /// error, then 3, 4 and so on.
  launch = 1,
  /// Kills it. A number that is unknown, or is dying already, is no error.
  destroy,
  /// Writes the pages of its memory that are its own to the descriptor; see vm_memory.hpp. It must
  /// stand still. Answered.
  read_memory,
  /// Puts such pages into the memory of one that has not run yet. Answered.
  write_memory,

  // Of Firecracker, whose files the launcher keeps. All but `drop` are answered.

  /// Connects to the socket that is called `text` in the directory of `number`.
  connect,
  /// Takes the state that `number` has written, which has a number of its own from then on:
  /// `state`. Answered with its memory and its devices, open for reading.
  keep,
  /// Makes such a state of descriptors: memory, devices, and pages where there are any.
  make,
  /// The state is not needed any more.
  drop,
};

struct request {
  request_kind kind{};
  std::uint32_t ticket = 0;
  std::uint64_t number = 0;
  /// Of `launch`: what the process may use.
  std::uint64_t memory_bytes = 0;
  std::uint64_t processes = 0;
  /// Of memory: the most that may be written. Of Firecracker's `launch`, how much its guest has.
  std::uint64_t bytes_max = 0;
  /// Of Firecracker: the kept state that it is to begin with, 0: it boots; and whether its memory
  /// comes by userfaultfd.
  std::uint64_t state = 0;
  std::uint32_t argument_bytes = 0;
  std::uint32_t by_faults = 0;
  /// Of QEMU: a socket shall listen on this port of the process's loopback, and come with the
  /// report; 0: it has none, not even a loopback.
  std::uint16_t port = 0;
};

enum class report_kind : std::uint32_t {
  /// Its walls stand. Descriptors: see `handles`, bits of spawner::handle_bit.
  launched = 1,
  /// The process is dead, or never was: why is in `text`, `error`.
  died,
  /// Nothing of it is left.
  gone,
  /// Answer to a request that has a ticket: `error` 0, or what went wrong in `text`.
  answered,
};

struct report {
  report_kind kind{};
  std::uint32_t ticket = 0;
  std::uint64_t number = 0;
  /// errno, or 0.
  std::int32_t error = 0;
  std::uint32_t handles = 0;
  /// The kernel ended something of it for lack of memory, so many times.
  std::uint64_t oom_kills = 0;
  std::uint64_t bytes = 0;
  std::uint64_t state = 0;
  std::uint32_t out_of_memory = 0;
  std::uint32_t reserved = 0;
  char text[text_bytes_max] = {};
};

static_assert(std::is_trivially_copyable_v<request> && std::is_trivially_copyable_v<report>);

} // namespace berth::machines::launcher
