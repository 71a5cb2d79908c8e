// SPDX-License-Identifier: Apache-2.0
#include "app/shell_input.hpp"

#include <algorithm>
#include <cctype>

namespace berth {

namespace {

/// What is open at the end of a text.
struct open_ends {
  int brackets = 0;
  bool in_quotes = false;
  bool in_comment = false;
};

/// The quote that begins at a place: one character, Python's three, or none.
std::string_view quote_at(std::string_view language, std::string_view text, std::size_t at) {
  char c = text[at];
  bool is_quote = c == '"' || c == '\'' || (c == '`' && language != "python");
  if (!is_quote)
    return {};
  std::string_view three = text.substr(at, 3);
  bool triple = language == "python" && three.size() == 3 && three[1] == c && three[2] == c;
  return text.substr(at, triple ? 3 : 1);
}

bool comment_begins(std::string_view language, std::string_view text, std::size_t at) {
  if (language == "javascript")
    return text.substr(at, 2) == "//";
  bool at_word = at == 0 || std::isspace(static_cast<unsigned char>(text[at - 1])) != 0;
  return text[at] == '#' && (language == "python" || at_word);
}

/// Whether a quote of one line may go over its end.
bool spans_lines(std::string_view language, std::string_view quote) {
  return language == "bash" || quote.size() == 3 || quote == "`";
}

open_ends look_at(std::string_view language, std::string_view text) {
  open_ends found;
  std::string_view quote;
  bool comment = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\n') {
      comment = false;
      if (!quote.empty() && !spans_lines(language, quote))
        quote = {};
    } else if (comment) {
      continue;
    } else if (c == '\\' && !(language == "bash" && quote == "'")) {
      ++i;
    } else if (!quote.empty()) {
      if (text.substr(i, quote.size()) == quote) {
        i += quote.size() - 1;
        quote = {};
      }
    } else if (std::string_view begins = quote_at(language, text, i); !begins.empty()) {
      quote = begins;
      i += begins.size() - 1;
    } else if (comment_begins(language, text, i)) {
      comment = true;
    } else if (c == '(' || c == '[' || c == '{') {
      ++found.brackets;
    } else if (c == ')' || c == ']' || c == '}') {
      --found.brackets;
    }
  }
  found.in_quotes = !quote.empty() && spans_lines(language, quote);
  found.in_comment = comment;
  return found;
}

std::string_view last_line(std::string_view text) {
  std::size_t line = text.rfind('\n');
  return line == std::string_view::npos ? text : text.substr(line + 1);
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

/// A block that was begun goes on until an empty line.
bool wants_more_python(std::string_view text) {
  bool block = text.starts_with('@');
  for (std::size_t from = 0; from < text.size() && !block;) {
    std::size_t end = std::min(text.find('\n', from), text.size());
    std::string_view line = text.substr(from, end - from);
    std::size_t last = line.find_last_not_of(" \t\r");
    block = last != std::string_view::npos && line[last] == ':';
    from = end + 1;
  }
  return block && !is_blank(last_line(text));
}

/// The words of Bash that begin and end what spans lines, counted where a command may begin.
int open_blocks(std::string_view text) {
  int open = 0;
  std::string word;
  bool first = true;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    char c = i < text.size() ? text[i] : '\n';
    bool ends_word =
        std::isspace(static_cast<unsigned char>(c)) != 0 || c == ';' || c == '&' || c == '|';
    if (!ends_word) {
      word += c;
      continue;
    }
    if (first
        && (word == "if" || word == "while" || word == "until" || word == "for" || word == "case"
            || word == "select"))
      ++open;
    if (first && (word == "fi" || word == "done" || word == "esac"))
      --open;
    bool keeps_first = word == "do" || word == "then" || word == "else";
    if (!word.empty())
      first = keeps_first;
    if (c == '\n' || c == ';' || c == '&' || c == '|')
      first = true;
    word.clear();
  }
  return open;
}

} // namespace

bool wants_more(std::string_view language, std::string_view text) {
  open_ends ends = look_at(language, text);
  if (ends.brackets > 0 || ends.in_quotes)
    return true;
  if (!ends.in_comment && last_line(text).ends_with('\\'))
    return true;
  if (language == "python")
    return wants_more_python(text);
  return language == "bash" && open_blocks(text) > 0;
}

} // namespace berth
