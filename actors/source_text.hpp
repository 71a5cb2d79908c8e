// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace berth {

/// A string literal of a program: where it stands, quotes included, and what it says.
struct literal {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::string value;
};

/// A program in which code, comments and literals are told apart.
struct source_text {
  /// The program, with a blank for each byte of a comment and of a literal's inside; line ends
  /// stay.
  std::string code;
  /// The literals, in order.
  std::vector<literal> literals;
};

/// Reads a program of python, javascript, rust or go, in linear time. What cannot be read as the
/// language still gives some answer.
source_text read_source(std::string_view text, std::string_view language);

} // namespace berth
