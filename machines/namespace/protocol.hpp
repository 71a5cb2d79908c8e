// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

/// What the server and its spawner say to each other: fixed structs over one SEQPACKET socket,
/// descriptors beside them. Both ends are one binary, so nothing is versioned. The spawner holds
/// the privileges and believes the server's numbers no more than the kernel would: sizes, names and
/// languages are checked there.
namespace berth::machines::spawner {

/// Descriptors that travel with one packet at most.
inline constexpr std::size_t packet_fds_max = 16;
/// Longest text in a packet, its end included.
inline constexpr std::size_t text_bytes_max = 96;

enum class request_kind : std::uint32_t {
  /// Makes machine `number`; `text` is its hostname. One descriptor: the guest's channel.
  create = 1,
  /// Kills it. A number that is unknown, or is dying already, is no error.
  destroy,
  /// Puts a warm interpreter of the language `text` into it.
  warm,
  /// New memory and disk limits, answered by `limited` with the same ticket.
  limit,
  /// An archive that machine `number`, which is yet to be created, begins with, as `checkpoint`.
  /// One
  /// descriptor, open for reading.
  layer,
  /// The steps of machine.hpp on states of files, each answered by `files`. A save has one
  /// descriptor, open for writing.
  freeze,
  roll_back,
  drop,
  save,
};

struct request {
  request_kind kind{};
  std::uint32_t ticket = 0;
  std::uint64_t number = 0;
  /// What the job may use; the spawner adds what the machine itself needs.
  std::uint64_t memory_bytes = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;
  /// A state of files: of `create` the one of machine `parent` to begin with.
  std::uint64_t checkpoint = 0;
  std::uint64_t parent = 0;
  /// Of `save`.
  std::uint64_t since = 0;
  std::uint64_t bytes_max = 0;
  /// Of `create`: a socket shall listen on this port of the machine's loopback, and come with the
  /// report; 0: none.
  std::uint16_t port = 0;
  char text[text_bytes_max] = {};
};

enum class report_kind : std::uint32_t {
  /// The machine's walls stand, its guest is being started. Descriptors: see `handles`.
  created = 1,
  /// The first process of the machine is dead (or never was): why is in `text`, `error`.
  died,
  /// Nothing of the machine is left.
  gone,
  /// Answer to `limit`.
  limited,
  /// A warm interpreter could not be brought in: the guest runs this language (`text`) cold.
  not_warmed,
  /// The watchdog ended a process that used too much memory; `oom_kills` of them so far.
  memory_killed,
  /// The template of a language (`text`) is up (`error` 0) or down.
  template_state,
  /// Answer to a step on files, `step`: `error` 0, or what went wrong in `text`.
  files,
};

/// Which descriptors a `created` report carries, in this order; absent ones are skipped.
enum handle_bit : std::uint32_t {
  handle_disk = 1U << 0,          ///< O_PATH on the machine's disk, for statfs
  handle_memory_limit = 1U << 1,  ///< memory.max or memory.limit_in_bytes, for writing
  handle_memory_usage = 1U << 2,  ///< memory.current or memory.usage_in_bytes
  handle_memory_peak = 1U << 3,   ///< memory.peak or memory.max_usage_in_bytes
  handle_memory_events = 1U << 4, ///< memory.events or memory.oom_control
  handle_memory_stat = 1U << 5,   ///< memory.stat
  handle_pids_limit = 1U << 6,    ///< pids.max, for writing
  handle_pids_usage = 1U << 7,    ///< pids.current
  handle_cpu_usage = 1U << 8,     ///< cpu.stat or cpuacct.usage
  handle_listener = 1U << 9,      ///< a socket that listens on the machine's loopback
  handle_count = 10,              ///< how many there are
};

struct report {
  report_kind kind{};
  std::uint32_t ticket = 0;
  std::uint64_t number = 0;
  /// errno, or 0.
  std::int32_t error = 0;
  /// handle_bit of `created`.
  std::uint32_t handles = 0;
  /// The kernel ended something in it for lack of memory, so many times.
  std::uint64_t oom_kills = 0;
  /// `died`: whether memory was why.
  std::uint32_t out_of_memory = 0;
  /// `died`: wait status of the first process, if it ran.
  std::int32_t status = 0;
  /// `files`: which request it answers, and of `save` what machine.hpp says.
  request_kind step{};
  std::uint64_t checkpoint = 0;
  std::uint64_t bytes = 0;
  std::uint64_t skipped = 0;
  char text[text_bytes_max] = {};
};

/// Sets the text of a packet, cut off where it is too long.
inline void copy_text(char (&to)[text_bytes_max], std::string_view from) {
  to[from.copy(to, sizeof to - 1)] = '\0';
}

static_assert(std::is_trivially_copyable_v<request> && std::is_trivially_copyable_v<report>);

} // namespace berth::machines::spawner
