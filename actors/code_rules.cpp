// SPDX-License-Identifier: Apache-2.0
#include "actors/code_rules.hpp"

#include "actors/shell_text.hpp"
#include "actors/source_text.hpp"
#include "config/languages.hpp"
#include "config/limits.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <span>
#include <utility>

namespace berth {

namespace {

/// Names of the patterns in reasons. The first seven are the contract's, letter by letter.
constexpr std::string_view rm_pattern = R"(rm\s+-rf)";
constexpr std::string_view format_pattern = R"(format\s+c:)";
constexpr std::string_view mkfs_pattern = R"(mkfs\.)";
constexpr std::string_view dd_pattern = R"(dd\s+if=)";
constexpr std::string_view bomb_pattern = R"(:\(\)\{\s*:\|:&\s*\})";
constexpr std::string_view curl_pattern = R"(curl.*\|.*sh)";
constexpr std::string_view wget_pattern = R"(wget.*\|.*sh)";
constexpr std::string_view device_pattern = R"(>\s*/dev/(sd|hd|vd|xvd|nvme|mmcblk|mem))";
constexpr std::string_view chmod_pattern = R"((chmod|chown)\s+-R.*\s/)";
constexpr std::string_view find_pattern = R"(find\s+/.*-(delete|exec\s+rm))";
constexpr std::string_view base64_pattern = R"(base64\s+-d.*\|.*sh)";
constexpr std::string_view tree_pattern = R"((rmtree|rmSync|remove_dir_all|RemoveAll)\(.*/)";
constexpr std::string_view example_pattern = R"(system\(.*dangerous)";

/// Texts inside texts (bash -c, eval, pipes into a shell) are followed so deep.
constexpr unsigned depth_max = 6;
/// A call's arguments are looked at so far.
constexpr std::size_t call_bytes_max = 2048;
/// Shell texts of one program together, for one text may be looked at in several ways.
constexpr std::size_t judged_bytes_max = 8 * limits::mib;
/// All calls' arguments together, so that the time stays linear.
constexpr std::size_t calls_bytes_max = 4 * limits::mib;

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> all) {
  return std::ranges::find(all, text) != all.end();
}

bool is_shell(std::string_view name) {
  return is_one_of(name, {"sh", "bash", "dash", "zsh", "ksh", "ash"});
}

bool is_interpreter(std::string_view name) {
  return is_shell(name) || name.starts_with("python")
         || is_one_of(name, {"perl", "ruby", "node", "php"});
}

bool is_download(std::string_view name) {
  return is_one_of(name, {"curl", "wget", "fetch"});
}

bool is_device(std::string_view path) {
  for (std::string_view start :
       {"/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd", "/dev/nvme", "/dev/mmcblk", "/dev/mem",
        "/dev/kmem", "/dev/disk/", "/dev/mapper/", "/dev/port"})
    if (path.starts_with(start))
      return true;
  return false;
}

/// Whether removing this and all below it takes more than a program's own files.
bool is_dangerous_target(std::string_view path) {
  std::string plain;
  for (char c : path)
    if (c != '/' || plain.empty() || plain.back() != '/')
      plain += c;
  for (std::string_view home : {"${HOME}", "$HOME"})
    if (plain.starts_with(home)) {
      plain.replace(0, home.size(), "~");
      break;
    }
  if (is_one_of(plain, {"~", "~/", "~/*", "~/.*", "*", ".", "./", "./*", "..", "../", "../*"}))
    return true;
  if (plain.starts_with("../../"))
    return true;
  if (!plain.starts_with('/'))
    return plain.starts_with('~') && !plain.starts_with("~/");
  for (std::string_view own : {"/tmp", "/var/tmp", "/work", "/dev/shm"})
    if (plain.starts_with(own) && (plain.size() == own.size() || plain[own.size()] == '/'))
      return plain.find("/..") != std::string::npos;
  return true;
}

/// A number as the contract writes it: 10,000.
std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t i = digits.size(); i > 3;) {
    i -= 3;
    digits.insert(i, ",");
  }
  return digits;
}

/// Characters of UTF-8 text.
std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

re2::StringPiece piece(std::string_view text) {
  return {text.data(), text.size()};
}

/// What was found, each pattern once, in the order found.
class findings {
public:
  void add(std::string_view pattern) {
    std::string reason = "Code contains potentially dangerous pattern: " + std::string{pattern};
    if (std::ranges::find(reasons, reason) == reasons.end())
      reasons.push_back(std::move(reason));
  }

  std::vector<std::string> reasons;
};

} // namespace

/// The compiled expressions.
struct code_rules::patterns {
  /// f() { f | f & }, whatever f is called.
  RE2 bomb{R"(([^\s(){}|&;]+)\s*\(\)\s*\{\s*([^\s(){}|&;]+)\s*\|\s*([^\s(){}|&;]+)\s*&)"};
  RE2 python_call{
      R"(\b(?:system|popen|Popen|getoutput|getstatusoutput|check_output|check_call|run|call|create_subprocess_\w+|spawn\w*|exec[lv]\w*)\s*\()"};
  RE2 javascript_call{R"(\b(?:exec|execSync|execFile|execFileSync|spawn|spawnSync|execa)\s*\()"};
  RE2 rust_call{R"(\bCommand\s*::\s*new\s*\()"};
  RE2 go_call{R"(\bexec\s*\.\s*Command(?:Context)?\s*\(|\bsyscall\s*\.\s*Exec\s*\()"};
  RE2 tree_call{
      R"(\b(?:rmtree|rmSync|rmdirSync|rimraf|rimrafSync|remove_dir_all|RemoveAll|rm|rmdir)\s*\()"};
  /// A shell's line in a program of another language.
  RE2 stray_rm{R"((?m)^[ \t]*(?:sudo[ \t]+)?rm[ \t]+(?:-[A-Za-z-]+[ \t]+)+[/~*])"};
  RE2 stray_pipe{
      R"((?m)^[ \t]*(?:sudo[ \t]+)?(?:curl|wget)[ \t][^|\n]*\|[ \t]*(?:sudo[ \t]+)?\w*sh\b)"};
  RE2 stray_mkfs{R"((?m)^[ \t]*(?:sudo[ \t]+)?mkfs\.[a-z0-9]+[ \t]+/)"};
  RE2 stray_dd{R"((?m)^[ \t]*(?:sudo[ \t]+)?dd[ \t]+if=\S+[ \t]+of=/dev/(?:sd|hd|vd|nvme))"};

  const RE2& call_of(std::string_view language) const {
    return language == "python"       ? python_call
           : language == "javascript" ? javascript_call
           : language == "rust"       ? rust_call
                                      : go_call;
  }
};

namespace {

/// Looks through the commands of a shell program.
class shell_judge {
public:
  shell_judge(const RE2& bomb, findings& found)
    : bomb_{bomb}
    , found_{found} {}

  void judge(std::string_view text, unsigned depth = 0) {
    if (depth > depth_max || text.size() >= budget_)
      return;
    budget_ -= text.size() + 1;
    find_bomb(text);
    std::vector<shell_command> commands = read_shell(text);
    std::size_t first = 0; // of the pipeline
    for (std::size_t i = 0; i < commands.size(); ++i) {
      if (!commands[i].piped)
        first = i;
      // A pipeline longer than this is looked at from its last commands.
      first = std::max(first, i - std::min<std::size_t>(i, 16));
      judge_command(std::span{commands}.subspan(first, i - first + 1), depth);
    }
  }

private:
  void find_bomb(std::string_view text) {
    re2::StringPiece rest = piece(text);
    std::string names[3];
    while (RE2::FindAndConsume(&rest, bomb_, &names[0], &names[1], &names[2]))
      if (names[0] == names[1] && names[1] == names[2])
        return found_.add(bomb_pattern);
  }

  /// The last command of a pipeline, with those before it.
  void judge_command(std::span<const shell_command> pipeline, unsigned depth) {
    const shell_command& command = pipeline.back();
    for (const std::string& target : command.redirects)
      if (is_device(target))
        found_.add(device_pattern);
    std::size_t word = command_word(command.words);
    if (word >= command.words.size())
      return;
    std::string name = base_name(command.words[word]);
    std::span<const std::string> arguments = std::span{command.words}.subspan(word + 1);
    judge_removal(name, arguments);
    judge_devices(name, arguments);
    if (is_interpreter(name) || name == "eval" || name == "source" || name == ".")
      judge_interpreter(name, arguments, pipeline, depth);
  }

  void judge_removal(const std::string& name, std::span<const std::string> arguments) {
    if (name == "rm" && has_option(arguments, 'r', 'R', "--recursive"))
      for (const std::string& argument : arguments)
        if (argument == "--no-preserve-root"
            || (!argument.starts_with('-') && is_dangerous_target(argument)))
          found_.add(rm_pattern);
    if ((name == "chmod" || name == "chown") && has_option(arguments, 'R', 'R', "--recursive")
        && !arguments.empty() && is_root(arguments.back()))
      found_.add(chmod_pattern);
    if (name == "find" && !arguments.empty() && is_dangerous_target(arguments.front())
        && arguments.front().starts_with('/') && finds_to_remove(arguments))
      found_.add(find_pattern);
    if (name == "format" && !arguments.empty() && (arguments[0] == "c:" || arguments[0] == "C:"))
      found_.add(format_pattern);
    if (name == "dangerous") // the contract's own example
      found_.add(example_pattern);
  }

  void judge_devices(const std::string& name, std::span<const std::string> arguments) {
    if (name.starts_with("mkfs.") || name == "mkfs" || name == "mke2fs")
      if (!arguments.empty() && !is_one_of(arguments[0], {"--help", "-h", "-V", "--version"}))
        found_.add(mkfs_pattern);
    if (name == "dd")
      for (std::string_view argument : arguments)
        if (argument.starts_with("of=") && is_device(argument.substr(3)))
          found_.add(dd_pattern);
    if (name == "tee" || name == "shred" || name == "wipefs")
      for (const std::string& argument : arguments)
        if (is_device(argument))
          found_.add(device_pattern);
  }

  void judge_interpreter(const std::string& name, std::span<const std::string> arguments,
                         std::span<const shell_command> pipeline, unsigned depth) {
    for (const std::string& from : pipeline.back().substitutes)
      if (is_download(from))
        found_.add(from == "wget" ? wget_pattern : curl_pattern);
    judge_pipe_into(pipeline, depth);
    if (!is_shell(name) && name != "eval")
      return;
    if (name == "eval")
      return judge(joined(arguments), depth + 1);
    for (const std::string& text : pipeline.back().input)
      judge(text, depth + 1);
    for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
      const std::string& option = arguments[i];
      if (!option.starts_with('-') || option.starts_with("--"))
        continue;
      if (option.find('c') != std::string::npos)
        return judge(arguments[i + 1], depth + 1);
    }
  }

  void judge_pipe_into(std::span<const shell_command> pipeline, unsigned depth) {
    for (const shell_command& before : pipeline.first(pipeline.size() - 1)) {
      std::size_t word = command_word(before.words);
      if (word >= before.words.size())
        continue;
      std::string name = base_name(before.words[word]);
      std::span<const std::string> arguments = std::span{before.words}.subspan(word + 1);
      if (is_download(name) && !reads_data_only(pipeline.back()))
        found_.add(name == "wget" ? wget_pattern : curl_pattern);
      if (name == "base64" && has_option(arguments, 'd', 'D', "--decode"))
        found_.add(base64_pattern);
      if (name == "echo" || name == "printf")
        judge(joined(arguments), depth + 1);
      for (const std::string& text : before.input)
        judge(text, depth + 1);
    }
  }

  /// `curl x | python3 -c '...'` and `curl x | python3 -m json.tool` run nothing that came in.
  static bool reads_data_only(const shell_command& command) {
    std::size_t word = command_word(command.words);
    if (is_shell(base_name(command.words[word])))
      return false;
    for (std::size_t i = word + 1; i < command.words.size(); ++i)
      if (command.words[i] != "-" && !command.words[i].starts_with("-u"))
        return true;
    return false;
  }

  static bool has_option(std::span<const std::string> arguments, char one, char other,
                         std::string_view full) {
    return std::ranges::any_of(arguments, [&](std::string_view argument) {
      if (argument == full)
        return true;
      return argument.starts_with('-') && !argument.starts_with("--")
             && (argument.find(one) != std::string_view::npos
                 || argument.find(other) != std::string_view::npos);
    });
  }

  static bool finds_to_remove(std::span<const std::string> arguments) {
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i] == "-delete")
        return true;
      if (is_one_of(arguments[i], {"-exec", "-execdir", "-ok"}) && i + 1 < arguments.size()
          && base_name(arguments[i + 1]) == "rm")
        return true;
    }
    return false;
  }

  static bool is_root(std::string_view path) { return is_one_of(path, {"/", "/*", "/."}); }

  static std::string joined(std::span<const std::string> words) {
    std::string all;
    for (const std::string& word : words)
      all += (all.empty() ? "" : " ") + word;
    return all;
  }

  const RE2& bomb_;
  findings& found_;
  std::size_t budget_ = judged_bytes_max;
};

/// Looks through the calls of a program that is no shell's.
class source_judge {
public:
  source_judge(const source_text& source, shell_judge& shell, findings& found)
    : source_{source}
    , shell_{shell}
    , found_{found} {}

  /// Calls that hand text to a shell or start a process.
  void judge_processes(const RE2& call) {
    each_call(call, [&](std::size_t begin, std::size_t end) {
      std::vector<std::string_view> texts = literals_in(begin, end);
      if (!starts_with_literal(begin))
        if (std::string_view known = value_of_variable(begin); !known.empty())
          shell_.judge(known);
      if (texts.empty())
        return;
      shell_.judge(texts.front());
      if (texts.size() < 2)
        return;
      std::string words;
      std::string together;
      for (std::string_view text : texts) {
        words += shell_quote(text) + " ";
        together += text;
      }
      shell_.judge(words);
      shell_.judge(together);
    });
  }

  /// Calls that remove a tree.
  void judge_removals(const RE2& call) {
    each_call(call, [&](std::size_t begin, std::size_t end) {
      std::vector<std::string_view> texts = literals_in(begin, end);
      if (!texts.empty() && starts_with_literal(begin) && !texts.front().empty()
          && is_dangerous_target(texts.front()) && texts.front() != "*")
        found_.add(tree_pattern);
    });
  }

private:
  /// Calls `look(begin, end)` with the place of each call's arguments.
  template <class F>
  void each_call(const RE2& call, F look) {
    const std::string& code = source_.code;
    re2::StringPiece rest = piece(code);
    re2::StringPiece match;
    while (budget_ > 0 && call.Match(rest, 0, rest.size(), RE2::UNANCHORED, &match, 1)) {
      auto begin = static_cast<std::size_t>(match.data() - code.data()) + match.size();
      std::size_t end = end_of_statement(begin);
      budget_ -= std::min(budget_, end - begin + 1);
      look(begin, end);
      rest = piece(std::string_view{code}.substr(begin));
    }
  }

  /// Where a call and what is chained to it ends.
  std::size_t end_of_statement(std::size_t begin) const {
    const std::string& code = source_.code;
    std::size_t last = std::min(code.size(), begin + call_bytes_max);
    int open = 1;
    for (std::size_t i = begin; i < last; ++i) {
      char c = code[i];
      open += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
      if (open < 0 || c == ';')
        return i;
      if (open == 0 && c == ')') {
        std::size_t next = std::min(code.find_first_not_of(" \t\r\n", i + 1), last);
        if (next >= last || (code[next] != '.' && code[next] != '('))
          return i;
      }
    }
    return last;
  }

  std::vector<std::string_view> literals_in(std::size_t begin, std::size_t end) const {
    auto at = std::ranges::lower_bound(source_.literals, begin, {}, &literal::begin);
    std::vector<std::string_view> found;
    for (; at != source_.literals.end() && at->begin < end && found.size() < 64; ++at)
      found.push_back(at->value);
    return found;
  }

  bool starts_with_literal(std::size_t begin) const {
    std::size_t at = source_.code.find_first_not_of(" \t\r\n", begin);
    return at != std::string::npos
           && (source_.code[at] == '"' || source_.code[at] == '\'' || source_.code[at] == '`');
  }

  /// The literal that the variable, which is the first argument, was given somewhere.
  std::string_view value_of_variable(std::size_t begin) const {
    const std::string& code = source_.code;
    std::size_t start = code.find_first_not_of(" \t\r\n&", begin);
    if (start == std::string::npos)
      return {};
    std::size_t end = start;
    while (end < code.size()
           && (std::isalnum(static_cast<unsigned char>(code[end])) != 0 || code[end] == '_'))
      ++end;
    if (end == start || end - start > 64)
      return {};
    RE2 assigned{"\\b" + code.substr(start, end - start)
                 + R"(\s*(?::\s*[&\w]+\s*)?:?=\s*[rbfRBF]?["'`])"};
    re2::StringPiece match;
    if (!assigned.ok() || variables_ == 0
        || !assigned.Match(piece(code), 0, code.size(), RE2::UNANCHORED, &match, 1))
      return {};
    auto quote = static_cast<std::size_t>(match.data() - code.data()) + match.size() - 1;
    auto at = std::ranges::lower_bound(source_.literals, quote, {}, &literal::begin);
    --variables_;
    return at != source_.literals.end() && at->begin <= quote + 1 ? at->value : std::string_view{};
  }

  const source_text& source_;
  shell_judge& shell_;
  findings& found_;
  std::size_t budget_ = calls_bytes_max;
  /// Variables that are still looked up: each look-up reads the whole program.
  mutable unsigned variables_ = 32;
};

/// Takes out what makes a good shell program fail: a byte order mark and CRLF line ends.
std::vector<std::string> mend_shell(std::string& code) {
  std::vector<std::string> reasons;
  if (code.starts_with("\xEF\xBB\xBF")) {
    code.erase(0, 3);
    reasons.emplace_back("Removed the byte order mark");
  }
  std::string plain;
  plain.reserve(code.size());
  for (std::size_t i = 0; i < code.size(); ++i)
    if (code[i] != '\r' || i + 1 >= code.size() || code[i + 1] != '\n')
      plain += code[i];
  if (plain.size() != code.size()) {
    code = std::move(plain);
    reasons.emplace_back("Changed CRLF line ends to LF");
  }
  return reasons;
}

} // namespace

code_rules::code_rules(const vm_execution_policy& policy)
  : policy_{policy}
  , patterns_{std::make_unique<const patterns>()} {
  for (std::string& language : policy_.allowed_languages)
    language = canonical_language(language).value_or(language);
}

code_rules::~code_rules() = default;

std::vector<std::string> code_rules::find_dangers(std::string_view code,
                                                  std::string_view language) const {
  findings found;
  if (code.size() > limits::code_bytes_max)
    return {"Code is too long to be judged"};
  shell_judge shell{patterns_->bomb, found};
  if (language == "bash") {
    shell.judge(code);
    return found.reasons;
  }
  source_text source = read_source(code, language);
  source_judge judge{source, shell, found};
  judge.judge_processes(patterns_->call_of(language));
  judge.judge_removals(patterns_->tree_call);
  const std::pair<const RE2*, std::string_view> strays[] = {{&patterns_->stray_rm, rm_pattern},
                                                            {&patterns_->stray_mkfs, mkfs_pattern},
                                                            {&patterns_->stray_dd, dd_pattern},
                                                            {&patterns_->bomb, bomb_pattern},
                                                            {&patterns_->stray_pipe, curl_pattern}};
  for (const auto& [pattern, name] : strays)
    if (RE2::PartialMatch(piece(source.code), *pattern))
      found.add(name);
  return found.reasons;
}

verdict code_rules::judge(std::string_view code, std::string_view language) const {
  verdict answer;
  auto block = [&](std::string reason) {
    answer.decision = decision::block;
    answer.reasons.push_back(std::move(reason));
  };
  if (!policy_.enabled)
    block("Code execution is switched off by the policy");
  auto known = canonical_language(language);
  if (!known
      || std::ranges::find(policy_.allowed_languages, *known) == policy_.allowed_languages.end())
    block("Unsupported language: " + std::string{language.substr(0, 64)});
  if (!policy_.code_validation)
    return answer;
  if (code.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos)
    block("Code cannot be empty");
  if (count_characters(code) > policy_.max_code_length)
    block("Code exceeds maximum length of " + grouped(policy_.max_code_length) + " characters");
  if (!known)
    return answer;
  std::string mended;
  std::vector<std::string> changes;
  if (*known == "bash" && code.size() <= limits::code_bytes_max) {
    mended = code;
    changes = mend_shell(mended);
    code = mended;
  }
  const security_settings& security = policy_.security_settings;
  if (security.dangerous_patterns_check) {
    for (std::string& reason : find_dangers(code, *known)) {
      if (security.pattern_action == "block")
        answer.decision = decision::block;
      answer.reasons.push_back(std::move(reason));
    }
  }
  if (answer.decision == decision::allow && !changes.empty()) {
    answer.decision = decision::modify;
    answer.code = std::move(mended);
    answer.reasons.insert(answer.reasons.end(), changes.begin(), changes.end());
  }
  return answer;
}

} // namespace berth
