// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/language.hpp"

namespace berth::guest {

namespace {

/// What a cold interpreter runs, in every machine that Berth makes: gives a job the same view as a
/// warm one has.
constexpr const char* job_script = "/opt/berth/python_job.py";

/// Whether the environment says something that only a starting interpreter heeds.
bool speaks_to_start(const start_job& start) {
  for (const auto& [name, value] : start.env)
    if (name.starts_with("PYTHON") && name != "PYTHONPATH" && name != "PYTHONUNBUFFERED")
      return true;
  return false;
}

} // namespace

planned plan_python(const start_job& start, workspace& files) {
  planned result;
  stage& run = result.value.stages.emplace_back();
  run.program = find_tool("python3");
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  if (exists(job_script)) {
    run.job_file = job_description(start, "main.py");
    if (speaks_to_start(start)) {
      run.argv = {"python3", "-u", "-X", "utf8", job_script, "3"};
      return result;
    }
    run.warm = "python";
    run.warm_job = run.job_file;
    run.argv = {"python3", "-I", "-u", "-X", "utf8", job_script, "3"};
    return result;
  }
  // A foreign image without Berth's own files.
  result.value.directory = source_directory(files, "main.py", start.code, result.error);
  run.argv = {"python3", "-u", result.value.directory + "/main.py"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  return result;
}

} // namespace berth::guest
