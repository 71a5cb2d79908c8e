// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <optional>
#include <span>
#include <string>
#include <variant>

/// What a live interpreter and the guest say to each other. A user's code runs in that process and
/// may say anything: each word is checked, and what it claims concerns its own cells alone.
namespace berth::guest::kernel_words {

/// The interpreter is up (from a copy that was thawed: and this is its process), or says why it
/// cannot be.
struct ready {
  pid_t pid = -1;
};
struct failed {
  std::string why;
};
/// A copy is parked.
struct parked {
  pid_t pid = -1;
};
/// It rests; or why it does not.
struct rests {
  std::string why;
};
/// It goes on after a rest.
struct goes_on {};
/// Something to show.
struct shows {
  rich_result result;
  std::size_t size = 0;
};
/// Something to show that is larger than a message may be.
struct shows_too_much {
  std::uint64_t size = 0;
};
/// The cell ended.
struct ended {
  std::uint32_t number = 0;
  std::int32_t status = 0;
  std::uint32_t count = 0;
  std::uint64_t memory_peak_bytes = 0;
  maybe<cell_error> error;
};

using word = std::variant<ready, failed, parked, rests, goes_on, shows, shows_too_much, ended>;

/// Reads one frame's body; nothing when it is no word.
std::optional<word> read(std::span<const char> body);

/// Frames to an interpreter. Descriptors go beside them: of a cell its streams, and the code where
/// it is long; of a freeze the socket of the copy; of a thaw to a copy that of the new one.
bytes run_cell(std::uint32_t number, bool stdin_open, std::string_view code, bool code_in_file);
bytes interrupt(std::uint32_t number);
bytes freeze(std::uint64_t checkpoint);
bytes thaw();

/// Longer code travels in a file.
inline constexpr std::size_t inline_code_bytes_max = 64 * limits::kib;
/// Most of one text of an error; the rest is cut off.
inline constexpr std::size_t error_bytes_max = 64 * limits::kib;
/// Most forms of one result.
inline constexpr std::size_t forms_max = 32;

} // namespace berth::guest::kernel_words
