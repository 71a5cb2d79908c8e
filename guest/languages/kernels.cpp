// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/kernels.hpp"

#include "guest/languages/language.hpp"

namespace berth::guest {

namespace {

constexpr const char* no_part = "this machine has no part of Berth for live interpreters";
constexpr const char* python_script = "/opt/berth/python_kernel.py";

kernel_plan plan_python_kernel(const start_job& description) {
  kernel_plan plan;
  plan.program = find_tool("python3");
  if (plan.program.empty() || !exists(python_script)) {
    plan.error = plan.program.empty() ? "python3 is not installed in this machine" : no_part;
    return plan;
  }
  plan.argv = {"python3", "-I", "-u", "-X", "utf8", python_script, "3"};
  plan.warm = "python_kernel";
  plan.job_file = job_description(description, "kernel");
  return plan;
}

constexpr const char* node_preload = "/opt/berth/keepfork.so";
constexpr const char* node_script = "/opt/berth/node_job.js";

kernel_plan plan_node_kernel(const start_job& description) {
  kernel_plan plan;
  plan.program = find_tool("node");
  if (plan.program.empty() || !exists(node_script)) {
    plan.error = plan.program.empty() ? "node is not installed in this machine" : no_part;
    return plan;
  }
  plan.argv = {"node", node_script, "3"};
  if (exists(node_preload))
    plan.env.push_back(std::string{"LD_PRELOAD="} + node_preload);
  plan.warm = "javascript";
  plan.job_file = job_description(description, "kernel");
  plan.job_file.insert(1, "\"kernel\":true,");
  return plan;
}

constexpr const char* bash_start = "/opt/berth/bash_kernel.sh";

kernel_plan plan_bash_kernel() {
  kernel_plan plan;
  plan.program = find_tool("bash");
  if (plan.program.empty() || !exists(bash_start))
    plan.error = plan.program.empty() ? "bash is not installed in this machine" : no_part;
  // Interactive, so that an interrupt or an error ends a cell and not the shell.
  plan.argv = {"bash", "--noprofile", "--rcfile", bash_start, "--noediting", "-i", "-s"};
  return plan;
}

} // namespace

kernel_plan plan_kernel(const open_kernel& request) {
  start_job description;
  description.cwd = request.cwd;
  kernel_plan plan;
  if (request.language == "python")
    plan = plan_python_kernel(description);
  else if (request.language == "javascript")
    plan = plan_node_kernel(description);
  else if (request.language == "bash")
    plan = plan_bash_kernel();
  else
    plan.error = request.language + " has no live interpreters";
  std::vector<std::string> env = as_words(job_environment(description));
  plan.env.insert(plan.env.begin(), env.begin(), env.end());
  return plan;
}

} // namespace berth::guest
