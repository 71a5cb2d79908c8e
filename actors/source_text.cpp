// SPDX-License-Identifier: Apache-2.0
#include "actors/source_text.hpp"

#include <algorithm>
#include <cctype>

namespace berth {

namespace {

class source_reader {
public:
  source_reader(std::string_view text, std::string_view language)
    : text_{text}
    , python_{language == "python"}
    , rust_{language == "rust"}
    , backticks_{language == "javascript" || language == "go"} {
    out_.code.assign(text);
  }

  source_text read() {
    while (at_ < text_.size())
      step();
    return std::move(out_);
  }

private:
  bool at(std::string_view what) const { return text_.substr(at_).starts_with(what); }

  void step() {
    if (python_ ? at("#") : at("//"))
      return blank_to(std::min(text_.find('\n', at_), text_.size()));
    if (!python_ && at("/*"))
      return skip_block();
    if (python_ && (at("\"\"\"") || at("'''")))
      return read_until(std::string(text_.substr(at_, 3)), true);
    if (at("\""))
      return read_until("\"", rust_);
    if (at("'") && rust_)
      return skip_char();
    if (at("'"))
      return read_until("'", false);
    if (backticks_ && at("`"))
      return read_until("`", true);
    if (rust_ && at("r") && (at_ == 0 || !is_word(text_[at_ - 1])))
      return read_raw();
    ++at_;
  }

  static bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  }

  void blank_to(std::size_t end) {
    for (; at_ < end; ++at_)
      if (text_[at_] != '\n')
        out_.code[at_] = ' ';
  }

  void skip_block() {
    std::size_t end = text_.find("*/", at_ + 2);
    blank_to(end == std::string_view::npos ? text_.size() : end + 2);
  }

  /// A literal with escapes. One that may not span lines ends where its line does.
  void read_until(std::string_view quote, bool lines) {
    literal found{.begin = at_, .end = 0, .value = {}};
    at_ += quote.size();
    while (at_ < text_.size() && !at(quote)) {
      char c = text_[at_];
      if (c == '\n' && !lines)
        break;
      if (c == '\\' && at_ + 1 < text_.size()) {
        char next = text_[at_ + 1];
        if (next != '\n')
          found.value += next == 'n' ? '\n' : next == 't' ? '\t' : next;
        blank_to(at_ + 2);
      } else {
        found.value += c;
        blank_to(at_ + 1);
      }
    }
    at_ = at(quote) ? at_ + quote.size() : at_;
    found.end = at_;
    out_.literals.push_back(std::move(found));
  }

  /// Rust's r"..." and r#"..."#.
  void read_raw() {
    std::size_t hashes = at_ + 1;
    while (hashes < text_.size() && text_[hashes] == '#' && hashes - at_ < 16)
      ++hashes;
    if (hashes >= text_.size() || text_[hashes] != '"') {
      ++at_;
      return;
    }
    std::string close = "\"" + std::string(hashes - at_ - 1, '#');
    literal found{.begin = at_, .end = 0, .value = {}};
    std::size_t end = std::min(text_.find(close, hashes + 1), text_.size());
    found.value = text_.substr(hashes + 1, end - hashes - 1);
    at_ = hashes + 1;
    blank_to(end);
    at_ = std::min(end + close.size(), text_.size());
    found.end = at_;
    out_.literals.push_back(std::move(found));
  }

  /// Rust's 'x' and '\n', which are no text, and 'lifetimes.
  void skip_char() {
    if (at_ + 1 < text_.size() && text_[at_ + 1] == '\\') {
      std::size_t end = text_.find('\'', at_ + 3);
      at_ = end != std::string_view::npos && end - at_ < 14 ? end + 1 : at_ + 1;
    } else if (at_ + 2 < text_.size() && text_[at_ + 2] == '\'') {
      at_ += 3;
    } else {
      ++at_;
    }
  }

  std::string_view text_;
  bool python_;
  bool rust_;
  bool backticks_;
  std::size_t at_ = 0;
  source_text out_;
};

} // namespace

source_text read_source(std::string_view text, std::string_view language) {
  return source_reader{text, language}.read();
}

} // namespace berth
