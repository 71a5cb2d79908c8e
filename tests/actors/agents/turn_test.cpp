// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/agent_limits.hpp"
#include "actors/agents/model_skills.hpp"
#include "actors/agents/turn.hpp"
#include "config/limits.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace berth;

namespace {

role_info coder() {
  role_info role;
  role.vm_execution = true;
  role.allowed_languages = {"python", "bash", "javascript", "rust", "go"};
  role.auto_execute_threshold = 0.5;
  role.max_code_length = 10'000;
  role.model = {.provider = "ollama", .base_url = "http://a", .model = "m", .temperature = 0.2};
  return role;
}

const execute_code_call& program(const task& of) {
  return std::get<execute_code_call>(of.request);
}

} // namespace

TEST_CASE("A chat's model replaces the role's, member by member", "[agents]") {
  auto made = chosen_model(coder(), {.model = "other", .max_tokens = 5});
  CHECK(made.provider == "ollama");
  CHECK(made.base_url == "http://a");
  CHECK(made.model == "other");
  CHECK(made.temperature.value_or(0) == 0.2);
  CHECK(made.max_tokens.value_or(0) == 5);
}

TEST_CASE("Tools are used where role and model know them, else text", "[agents]") {
  role_info role = coder();
  CHECK(chosen_acting(role, true) == acting::tools);
  CHECK(chosen_acting(role, false) == acting::text);
  role.acting = acting::text;
  CHECK(chosen_acting(role, true) == acting::text);
  role.acting = acting::none;
  CHECK(chosen_acting(role, true) == acting::none);
  role.acting = acting::tools;
  role.vm_execution = false;
  CHECK(chosen_acting(role, true) == acting::none);
}

TEST_CASE("Calls get ids of their own, and broken ones a fault", "[agents]") {
  model_answer answer;
  answer.tool_calls = {
      {.id = "", .name = "execute_code", .arguments = R"({"language": "python", "code": "1"})"},
      {.id = "x", .name = "execute_code", .arguments = "{oops"},
      {.id = "x", .name = "nothing", .arguments = "{}"}};
  auto tasks = tasks_of_calls(answer, coder());
  REQUIRE(tasks.size() == 3);
  std::set<std::string> ids;
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(tasks[i].call.id == answer.tool_calls[i].id);
    ids.insert(tasks[i].call.id);
  }
  CHECK(ids.size() == 3);
  CHECK(tasks[0].fault.empty());
  CHECK(tasks[1].fault.find("not JSON") != std::string::npos);
  CHECK(tasks[1].call.arguments == "{oops"); // people see what it wrote
  CHECK(tasks[2].fault.find("no such tool") != std::string::npos);
}

TEST_CASE("No answer calls more tools than the bound", "[agents]") {
  model_answer answer;
  answer.tool_calls.assign(limits::calls_per_round_max + 5, {.name = "list_files"});
  auto tasks = tasks_of_calls(answer, coder());
  CHECK(tasks.size() == answer.tool_calls.size());
  CHECK(tasks[limits::calls_per_round_max - 1].fault.empty());
  CHECK(tasks.back().fault.find("too many") != std::string::npos);
}

TEST_CASE("Of a model's text the likely programs run, in its order", "[agents]") {
  auto plan = tasks_of_text("First:\n```python\nimport math\nprint(math.pi)\n```\nThen run it:\n"
                            "```js\nlet a = 1\nconsole.log(a)\n```\nOutput:\n```\nabc\n```\n"
                            "```json\n{\"run\": 1}\n```\n```bash\nls\n```",
                            coder());
  REQUIRE(plan.tasks.size() >= 2);
  CHECK(program(plan.tasks[0]).language == "python");
  CHECK(program(plan.tasks[1]).language == "javascript");
  for (const task& each : plan.tasks)
    CHECK(each.confidence >= 0.5);
  auto doubtful = tasks_of_text("For example:\n```python\nprint(1)\n```\n", coder());
  CHECK(doubtful.tasks.empty());
  CHECK(doubtful.has_code);
  REQUIRE(doubtful.left.size() == 1);
  CHECK(doubtful.left[0] == "Skipped python code block (low confidence: 0.40)");
  CHECK(!tasks_of_text("x = 5\npython3 run.py\n", coder()).has_code);
}

TEST_CASE("An explicit execute runs every fenced program once, whatever its confidence",
          "[agents]") {
  auto plan = tasks_of_execute("```python\nprint(1)\n```\n```c++\nint x = 1;\n```\n"
                               "```text\nwords\n```\n```node\nconsole.log(2)\n```",
                               coder());
  REQUIRE(plan.tasks.size() == 3);
  CHECK(program(plan.tasks[0]).code == "print(1)");
  CHECK(plan.tasks[1].fault == "Unsupported language: c++");
  CHECK(program(plan.tasks[2]).language == "javascript");
  CHECK(!tasks_of_execute("no code here", coder()).has_code);
  role_info narrow = coder();
  narrow.allowed_languages = {"bash"};
  CHECK(tasks_of_execute("```python\nprint(1)\n```", narrow).tasks[0].fault.find("Unsupported")
        == 0);
}

TEST_CASE("A user's programs run when the user plainly asks", "[agents]") {
  auto runs = [](std::string_view text) { return tasks_of_user(text, coder()).tasks.size(); };
  CHECK(runs("Execute this Python code:\n\n```python\nprint(1)\n```") == 1);
  CHECK(runs("Please run this:\n```bash\necho hi\n```\nand\n```python\nprint(2)\n```") == 2);
  CHECK(runs("What is wrong with\n```python\ncursor.execute('x')\n```") == 0);
  CHECK(runs("run it") == 0);
}

TEST_CASE("What a chat may not say is refused by member", "[agents]") {
  chat request;
  CHECK(fault_of(request) == "messages: must not be empty");
  request.messages = {{.role = speaker::user, .content = "hi"}};
  CHECK(fault_of(request).empty());
  request.messages.push_back({.role = speaker::tool, .content = "data"});
  CHECK(fault_of(request) == "messages[1]: tool messages are the server's own");
  request.messages.back() = {.role = speaker::assistant, .content = "hi"};
  CHECK(fault_of(request).find("last one") != std::string::npos);
  request.execute = true;
  CHECK(fault_of(request).empty());
  request.messages[0].content.assign(limits::prompt_bytes_max + 1, 'x');
  CHECK(fault_of(request).find("bytes") != std::string::npos);
  request.messages.assign(limits::chat_messages_max + 1, {});
  CHECK(fault_of(request).find("at most") != std::string::npos);
}

TEST_CASE("That a model knows no tools is known for a while, of that model alone", "[agents]") {
  model_skills skills;
  model_choice wordy{.provider = "ollama", .base_url = "http://a", .model = "wordy"};
  auto now = model_skills::clock::now();
  CHECK(skills.knows_tools(wordy, now));
  skills.learn_toolless(wordy, now);
  CHECK(!skills.knows_tools(wordy, now));
  CHECK(skills.knows_tools({.provider = "openai", .base_url = "http://a", .model = "wordy"}, now));
  CHECK(skills.knows_tools({.provider = "ollama", .base_url = "http://b", .model = "wordy"}, now));
  CHECK(skills.knows_tools(wordy, now + limits::toolless_time + std::chrono::seconds{1}));
}
