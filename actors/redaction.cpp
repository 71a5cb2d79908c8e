// SPDX-License-Identifier: Apache-2.0
#include "actors/redaction.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace berth {

namespace {

constexpr std::string_view mask = "[REDACTED]";

/// A part of the output that goes.
struct cut {
  std::size_t begin;
  std::size_t end;
};

RE2::Options latin1() {
  RE2::Options options;
  options.set_encoding(RE2::Options::EncodingLatin1); // output is bytes, not always UTF-8
  options.set_log_errors(false);
  return options;
}

/// A name, what stands between, and a value: in double quotes, in single quotes, bare.
const RE2& named() {
  static const RE2 pattern{
      R"re(((?i)password|passwd|passphrase|pwd|api[_-]?key)re"
      R"re(|(?:secret|access|private|signing|encryption)[_-]?(?:access[_-]?)?key|secret|token))re"
      R"re(["']?\s{0,4}(?::=|=>|[:=])[ \t]{0,4})re"
      R"re((?:"([^"\n]{6,})"|'([^'\n]{6,})'|([^\s"'=][^\s"']{5,23})))re",
      latin1()};
  return pattern;
}

/// What shows by itself that it is a secret; the first group is what goes.
const RE2& telling() {
  static const RE2 pattern{
      R"re((\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,})re"
      R"re(|\bglpat-[\w-]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,})re"
      R"re(|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[\w-]{35}|\bnpm_[A-Za-z0-9]{36})re"
      R"re(|\bhf_[A-Za-z0-9]{30,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}))re"
      R"re(|(?i:bearer)[ \t]+([A-Za-z0-9._~+/-]{16,}=*))re"
      R"re(|(?i:authorization)["']?\s{0,4}[:=]\s{0,4}["']?(?i:basic|token|apikey)[ \t]+([^\s"']{6,}))re"
      R"re(|\b[a-z][a-z0-9+]{1,15}://[^\s/:@"']{0,64}:([^\s/@"']{1,256})@)re",
      latin1()};
  return pattern;
}

std::string lower(std::string_view text) {
  std::string out{text};
  for (char& c : out)
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// Words that follow such names in programs and messages and are no secrets.
bool is_ordinary(std::string_view value) {
  constexpr std::array<std::string_view, 18> words{
      "string",   "string;",   "optional", "undefined",  "required", "missing",
      "invalid",  "incorrect", "expired",  "identifier", "number",   "keyword",
      "operator", "literal",   "boolean",  "integer",    "nullptr",  "default"};
  std::string plain = lower(value);
  while (!plain.empty() && std::string_view{",;.)}]"}.find(plain.back()) != std::string_view::npos)
    plain.pop_back();
  return std::ranges::find(words, plain) != words.end();
}

/// Whether the value of a name is a secret rather than a word, a number or an expression.
bool is_secret(std::string_view name, std::string_view between, std::string_view value,
               bool quoted) {
  bool masked = value.find_first_not_of("*.xX-_ ") == std::string_view::npos;
  if (masked || value.starts_with(mask) || value.starts_with("${"))
    return false;
  bool expression = value.find('(') != std::string_view::npos || value.ends_with("[");
  if (!quoted && (expression || is_ordinary(value)))
    return false;
  std::string key = lower(name);
  if (key == "pwd")
    return !value.starts_with('/') && !value.starts_with('~');
  if (key != "token" && key != "secret")
    return true;
  // Words that programs print of themselves, too: "token: identifier", "secret: 42".
  bool digit = std::ranges::any_of(value, [](unsigned char c) { return std::isdigit(c) != 0; });
  bool letter = std::ranges::any_of(value, [](unsigned char c) { return std::isalpha(c) != 0; });
  bool assigned = between.find(' ') == std::string_view::npos;
  if (digit && !letter)
    return value.size() >= 16;
  return assigned || (digit && value.size() >= 8);
}

re2::StringPiece piece(std::string_view text) {
  return {text.data(), text.size()};
}

std::size_t offset_of(const re2::StringPiece& part, std::string_view whole) {
  return static_cast<std::size_t>(part.data() - whole.data());
}

void find_named(std::string_view text, std::vector<cut>& cuts) {
  re2::StringPiece groups[5];
  std::size_t at = 0;
  while (at < text.size()
         && named().Match(piece(text), at, text.size(), RE2::UNANCHORED, groups, 5)) {
    const re2::StringPiece& key = groups[1];
    int which = groups[2].data() != nullptr ? 2 : groups[3].data() != nullptr ? 3 : 4;
    std::size_t key_end = offset_of(key, text) + key.size();
    std::size_t begin = offset_of(groups[which], text);
    std::size_t end = begin + groups[which].size();
    std::string_view value = text.substr(begin, end - begin);
    if (!is_secret(text.substr(key_end - key.size(), key.size()),
                   text.substr(key_end, begin - key_end), value, which != 4)) {
      at = key_end;
      continue;
    }
    if (which == 4) { // a longer value goes as a whole, what only closes it stays
      end = std::min(text.find_first_of(" \t\r\n\"'", end), text.size());
      while (end > begin + 6
             && std::string_view{",;)}]"}.find(text[end - 1]) != std::string_view::npos)
        --end;
    }
    cuts.push_back({begin, end});
    at = end;
  }
}

void find_telling(std::string_view text, std::vector<cut>& cuts) {
  re2::StringPiece groups[5];
  std::size_t at = 0;
  while (at < text.size()
         && telling().Match(piece(text), at, text.size(), RE2::UNANCHORED, groups, 5)) {
    for (int i = 1; i < 5; ++i)
      if (groups[i].data() != nullptr)
        cuts.push_back({offset_of(groups[i], text), offset_of(groups[i], text) + groups[i].size()});
    at = offset_of(groups[0], text) + groups[0].size();
  }
}

/// Blocks of PEM. One that has no end, for the output was cut, goes to the end of the text.
void find_private_keys(std::string_view text, std::vector<cut>& cuts) {
  constexpr std::string_view start = "-----BEGIN ";
  std::size_t at = text.find(start);
  while (at != std::string_view::npos) {
    std::string_view line = text.substr(at, 80);
    line = line.substr(0, line.find('\n'));
    if (line.find("PRIVATE KEY-----") == std::string_view::npos) {
      at = text.find(start, at + start.size());
      continue;
    }
    std::size_t end = text.find("-----END ", at);
    if (end != std::string_view::npos)
      end = text.find("-----", end + 9);
    end = end == std::string_view::npos ? text.size() : end + 5;
    cuts.push_back({at, end});
    at = text.find(start, end);
  }
}

} // namespace

bool redact(bytes& output) {
  std::string_view text{output.data(), output.size()};
  if (text.size() < 7) // the shortest secret: a name of one letter is none
    return false;
  std::vector<cut> cuts;
  find_named(text, cuts);
  find_telling(text, cuts);
  find_private_keys(text, cuts);
  if (cuts.empty())
    return false;
  std::ranges::sort(cuts, {}, &cut::begin);
  bytes clean;
  clean.reserve(output.size());
  std::size_t at = 0;
  auto copy_to = [&](std::size_t end) {
    clean.insert(clean.end(), output.begin() + static_cast<std::ptrdiff_t>(at),
                 output.begin() + static_cast<std::ptrdiff_t>(end));
  };
  for (const cut& next : cuts) {
    if (next.end <= at)
      continue;
    if (next.begin >= at) {
      copy_to(next.begin);
      clean.insert(clean.end(), mask.begin(), mask.end());
    }
    at = next.end;
  }
  copy_to(output.size());
  output = std::move(clean);
  return true;
}

namespace {

bool redact_text(std::string& text) {
  bytes raw{text.begin(), text.end()};
  if (!redact(raw))
    return false;
  text.assign(raw.begin(), raw.end());
  return true;
}

/// Content in base64 has no text in it that could be known as a secret.
bool is_text(std::string_view mime) {
  return mime.starts_with("text/") || mime.starts_with("application/") || mime == "image/svg+xml";
}

} // namespace

void redact(outcome& ended) {
  bool changed = redact(ended.stdout_data);
  changed |= redact(ended.stderr_data);
  if (ended.cell) {
    for (rich_result& each : ended.cell->results)
      for (auto& [mime, content] : each.data)
        if (is_text(mime))
          changed |= redact_text(content);
    if (ended.cell->error) {
      changed |= redact_text(ended.cell->error->value);
      changed |= redact_text(ended.cell->error->traceback);
    }
  }
  ended.redacted = ended.redacted || changed;
}

} // namespace berth
