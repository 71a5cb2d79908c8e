// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/node_source.hpp"

#include <array>

namespace berth::guest {

namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string_view without_indent(std::string_view line) {
  while (!line.empty() && is_blank(line.front()))
    line.remove_prefix(1);
  return line;
}

/// `import "x"`, `import {a} from`, `import * as`, `import a from`, but not `import(`.
bool is_import(std::string_view line) {
  if (!line.starts_with("import"))
    return false;
  std::string_view rest = without_indent(line.substr(6));
  if (rest.empty())
    return false;
  if (contains("\"'{*", rest.substr(0, 1)))
    return true;
  return rest.size() + 6 < line.size() && rest.front() != '(' && contains(rest, "from");
}

bool is_export(std::string_view line) {
  if (!line.starts_with("export") || line.size() < 7)
    return false;
  std::string_view rest = without_indent(line.substr(6));
  if (rest.starts_with('{') || rest.starts_with('*'))
    return true;
  static constexpr std::array<std::string_view, 7> declarations{"default",  "const", "let",  "var",
                                                                "function", "class", "async"};
  for (std::string_view each : declarations)
    if (rest.size() + 6 < line.size() && rest.starts_with(each))
      return true;
  return false;
}

/// `await x` or `const a = await x` outside any function, as far as a line can tell.
bool is_outer_await(std::string_view line) {
  if (line.starts_with("await "))
    return true;
  bool declares =
      line.starts_with("const ") || line.starts_with("let ") || line.starts_with("var ");
  if (!declares)
    return false;
  for (std::size_t at = line.find('='); at != std::string_view::npos; at = line.find('=', at + 1))
    if (without_indent(line.substr(at + 1)).starts_with("await "))
      return true;
  return false;
}

} // namespace

node_needs needs_of(std::string_view code) {
  node_needs needs;
  needs.module = contains(code, "import.meta");
  bool requires_modules = contains(code, "require(");
  for (std::string_view rest = code; !rest.empty() && !needs.module;) {
    std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    std::string_view words = without_indent(line);
    needs.module =
        is_import(words) || is_export(words) || (!requires_modules && is_outer_await(line));
  }
  needs.cold = needs.module || contains(code, "worker_threads");
  return needs;
}

} // namespace berth::guest
