// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/go_imports.hpp"

namespace berth::guest {

namespace {

/// Cuts the tokens that may stand in front of a Go file: words, strings, single signs.
class go_scanner {
public:
  explicit go_scanner(std::string_view source)
    : rest_(source) {}

  /// The next token; empty at the end of the source. A string keeps its opening quote, and loses
  /// its closing one.
  std::string_view next() {
    skip_blank();
    if (rest_.empty())
      return {};
    char first = rest_.front();
    if (first == '"' || first == '`') {
      std::size_t end = rest_.find(first, 1);
      if (end == std::string_view::npos)
        return take(rest_.size());
      std::string_view token = take(end);
      rest_.remove_prefix(1);
      return token;
    }
    std::size_t size = 0;
    while (size < rest_.size() && is_word(rest_[size]))
      ++size;
    return take(size == 0 ? 1 : size);
  }

private:
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'
           || static_cast<unsigned char>(c) >= 0x80;
  }

  std::string_view take(std::size_t size) {
    std::string_view token = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return token;
  }

  void skip_to_after(std::string_view end) {
    std::size_t at = rest_.find(end);
    rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at + end.size());
  }

  void skip_blank() {
    if (rest_.starts_with("\xEF\xBB\xBF"))
      rest_.remove_prefix(3);
    while (!rest_.empty()) {
      char c = rest_.front();
      if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';')
        rest_.remove_prefix(1);
      else if (rest_.starts_with("//"))
        skip_to_after("\n");
      else if (rest_.starts_with("/*"))
        skip_to_after("*/");
      else
        return;
    }
  }

  std::string_view rest_;
};

bool is_string(std::string_view token) {
  return !token.empty() && (token.front() == '"' || token.front() == '`');
}

/// One import: an optional name (a word, `.` or `_`), then the path.
bool read_import(go_scanner& scanner, std::string_view token, go_header& header) {
  if (!is_string(token))
    token = scanner.next();
  if (!is_string(token))
    return false;
  header.imports.emplace_back(token.substr(1));
  return true;
}

} // namespace

std::optional<go_header> read_go_header(std::string_view source) {
  go_scanner scanner{source};
  go_header header;
  if (scanner.next() != "package")
    return std::nullopt;
  header.package = scanner.next();
  while (scanner.next() == "import") {
    std::string_view token = scanner.next();
    if (token != "(") {
      if (!read_import(scanner, token, header))
        return std::nullopt;
      continue;
    }
    while ((token = scanner.next()) != ")")
      if (token.empty() || !read_import(scanner, token, header))
        return std::nullopt;
  }
  return header;
}

} // namespace berth::guest
