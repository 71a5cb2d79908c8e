// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/language.hpp"

namespace berth::guest {

namespace {

/// What a cold interpreter runs, in every machine that Berth makes: gives a job the same view as a
/// warm one has.
constexpr const char* job_script = "/lib/berth/node_job.js";

} // namespace

planned plan_javascript(const start_job& start, workspace& files) {
  planned result;
  stage& run = result.value.stages.emplace_back();
  run.program = find_tool("node");
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  if (exists(job_script)) {
    run.job_file = job_description(start, "main.js");
    run.warm = "javascript";
    run.warm_job = run.job_file;
    run.argv = {"node", job_script, "3"};
    return result;
  }
  // A foreign image without Berth's own files.
  result.value.directory = source_directory(files, "main.js", start.code, result.error);
  run.argv = {"node", result.value.directory + "/main.js"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  return result;
}

} // namespace berth::guest
