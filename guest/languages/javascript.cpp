// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/language.hpp"
#include "guest/languages/node_source.hpp"

namespace berth::guest {

namespace {

/// What a cold interpreter runs, in every machine that Berth makes: gives a job the same view as a
/// warm one has.
constexpr const char* job_script = "/opt/berth/node_job.js";

/// Whether a package.json here or above may say that its files are modules; only a new interpreter
/// looks.
bool in_package(std::string directory) {
  while (!directory.empty()) {
    if (exists(directory + "/package.json"))
      return true;
    std::size_t slash = directory.rfind('/');
    directory.erase(slash == std::string::npos ? 0 : slash);
  }
  return false;
}

} // namespace

planned plan_javascript(const start_job& start, workspace& files) {
  planned result;
  stage& run = result.value.stages.emplace_back();
  run.program = find_tool("node");
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  node_needs needs = needs_of(start.code);
  const char* name = needs.module ? "main.mjs" : "main.js";
  if (exists(job_script)) {
    run.job_file = job_description(start, name);
    if (!needs.cold && !in_package(start.cwd)) {
      run.warm = "javascript";
      run.warm_job = run.job_file;
    }
    run.argv = {"node", job_script, "3"};
    return result;
  }
  // A foreign image without Berth's own files.
  result.value.directory = source_directory(files, name, start.code, result.error);
  run.argv = {"node", result.value.directory + "/" + name};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  return result;
}

} // namespace berth::guest
