// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace berth {

/// One simple command of a shell program, its quotes taken away.
struct shell_command {
  /// Name and arguments.
  std::vector<std::string> words;
  /// Where its output is written, and where its input is read from.
  std::vector<std::string> redirects;
  /// Texts of its here-documents and here-strings.
  std::vector<std::string> input;
  /// Names of commands whose output becomes part of it: `$(...)`, backticks, `<(...)`.
  std::vector<std::string> substitutes;
  /// Whether it reads what the command before it in the list writes.
  bool piped = false;
};

/// Splits a shell program into its simple commands, in the order of the text; those inside
/// substitutions come before the command that holds them. Comments and the bodies of here-documents
/// are no commands. Reads any text in linear time: what is no shell gives commands of no meaning.
std::vector<shell_command> read_shell(std::string_view text);

/// Index of the word that names what is run, behind assignments, reserved words and wrappers such
/// as sudo, env, timeout and xargs; words.size() when there is none.
std::size_t command_word(const std::vector<std::string>& words);

/// The name of a command without its directory.
std::string base_name(std::string_view path);

/// Text as one word of a shell, single-quoted.
std::string shell_quote(std::string_view text);

} // namespace berth
