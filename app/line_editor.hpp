// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

namespace berth {

/// Reads lines that a person types, with editing and a history that lasts from call to call; from a
/// pipe or file it reads them as they are and shows nothing. For one thread, once in a process.
class line_editor {
public:
  line_editor();
  ~line_editor();
  line_editor(const line_editor&) = delete;
  line_editor& operator=(const line_editor&) = delete;

  /// How a line ended.
  enum class result { line, interrupted, end };

  /// The next line, without its end.
  result read(const std::string& prompt, std::string& line);
  /// Keeps what was typed for the keys up and down.
  void remember(const std::string& text);
  bool interactive() const;

private:
  struct editor;
  std::unique_ptr<editor> editor_;
};

} // namespace berth
