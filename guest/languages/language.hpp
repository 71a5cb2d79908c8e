// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/workspace.hpp"
#include "messages/guest.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace berth::guest {

/// One process of a job: a compiler, a linker, or the program itself, which comes last.
struct stage {
  std::string program;
  std::vector<std::string> argv;
  /// The whole environment, name=value.
  std::vector<std::string> env;
  std::string cwd;
  /// No standard input, and what it says on standard output is a diagnostic.
  bool compiles = false;
  /// Written to standard input before anything else.
  std::string preface;
  /// Becomes descriptor 3, when not empty.
  std::string job_file;
  /// The language whose warm interpreter may do it instead, with this job file; empty: none.
  std::string warm;
  std::string warm_job;
};

/// How a job is to be run.
struct plan {
  std::vector<stage> stages;
  run_path path = run_path::cold;
  /// Private directory to remove at the end; may be empty.
  std::string directory;
  /// What the compiling stages make, when it depends on the source alone; else empty.
  std::string compiled;
};

/// A plan, or for people why there is none.
struct planned {
  plan value;
  std::string error;
};

/// What the guest knows of one language.
struct language {
  const char* name;
  /// Whether its tools are in the machine.
  bool (*installed)();
  planned (*make_plan)(const start_job&, workspace&);
};

/// All languages, or the one of a canonical name (nullptr: none).
const std::vector<language>& all_languages();
const language* find_language(std::string_view name);

/// A plan that runs a program which an equal job left behind.
planned plan_binary(const start_job& start, workspace& files);

planned plan_python(const start_job& start, workspace& files);
planned plan_javascript(const start_job& start, workspace& files);
planned plan_bash(const start_job& start, workspace& files);
planned plan_rust(const start_job& start, workspace& files);
planned plan_go(const start_job& start, workspace& files);

/// The path of a tool of that name in the machine; empty when it is not installed.
std::string find_tool(std::string_view name);
bool exists(const std::string& path);

/// The environment of a job: the machine's own, over which the job's is laid.
std::map<std::string, std::string> job_environment(const start_job& start);
std::vector<std::string> as_words(const std::map<std::string, std::string>& env);

/// A new directory with the source in it; the error is set when that fails.
std::string source_directory(workspace& files, const char* name, const std::string& code,
                             std::string& error);

/// The words one after the other, a NUL after each.
std::string nul_separated(const std::vector<std::string>& words);

/// A text as JSON.
std::string json_text(std::string_view text);

/// The machine is a copy of another: interpreters that were up in that one, too, are told so with
/// their job, and draw new random numbers before it begins.
void machine_was_renewed();
/// The description of a job that interpreters read: code, args, env, cwd, name.
std::string job_description(const start_job& start, const char* name);

} // namespace berth::guest
