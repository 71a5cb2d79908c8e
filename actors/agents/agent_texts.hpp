// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"
#include "messages/job.hpp"

#include <string>
#include <string_view>
#include <vector>

/// What a program gave, as text: for the model that wrote it, and for a human in the contract's
/// words. Plain logic.
namespace berth {

/// Whether a program did what it was to do.
bool succeeded(const outcome& ended);

/// Bytes as text: what is not UTF-8 becomes U+FFFD, one for each byte.
std::string to_text(const bytes& data);

/// Text within a bound. The middle of a longer one is left out, which is said; cuts fall between
/// characters.
std::string without_middle(std::string_view text, std::size_t bytes_max);

/// How a program ended and what it wrote, for a model. A failure has the word `error`, a block the
/// words `dangerous` or `blocked` and every reason. At most about `bytes_max` bytes.
std::string told_of(const outcome& ended, std::size_t bytes_max);

/// The same for a human: `Executed python code (exit code: 0):` and what it wrote. A failure has
/// its traceback and the word `error`.
std::string shown_of(const std::string& language, const outcome& ended);

/// For a human: a program that was not run because of what it is, or because it could not be.
std::string shown_of_block(const std::string& language, const std::vector<std::string>& reasons);
std::string shown_of_failure(const std::string& language, const std::string& why);
/// For a human: a program in a text that is likely not meant to be run.
std::string shown_of_doubt(const std::string& language, double confidence);

inline constexpr std::string_view shown_without_machine =
    "VM execution is not enabled for this agent";
inline constexpr std::string_view shown_without_code = "No executable code found in input";
inline constexpr std::string_view shown_without_run = "No code was executed";

/// A tool's result as a model gets it: between marks that nobody can guess, and said to be data. A
/// text that tries to end its own mark cannot.
std::string as_data(std::string_view result, std::string_view mark);

/// Pieces of a text with something between them.
std::string joined(const std::vector<std::string>& pieces, std::string_view between);

/// What an error says, without its code if it says more.
std::string in_words(const error& why);

/// Bytes of a stream as text, piece by piece: a character that a piece cuts comes with the next.
class text_stream {
public:
  std::string take(std::string_view piece);
  /// What is left at the end.
  std::string finish();

private:
  std::string cut_;
};

} // namespace berth
