// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Finds programs in the text of a language model, and judges whether they are meant to be run. The
/// contract's rules (section 4) without its faults: fences may carry attributes, aliases are known,
/// blocks keep the order of the text, a line inside a fence is not a program of its own.
namespace berth {

/// A program in a text.
struct code_block {
  /// Canonical name where it is one of ours, else as written in lower case; "text" without one.
  std::string language;
  std::string code;
  /// How likely it is meant to be run, 0 to 1.
  double confidence = 0;
  /// Bytes of the text from the fence's (or line's) start to its end.
  std::size_t start = 0;
  std::size_t end = 0;
  /// Stands in a line of text, not in a fence.
  bool in_line = false;
  /// What followed the language on the fence's line.
  std::string attributes;
};

/// Whether a text as a whole asks for execution.
struct execution_intent {
  double confidence = 0;
  std::vector<std::string> trigger_keywords;
  std::vector<std::string> context_clues;
  std::string suggested_action;
};

/// The programs of a text in its order, `blocks_max` at most.
std::vector<code_block> find_code(std::string_view text, std::size_t blocks_max = 256);

/// What a text as a whole asks for.
execution_intent find_intent(std::string_view text, bool has_code);

} // namespace berth
