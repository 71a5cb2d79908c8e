// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/bash.hpp"

#include "guest/launch.hpp"

#include <array>
#include <cerrno>
#include <cstring>

namespace berth::guest {

namespace {

/// Sourced (by BASH_ENV) before the script, which bash opens only afterwards: so a bash can be up
/// before the job is known. Takes NUL-terminated words from standard input, byte by byte, so that
/// the job's own input stays there: number of variables, variables, number of arguments, arguments,
/// directory. The script is opened as `main.sh` in the directory bash was started in, which makes
/// $0 and error messages what users expect; only then may the directory be changed, by the call of
/// _berth that is put before the script's first line.
constexpr std::string_view prelude = R"(unset BASH_ENV
IFS= read -r -d '' _berth_left
while ((_berth_left-- > 0)); do IFS= read -r -d '' REPLY; export "$REPLY"; done
IFS= read -r -d '' _berth_left
while ((_berth_left-- > 0)); do IFS= read -r -d '' REPLY; set -- "$@" "$REPLY"; done
IFS= read -r -d '' _berth_cwd
RANDOM=${SRANDOM:-$RANDOM}
unset _berth_left REPLY
_berth() {
  builtin cd -- "$_berth_cwd" || exit 126
  unset _berth_cwd OLDPWD
  unset -f _berth
}
if [[ -n ${BASH_ENV-} ]]; then . "$BASH_ENV"; fi
)";

/// Beyond so much, reading byte by byte takes longer than starting another bash.
constexpr std::size_t preface_bytes_max = 2048;

std::string prelude_path(workspace& files) {
  if (files.base().empty())
    return {};
  std::string path = files.base() + "/prelude.sh";
  return exists(path) || write_file(path, prelude, 0600) ? path : std::string{};
}

std::string script(const start_job& start) {
  return "_berth; " + start.code;
}

std::string preface(const std::vector<std::string>& variables, const std::vector<std::string>& args,
                    const std::string& cwd) {
  std::vector<std::string> words{std::to_string(variables.size())};
  words.insert(words.end(), variables.begin(), variables.end());
  words.push_back(std::to_string(args.size()));
  words.insert(words.end(), args.begin(), args.end());
  words.push_back(cwd);
  return nul_separated(words);
}

/// Whether bash takes this variable from an assignment as it would from its environment.
bool plain_variable(const std::string& name) {
  static constexpr std::array<std::string_view, 22> special{"_",
                                                            "IFS",
                                                            "UID",
                                                            "EUID",
                                                            "PPID",
                                                            "SHELLOPTS",
                                                            "ENV",
                                                            "GROUPS",
                                                            "RANDOM",
                                                            "SECONDS",
                                                            "LINENO",
                                                            "FUNCNAME",
                                                            "SHLVL",
                                                            "HISTCMD",
                                                            "OPTIND",
                                                            "DIRSTACK",
                                                            "POSIXLY_CORRECT",
                                                            "SRANDOM",
                                                            "PWD",
                                                            "OLDPWD",
                                                            "REPLY",
                                                            "PS4"};
  if (name.empty() || name.starts_with("BASH") || name.starts_with("EPOCH")
      || name.starts_with("_berth"))
    return false;
  for (std::string_view each : special)
    if (name == each)
      return false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    char c = name[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (i == 0 || c < '0' || c > '9'))
      return false;
  }
  return true;
}

} // namespace

planned plan_bash(const start_job& start, workspace& files) {
  planned result;
  result.value.directory = source_directory(files, "main.sh", script(start), result.error);
  std::string environment_file = prelude_path(files);
  if (result.error.empty() && environment_file.empty())
    result.error = std::string{"cannot write a file: "} + std::strerror(errno);
  stage& run = result.value.stages.emplace_back();
  run.program = find_tool("bash");
  run.argv = {"bash", "main.sh"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  auto env = job_environment(start);
  std::vector<std::string> late;
  if (auto found = env.find("BASH_ENV"); found != env.end())
    late.push_back("BASH_ENV=" + found->second);
  env["BASH_ENV"] = environment_file;
  run.env = as_words(env);
  run.cwd = result.value.directory;
  run.preface = preface(late, {}, start.cwd);
  return result;
}

waiting_bash start_waiting_bash(workspace& files) {
  waiting_bash bash;
  std::string program = find_tool("bash");
  std::string environment_file = prelude_path(files);
  if (program.empty() || environment_file.empty())
    return bash;
  std::string error;
  bash.directory = source_directory(files, "main.sh", {}, error);
  pipe_pair in = make_pipe(false);
  pipe_pair out = make_pipe(true);
  pipe_pair err = make_pipe(true);
  if (!error.empty() || !in.ours || !out.ours || !err.ours)
    return bash;
  launch_request request;
  request.program = program;
  request.argv = {"bash", "main.sh"};
  auto env = job_environment({});
  env["BASH_ENV"] = environment_file;
  request.env = as_words(env);
  request.cwd = bash.directory;
  request.stdin_fd = in.theirs.get();
  request.stdout_fd = out.theirs.get();
  request.stderr_fd = err.theirs.get();
  bash.pid = launch(request).pid;
  if (bash.pid > 0)
    prefer_as_oom_victim(bash.pid);
  bash.stdin_pipe = std::move(in.ours);
  bash.stdout_pipe = std::move(out.ours);
  bash.stderr_pipe = std::move(err.ours);
  return bash;
}

bool fits_waiting_bash(const start_job& start) {
  std::size_t size = start.cwd.size();
  for (const auto& [name, value] : start.env) {
    if (!plain_variable(name))
      return false;
    size += name.size() + value.size() + 2;
  }
  for (const std::string& arg : start.args)
    size += arg.size() + 1;
  return size <= preface_bytes_max && start.args.size() <= 64;
}

bool hand_over(const waiting_bash& bash, const start_job& start) {
  std::string words = preface(as_words(start.env), start.args, start.cwd);
  return write_file(bash.directory + "/main.sh", script(start), 0600)
         && write(bash.stdin_pipe.get(), words.data(), words.size())
                == static_cast<ssize_t>(words.size());
}

} // namespace berth::guest
