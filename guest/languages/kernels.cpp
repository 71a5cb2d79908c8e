// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/kernels.hpp"

#include "guest/languages/language.hpp"

namespace berth::guest {

namespace {

constexpr const char* no_part = "this machine has no part of Berth for live interpreters";

/// What every plan begins with: the tool, or why it or our part of it is not to be had.
kernel_plan plan_tool(const char* tool, const char* part) {
  kernel_plan plan;
  plan.program = find_tool(tool);
  if (plan.program.empty())
    plan.error = std::string{tool} + " is not installed in this machine";
  else if (!exists(part))
    plan.error = no_part;
  return plan;
}

constexpr const char* python_script = "/opt/berth/python_kernel.py";

kernel_plan plan_python_kernel(const start_job& description) {
  kernel_plan plan = plan_tool("python3", python_script);
  plan.argv = {"python3", "-I", "-u", "-X", "utf8", python_script, "3"};
  plan.warm = "python_kernel";
  plan.job_file = job_description(description, "kernel");
  return plan;
}

constexpr const char* node_preload = "/opt/berth/keepfork.so";
constexpr const char* node_script = "/opt/berth/node_job.js";

kernel_plan plan_node_kernel(const start_job& description) {
  kernel_plan plan = plan_tool("node", node_script);
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
  kernel_plan plan = plan_tool("bash", bash_start);
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
