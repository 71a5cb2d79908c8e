// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/code_blocks.hpp"

#include "config/languages.hpp"

#include <algorithm>
#include <array>

namespace berth {

namespace {

constexpr std::size_t window_bytes = 200;
constexpr std::size_t fenced_code_min = 3;
constexpr std::size_t inline_code_min = 5;
constexpr double inline_confidence_min = 0.3;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

std::string lower(std::string_view text) {
  std::string made{text};
  for (char& c : made)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c + 32);
  return made;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (is_blank(text.front()) || text.front() == '\n'))
    text.remove_prefix(1);
  while (!text.empty() && (is_blank(text.back()) || text.back() == '\n'))
    text.remove_suffix(1);
  return text;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// Whether a word stands in lower-case text on its own, not inside another word.
bool has_word(std::string_view text, std::string_view word) {
  for (auto at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    bool starts = at == 0 || !is_word(text[at - 1]);
    bool ends = at + word.size() == text.size() || !is_word(text[at + word.size()]);
    if (starts && ends)
      return true;
  }
  return false;
}

template <std::size_t N>
bool has_any(std::string_view text, const std::array<std::string_view, N>& parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return contains(text, part); });
}

/// Whether the text around a program asks to run it; `text` is lower case with single blanks.
bool asks_to_run(std::string_view text) {
  constexpr std::array<std::string_view, 3> verbs{"run", "execute", "try"};
  constexpr std::array<std::string_view, 3> objects{"this", "the", "it"};
  constexpr std::array<std::string_view, 3> modals{"can", "could", "would"};
  constexpr std::array<std::string_view, 3> checks{"test", "check", "verify"};
  auto pair = [&](std::string_view x, std::string_view y) {
    return contains(text, std::string{x} + " " + std::string{y});
  };
  for (auto verb : verbs) {
    for (auto object : objects)
      if (pair(verb, object))
        return true;
    for (auto modal : modals)
      if (pair(std::string{modal} + " you", verb))
        return true;
  }
  for (auto check : checks)
    if (pair(check, "this code") || pair(check, "the code"))
      return true;
  constexpr std::array<std::string_view, 6> questions{"what happens if", "what would happen if",
                                                      "does this work",  "does it work",
                                                      "does this run",   "does it run"};
  constexpr std::array<std::string_view, 4> wills{"will this work", "will it work", "will this run",
                                                  "will it run"};
  return has_any(text, questions) || has_any(text, wills);
}

/// Lower case, every run of white space one blank.
std::string flattened(std::string_view text) {
  std::string made;
  made.reserve(text.size());
  for (char c : text) {
    bool blank = is_blank(c) || c == '\n';
    if (blank && !made.empty() && made.back() == ' ')
      continue;
    made += blank ? ' ' : c;
  }
  return lower(made);
}

bool continues_character(std::string_view text, std::size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

/// The text before and after a program, cut between characters.
std::string around(std::string_view text, std::size_t start, std::size_t end) {
  std::size_t from = start > window_bytes ? start - window_bytes : 0;
  std::size_t to = std::min(text.size(), end + window_bytes);
  while (from < start && continues_character(text, from))
    ++from;
  while (to > end && continues_character(text, to))
    --to;
  return flattened(text.substr(from, start - from)) + " \n "
         + flattened(text.substr(end, to - end));
}

double confidence_of(std::string_view text, const code_block& block) {
  const std::string& language = block.language;
  double sum = 0.2;
  if (language == "python" || language == "javascript" || language == "bash")
    sum = 0.4;
  else if (language == "rust" || language == "go" || language == "java")
    sum = 0.3;
  else if (language == "text" || language == "plaintext")
    sum = 0.1;
  auto lines = std::count(block.code.begin(), block.code.end(), '\n') + 1;
  if (lines > 1 && lines < 50)
    sum += 0.2;
  constexpr std::array<std::string_view, 4> functions{"def ", "function ", "fn ", "func "};
  constexpr std::array<std::string_view, 3> imports{"import ", "require(", "use "};
  sum += has_any(block.code, functions) ? 0.1 : 0;
  sum += has_any(block.code, imports) ? 0.1 : 0;
  std::string window = around(text, block.start, block.end);
  sum += asks_to_run(window) ? 0.2 : 0;
  bool verb = has_word(window, "run") || has_word(window, "execute") || has_word(window, "try");
  sum += verb ? 0.1 : 0;
  return std::min(sum, 1.0);
}

struct line_of_text {
  std::string_view text;
  std::size_t start = 0;
  std::size_t next = 0;
};

line_of_text line_at(std::string_view text, std::size_t start) {
  auto end = std::min(text.find('\n', start), text.size());
  return {text.substr(start, end - start), start, std::min(end + 1, text.size())};
}

/// Where a fence of at least three of one mark opens in a line, and how long it is.
struct fence {
  std::size_t at = 0;
  std::size_t size = 0;
  char mark = '`';
};

std::optional<fence> opening(std::string_view line) {
  for (char mark : {'`', '~'}) {
    auto at = line.find(std::string(3, mark));
    if (at == std::string_view::npos || (mark == '~' && !trim(line.substr(0, at)).empty()))
      continue;
    std::size_t size = std::min(line.find_first_not_of(mark, at), line.size()) - at;
    // Marks again in the same line: code within a line, not a fence.
    if (!contains(line.substr(at + size), std::string(3, mark)))
      return fence{at, size, mark};
  }
  return std::nullopt;
}

bool closes(std::string_view line, const fence& open) {
  line = trim(line);
  return line.size() >= open.size && line.find_first_not_of(open.mark) == std::string_view::npos;
}

void name_language(std::string_view info, code_block& to) {
  info = trim(info);
  if (!info.empty() && info.front() == '{')
    info.remove_prefix(info.size() > 1 && info[1] == '.' ? 2 : 1);
  auto end = std::min(info.find_first_of(" \t,{}:"), info.size());
  std::string language = lower(info.substr(0, end));
  to.attributes = trim(info.substr(end));
  if (auto known = canonical_language(language))
    language = *known;
  to.language = language.empty() ? "text" : language;
}

bool starts_with_word(std::string_view line, std::string_view word) {
  return line.size() > word.size() + 1 && line.substr(0, word.size()) == word
         && is_blank(line[word.size()]);
}

/// A line that is a program by itself: a command, or an assignment.
std::optional<code_block> inline_program(const line_of_text& line) {
  std::string_view text = trim(line.text);
  code_block found{.start = line.start, .end = line.start + line.text.size(), .in_line = true};
  auto command = [&](std::string_view word, std::string_view language) {
    if (!starts_with_word(text, word))
      return false;
    found.language = language;
    found.code = trim(text.substr(word.size()));
    return true;
  };
  if (command("python3", "python") || command("python", "python") || command("node", "javascript")
      || command("bash", "bash") || command("cargo run", "rust"))
    return found;
  std::size_t name = 0;
  while (name < text.size() && is_word(text[name]))
    ++name;
  std::size_t equals = name;
  while (equals < text.size() && is_blank(text[equals]))
    ++equals;
  bool assigns = name > 0 && equals + 1 < text.size() && text[equals] == '='
                 && text[equals + 1] != '=' && !trim(text.substr(equals + 1)).empty();
  if (!assigns)
    return std::nullopt;
  found.language = "python";
  found.code = text;
  return found;
}

} // namespace

std::vector<code_block> find_code(std::string_view text, std::size_t blocks_max) {
  std::vector<code_block> found;
  auto keep = [&](code_block block, std::size_t length_min, double least) {
    if (trim(block.code).size() < length_min || found.size() >= blocks_max)
      return;
    block.confidence = confidence_of(text, block);
    if (block.confidence >= least)
      found.push_back(std::move(block));
  };
  for (std::size_t at = 0; at < text.size();) {
    line_of_text line = line_at(text, at);
    at = line.next;
    auto open = opening(line.text);
    if (!open) {
      if (auto program = inline_program(line))
        keep(std::move(*program), inline_code_min, inline_confidence_min + 1e-9);
      continue;
    }
    code_block block{.start = line.start + open->at};
    name_language(line.text.substr(open->at + open->size), block);
    std::size_t code_start = line.next;
    std::size_t code_end = text.size();
    block.end = text.size();
    while (at < text.size()) {
      line_of_text inner = line_at(text, at);
      at = inner.next;
      if (closes(inner.text, *open)) {
        code_end = inner.start > code_start ? inner.start - 1 : code_start;
        block.end = inner.start + inner.text.size();
        break;
      }
    }
    block.code = text.substr(code_start, code_end - code_start);
    keep(std::move(block), fenced_code_min, 0);
  }
  return found;
}

execution_intent find_intent(std::string_view text, bool has_code) {
  constexpr std::array<std::string_view, 13> keywords{
      "run this",       "execute",      "try this",
      "test this code", "run the code", "execute the script",
      "try running",    "can you run",  "please run",
      "execute this",   "run it",       "test it",
      "give it a try"};
  constexpr std::array<std::string_view, 6> questions{"what happens if",  "what would this do",
                                                      "does this work",   "will this run",
                                                      "can this execute", "is this correct"};
  std::string flat = flattened(text);
  execution_intent found;
  double sum = 0;
  for (auto keyword : keywords)
    if (contains(flat, keyword)) {
      found.trigger_keywords.emplace_back(keyword);
      sum += 0.3;
    }
  for (auto question : questions)
    if (contains(flat, question)) {
      found.context_clues.emplace_back(question);
      sum += 0.2;
    }
  if (contains(flat, "here's the fix") || contains(flat, "try this instead")) {
    found.context_clues.emplace_back("suggested fix");
    sum += 0.2;
  }
  if (contains(flat, "test") && (contains(flat, "function") || contains(flat, "script"))) {
    found.context_clues.emplace_back("testing context");
    sum += 0.15;
  }
  if (has_code) {
    found.context_clues.emplace_back("code block present");
    sum += 0.1;
  }
  constexpr double grain = 1e-9;
  found.suggested_action = sum > 0.8 + grain   ? "High confidence - auto-execute"
                           : sum > 0.5 + grain ? "Medium confidence - ask user"
                           : sum > 0.2 + grain ? "Low confidence - show code only"
                                               : "No execution intent detected";
  found.confidence = std::min(sum, 1.0);
  return found;
}

} // namespace berth
