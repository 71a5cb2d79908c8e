// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

/// Bounds of everything that is said. What a peer sends beyond them is refused, never truncated
/// in silence.
namespace berth::limits {

inline constexpr std::size_t kib = 1024;
inline constexpr std::size_t mib = 1024 * kib;

/// One client request, all its files included.
inline constexpr std::size_t request_bytes_max = 32 * mib;
/// One frame between server and guest. Larger things travel in chunks.
inline constexpr std::size_t frame_bytes_max = 4 * mib;
/// One chunk of a file or of output inside a frame.
inline constexpr std::size_t chunk_bytes_max = 256 * kib;
/// Program text, whatever a policy allows.
inline constexpr std::size_t code_bytes_max = 1 * mib;
/// Arguments and environment of one job together.
inline constexpr std::size_t argument_bytes_max = 512 * kib;
/// A compiled program that is kept for equal sources.
inline constexpr std::size_t cached_binary_bytes_max = 2 * mib;
/// Path of a file inside a machine.
inline constexpr std::size_t path_bytes_max = 4000;
/// Elements of any list, members of any map in a message.
inline constexpr std::size_t elements_max = 65536;
/// Nesting of maps and lists in a message.
inline constexpr std::size_t depth_max = 16;
/// An id, a name, a language.
inline constexpr std::size_t name_bytes_max = 256;

static_assert(code_bytes_max + argument_bytes_max + cached_binary_bytes_max < frame_bytes_max);
static_assert(chunk_bytes_max < frame_bytes_max);

} // namespace berth::limits
