// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/json.hpp"

#include <optional>
#include <string>
#include <string_view>

/// Reads what models write. Tolerant of what surrounds it, within bounds, never throwing.
namespace berth::reading {

/// The JSON object that a text is or has in it: the whole of it, in a fence, or the first one that
/// stands in other text.
std::optional<json> object_in(std::string_view text);

/// A member as text; numbers and truth values are written out. Nothing: it is missing or of
/// another kind.
std::optional<std::string> text_of(const json& from, const char* name);

/// A member as a number, in digits or in a text like "8", "8/10" or "85%".
std::optional<double> number_of(const json& from, const char* name);

/// A member as yes or no: true, "yes", "Yes.", "passed"; false, "no".
std::optional<bool> truth_of(const json& from, const char* name);

/// The first number from 0 to 10 on a line that speaks of a score or has "/10".
std::optional<double> score_in(std::string_view text);

/// Whether a text begins with yes or no.
std::optional<bool> answer_in(std::string_view text);

/// What an answer comes to: its line "ANSWER: …" if there is one, in lower case, without the marks
/// around it.
std::string normalised_answer(std::string_view text);

/// Text of at most so many bytes: of a longer one the middle is left out, which is said. Cuts
/// between characters.
std::string shortened(std::string_view text, std::size_t bytes_max);

/// Text without white space around it.
std::string_view trimmed(std::string_view text);

std::string lower(std::string_view text);

} // namespace berth::reading
