// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/brief.hpp"
#include "actors/workflows/pattern.hpp"

#include <string>

/// Execution: a model writes a program and nothing else, which is then run.
namespace berth {

namespace {

constexpr const char* generate_id = "generate";
constexpr const char* execute_id = "execute";

constexpr const char* code_only =
    "You write programs that are run as they are, without a human in between. Answer with one "
    "fenced "
    "block that names its language (python, javascript, bash, rust or go) and holds a complete "
    "program; python where the task leaves the choice. No text before or after the block. The "
    "program needs no input, prints its results to standard output, uses the standard library "
    "only, "
    "and does nothing that the task does not ask for.";

/// A program without a fence is one all the same.
std::string fenced(const std::string& code) {
  if (code.find("```") != std::string::npos)
    return code;
  return "```python\n" + code + "\n```";
}

class execution : public pattern {
public:
  std::string_view role() const override { return "DevelopmentAgent"; }
  std::string_view overall_role() const override { return "DevelopmentAgent"; }

  outlook look(const run_view& run) const override {
    outlook seen;
    seen.steps_expected = 2;
    seen.is_exact = true;
    const step_info* code = run.find(generate_id);
    const step_info* ran = run.find(execute_id);
    if (code == nullptr) {
      seen.start.push_back(ask_code(run));
    } else if (code->status == workflow_status::completed && ran == nullptr) {
      seen.start.push_back(run_code(run, *code));
    } else if (ran != nullptr && is_terminal(ran->status)) {
      seen.end = end_of(*ran);
    } else if (is_terminal(code->status) && ran == nullptr) {
      seen.end = end_of(*code);
    }
    return seen;
  }

private:
  static step_order ask_code(const run_view& run) {
    step_order made = order_of(run.request, workflow_step{}, "generate");
    made.id = generate_id;
    made.name = "Write the program";
    made.how = asking::model;
    if (made.system_prompt.empty())
      made.system_prompt = code_only;
    made.prompt = run.request.prompt;
    return made;
  }

  static step_order run_code(const run_view& run, const step_info& code) {
    step_order made = order_of(run.request, workflow_step{}, "execute");
    made.id = execute_id;
    made.name = "Run the program";
    made.how = asking::program;
    made.depends_on = {generate_id};
    made.prompt = fenced(code.output);
    return made;
  }

  static ending end_of(const step_info& last) {
    if (last.status == workflow_status::completed)
      return {.result = last.output, .chosen = last.id};
    return {.status = workflow_status::failed,
            .result = last.output,
            .error = last.id + ": " + last.error};
  }
};

} // namespace

const pattern& execution_pattern() {
  static const execution made;
  return made;
}

} // namespace berth
