// SPDX-License-Identifier: Apache-2.0
#include "actors/shell_text.hpp"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <map>

namespace berth {

namespace {

/// Substitutions nested deeper are read as plain text.
constexpr unsigned depth_max = 12;

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> all) {
  return std::ranges::find(all, text) != all.end();
}

class shell_reader {
public:
  explicit shell_reader(std::string_view text)
    : text_{text} {}

  std::vector<shell_command> read() {
    while (at_ < text_.size()) {
      read_list('\0', 0);
      if (at_ < text_.size())
        ++at_; // a closing parenthesis that nothing opened
    }
    for (auto [command, number] : owners_)
      commands_[command].input.push_back(std::move(bodies_[number]));
    return std::move(commands_);
  }

private:
  /// What is being read at one level of nesting.
  struct level {
    shell_command command;
    std::vector<std::size_t> documents;
    std::string word;
    bool in_word = false;
    bool redirect = false;
    bool here_string = false;
    char closer = '\0';
    unsigned depth = 0;
  };

  struct document {
    std::size_t number;
    std::string delimiter;
    bool strip_tabs;
  };

  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  void end_word(level& now) {
    if (!now.in_word)
      return;
    if (now.here_string)
      now.command.input.push_back(std::move(now.word));
    else if (now.redirect)
      now.command.redirects.push_back(std::move(now.word));
    else
      now.command.words.push_back(std::move(now.word));
    now.word.clear();
    now.in_word = now.redirect = now.here_string = false;
  }

  void end_command(level& now, bool pipes_on) {
    end_word(now);
    now.redirect = now.here_string = false;
    shell_command& command = now.command;
    bool keep = !command.words.empty() || !command.redirects.empty() || !command.input.empty()
                || !command.substitutes.empty() || !now.documents.empty();
    if (keep) {
      for (std::size_t number : now.documents)
        owners_.emplace_back(commands_.size(), number);
      commands_.push_back(std::move(command));
    }
    now.documents.clear();
    now.command = {};
    now.command.piped = pipes_on;
  }

  /// Reads commands until the closer, which is left unread.
  void read_list(char closer, unsigned depth) {
    level now;
    now.closer = closer;
    now.depth = depth;
    while (at_ < text_.size()) {
      char c = peek();
      if (closer != '\0' && c == closer)
        break;
      if (c == ')' && closer == '\0') // belongs to nobody: a case pattern, a subshell's end
        c = ';';
      read_one(now, c);
    }
    end_command(now, false);
  }

  void read_one(level& now, char c) {
    switch (c) {
    case '\\':
      return read_escape(now);
    case '\'':
      return read_single(now);
    case '"':
      return read_double(now);
    case '`':
      return read_substitution(now, 1, '`');
    case '$':
      return read_dollar(now);
    case '<':
    case '>':
      return read_redirect(now);
    case '#':
      if (!now.in_word)
        return skip_line();
      break;
    case '\n':
      ++at_;
      end_command(now, false);
      return read_documents();
    case '|':
      return read_bar(now);
    case '&':
      ++at_;
      if (peek() == '>') // &>file
        return;
      at_ += peek() == '&' ? 1 : 0;
      return end_command(now, false);
    case ';':
    case '(':
    case ')':
      ++at_;
      return end_command(now, false);
    case ' ':
    case '\t':
    case '\r':
      ++at_;
      return end_word(now);
    default:
      break;
    }
    add(now, c);
    ++at_;
  }

  /// `|` and `|&` make a pipe, `||` does not.
  void read_bar(level& now) {
    bool either = peek(1) == '|';
    at_ += either || peek(1) == '&' ? 2 : 1;
    end_command(now, !either);
  }

  static void add(level& now, char c) {
    now.word += c;
    now.in_word = true;
  }

  void read_escape(level& now) {
    if (peek(1) == '\n') { // the line goes on
      at_ += 2;
      return;
    }
    ++at_;
    if (at_ < text_.size())
      add(now, text_[at_++]);
  }

  void read_single(level& now) {
    std::size_t end = std::min(text_.find('\'', at_ + 1), text_.size());
    now.word += text_.substr(at_ + 1, end - at_ - 1);
    now.in_word = true;
    at_ = std::min(end + 1, text_.size());
  }

  void read_double(level& now) {
    now.in_word = true;
    ++at_;
    while (at_ < text_.size() && peek() != '"') {
      char c = peek();
      if (c == '\\' && at_ + 1 < text_.size()) {
        if (!is_one_of(text_.substr(at_ + 1, 1), {"\"", "\\", "$", "`", "\n"}))
          now.word += c;
        if (text_[at_ + 1] != '\n')
          now.word += text_[at_ + 1];
        at_ += 2;
      } else if (c == '`' && now.closer != '`') {
        read_substitution(now, 1, '`');
      } else if (c == '$') {
        read_dollar(now);
      } else {
        add(now, c);
        ++at_;
      }
    }
    at_ = std::min(at_ + 1, text_.size());
  }

  void read_dollar(level& now) {
    if (peek(1) == '(' && peek(2) == '(')
      return read_plain(now, "((", "))");
    if (peek(1) == '(')
      return read_substitution(now, 2, ')');
    if (peek(1) == '{')
      return read_plain(now, "{", "}");
    add(now, '$');
    ++at_;
  }

  /// `${...}` and `$((...))`: text, not commands. Ends at the line's end if nothing closes it.
  void read_plain(level& now, std::string_view open, std::string_view close) {
    std::size_t line = std::min(text_.find('\n', at_), text_.size());
    std::size_t found = text_.substr(0, line).find(close, at_ + 1 + open.size());
    std::size_t end = found == std::string_view::npos ? line : found + close.size();
    now.word += text_.substr(at_, end - at_);
    now.in_word = true;
    at_ = end;
  }

  void read_substitution(level& now, std::size_t opener, char closer) {
    if (now.depth >= depth_max) {
      add(now, peek());
      ++at_;
      return;
    }
    at_ += opener;
    std::size_t first = commands_.size();
    read_list(closer, now.depth + 1);
    at_ = std::min(at_ + 1, text_.size());
    for (std::size_t i = first; i < commands_.size() && now.command.substitutes.size() < 64; ++i) {
      std::size_t word = command_word(commands_[i].words);
      if (word < commands_[i].words.size())
        now.command.substitutes.push_back(base_name(commands_[i].words[word]));
    }
    now.word += "\x01"; // stands for what nobody knows before the run
    now.in_word = true;
  }

  void read_redirect(level& now) {
    char c = peek();
    if (peek(1) == '(')
      return read_substitution(now, 2, ')');
    if (now.in_word && now.word.find_first_not_of("0123456789") == std::string::npos) {
      now.word.clear(); // the number of a descriptor
      now.in_word = false;
    }
    end_word(now);
    if (c == '<' && peek(1) == '<' && peek(2) == '<') {
      at_ += 3;
      now.here_string = true;
      return;
    }
    if (c == '<' && peek(1) == '<')
      return read_document_start(now);
    ++at_;
    while (peek() == '>' || peek() == '|')
      ++at_;
    if (peek() == '&') { // >&2: another descriptor
      ++at_;
      while (std::isdigit(static_cast<unsigned char>(peek())) != 0 || peek() == '-')
        ++at_;
      return;
    }
    now.redirect = true;
  }

  void read_document_start(level& now) {
    at_ += 2;
    bool strip = peek() == '-';
    at_ += strip ? 1 : 0;
    while (peek() == ' ' || peek() == '\t')
      ++at_;
    std::string delimiter;
    while (at_ < text_.size()
           && !is_one_of(text_.substr(at_, 1), {" ", "\t", "\n", ";", "|", "&", ")", "<", ">"})) {
      if (!is_one_of(text_.substr(at_, 1), {"'", "\"", "\\"}))
        delimiter += peek();
      ++at_;
    }
    if (delimiter.empty())
      return;
    now.documents.push_back(documents_seen_);
    waiting_.push_back({documents_seen_++, delimiter, strip});
  }

  /// The bodies of the here-documents that the line before announced.
  void read_documents() {
    for (const document& next : waiting_) {
      std::string& body = bodies_[next.number];
      while (at_ < text_.size()) {
        std::size_t end = std::min(text_.find('\n', at_), text_.size());
        std::string_view line = text_.substr(at_, end - at_);
        at_ = std::min(end + 1, text_.size());
        if (next.strip_tabs)
          line.remove_prefix(std::min(line.find_first_not_of('\t'), line.size()));
        if (line.ends_with('\r'))
          line.remove_suffix(1);
        if (line == next.delimiter)
          break;
        body.append(line);
        body += '\n';
      }
    }
    waiting_.clear();
  }

  void skip_line() { at_ = std::min(text_.find('\n', at_), text_.size()); }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<shell_command> commands_;
  std::vector<document> waiting_;
  std::size_t documents_seen_ = 0;
  std::map<std::size_t, std::string> bodies_;
  std::vector<std::pair<std::size_t, std::size_t>> owners_; // command, document
};

bool is_assignment(std::string_view word) {
  std::size_t equals = word.find('=');
  if (equals == std::string_view::npos || equals == 0
      || std::isdigit(static_cast<unsigned char>(word[0])) != 0)
    return false;
  return std::ranges::all_of(word.substr(0, equals), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '+';
  });
}

bool is_reserved(std::string_view word) {
  return is_one_of(word, {"{", "}", "!", "if", "then", "else", "elif", "do", "while", "until",
                          "time", "fi", "done"});
}

/// Options of a wrapper that take a word of their own.
bool takes_value(std::string_view wrapper, std::string_view option) {
  if (wrapper == "sudo" || wrapper == "doas")
    return is_one_of(option, {"-u", "-g", "-h", "-p", "-C", "-r", "-t"});
  if (wrapper == "env")
    return is_one_of(option, {"-u", "-C"});
  if (wrapper == "nice" || wrapper == "ionice")
    return is_one_of(option, {"-n", "-c"});
  if (wrapper == "timeout")
    return is_one_of(option, {"-k", "-s"});
  if (wrapper == "xargs")
    return is_one_of(option, {"-I", "-n", "-P", "-L", "-d", "-a", "-E", "-s"});
  return wrapper == "stdbuf" && is_one_of(option, {"-o", "-e", "-i"});
}

} // namespace

std::vector<shell_command> read_shell(std::string_view text) {
  return shell_reader{text}.read();
}

std::string base_name(std::string_view path) {
  std::size_t slash = path.rfind('/');
  return std::string{slash == std::string_view::npos ? path : path.substr(slash + 1)};
}

std::size_t command_word(const std::vector<std::string>& words) {
  std::size_t i = 0;
  while (i < words.size()) {
    if (is_reserved(words[i]) || is_assignment(words[i])) {
      ++i;
      continue;
    }
    std::string name = base_name(words[i]);
    if (!is_one_of(name, {"sudo", "doas", "env", "nohup", "exec", "command", "builtin", "nice",
                          "ionice", "timeout", "xargs", "stdbuf", "setsid", "busybox"}))
      return i;
    ++i;
    while (i < words.size() && words[i].starts_with('-')) {
      bool value = takes_value(name, words[i]);
      i += value ? 2 : 1;
    }
    if (name == "timeout" && i < words.size()) // its duration
      ++i;
  }
  return words.size();
}

std::string shell_quote(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  return quoted + "'";
}

} // namespace berth
