// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/terraphim/translate.hpp"
#include "config/limits.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::http::terraphim;

namespace {

std::string fault_of_chat(const json& body) {
  auto got = read_chat(body);
  REQUIRE(!got);
  return got.why().text();
}

workflow_request understood(const json& body,
                            workflow_pattern pattern = workflow_pattern::prompt_chaining) {
  auto got = read_workflow(body, pattern, settings{});
  INFO((got ? std::string{} : got.why().text()));
  REQUIRE(got);
  return std::move(*got);
}

std::string fault_of_workflow(const json& body) {
  auto got = read_workflow(body, workflow_pattern::routing, settings{});
  REQUIRE(!got);
  return got.why().text();
}

step_info step(std::string id, std::string kind, std::string output) {
  step_info made{.id = id, .name = id, .kind = std::move(kind)};
  made.status = workflow_status::completed;
  made.output = std::move(output);
  made.conversation = "workflow_1." + id;
  made.role = "DevelopmentAgent";
  made.usage = {.input_tokens = 10, .output_tokens = 5, .cost_usd = 0.5, .calls = 1};
  made.started_at_ms = 1'700'000'000'000;
  made.ended_at_ms = 1'700'000'000'250;
  return made;
}

workflow_info workflow(workflow_pattern pattern, std::vector<step_info> steps) {
  workflow_info made{.workflow = "workflow_1", .pattern = pattern};
  made.status = workflow_status::completed;
  made.progress = 100;
  made.prompt = "the task";
  made.role = "DevelopmentAgent";
  made.overall_role = "Coordinator";
  made.steps = std::move(steps);
  made.result = "what came of it";
  made.usage = {.input_tokens = 20, .output_tokens = 10, .cost_usd = 1, .calls = 2};
  made.started_at_ms = 1'700'000'000'000;
  made.ended_at_ms = 1'700'000'001'500;
  return made;
}

} // namespace

TEST_CASE("A chat request is understood in all its clients' forms", "[terraphim]") {
  auto got = read_chat(
      {{"role", "DevelopmentAgent"},
       {"messages",
        {{{"role", "system"}, {"content", "be brief"}},
         {{"role", "user"},
          {"content", {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}}}},
         {{"role", "assistant"}, {"content", nullptr}}}},
       {"model", "llama3.2:3b"},
       {"conversation_id", "c-1"},
       {"max_tokens", 7},
       {"temperature", 0.5},
       {"unknown", {1}}});
  REQUIRE(got);
  CHECK(got->role == "DevelopmentAgent");
  REQUIRE(got->messages.size() == 3);
  CHECK(got->messages[0].role == speaker::system);
  CHECK(got->messages[1].content == "ab");
  CHECK(got->messages[2].content.empty());
  CHECK(got->model.model == "llama3.2:3b");
  CHECK(*got->model.max_tokens == 7);
  CHECK(*got->model.temperature == 0.5);
  CHECK(got->conversation == "c-1");
  auto plain = read_chat({{"message", "hello"}, {"conversationId", "c-2"}, {"role", nullptr}});
  REQUIRE(plain);
  CHECK(plain->messages[0].content == "hello");
  CHECK(plain->conversation == "c-2");
  CHECK(plain->role.empty());
}

TEST_CASE("A chat request that cannot be understood names the member", "[terraphim]") {
  CHECK(fault_of_chat(json::object()) == "messages: is missing");
  CHECK(fault_of_chat({{"messages", "hi"}}) == "messages: must be a list, is text");
  CHECK(fault_of_chat({{"messages", json::array()}}) == "messages: must be 1 to 1000");
  CHECK(fault_of_chat({{"messages", {1}}}) == "messages[0]: must be a map, is a whole number");
  CHECK(fault_of_chat({{"messages", {{{"role", "robot"}}}}})
        == "messages[0].role: must be system, user, assistant or tool");
  CHECK(fault_of_chat({{"messages", {{{"content", 5}}}}})
        == "messages[0].content: must be text, is a whole number");
  CHECK(fault_of_chat({{"message", "x"}, {"max_tokens", -1}}).find("max_tokens: ") == 0);
  CHECK(fault_of_chat({{"message", "x"}, {"temperature", "hot"}}).find("temperature: ") == 0);
  json many = json::array();
  for (std::size_t i = 0; i <= limits::chat_messages_max; ++i)
    many.push_back({{"content", "x"}});
  CHECK(fault_of_chat({{"messages", many}}) == "messages: must be 1 to 1000");
}

TEST_CASE("A chat's answer has what its programs gave under the contract's headline",
          "[terraphim]") {
  chat_reply reply{.conversation = "c-1", .role = "DevelopmentAgent", .text = "Done."};
  reply.results = "Executed python code (exit code: 0):\n42";
  reply.model = "llama3.2:3b";
  reply.session = "s-1";
  reply.usage = {.input_tokens = 3, .output_tokens = 4, .cost_usd = 0, .calls = 1};
  json got = chat_json(reply);
  CHECK(got["status"] == "success");
  CHECK(got["message"]
        == "Done.\n\n--- VM Execution Results ---\nExecuted python code (exit code: 0):\n42");
  CHECK(got["model_used"] == "llama3.2:3b");
  CHECK(got["error"].is_null());
  CHECK(got["conversation_id"] == "c-1");
  CHECK(got["conversationId"] == "c-1");
  CHECK(got["session_id"] == "s-1");
  CHECK(got["usage"]["output_tokens"] == 4);
  reply.results.clear();
  CHECK(chat_json(reply)["message"] == "Done.");
  CHECK(chat_json({.conversation = "c", .role = "r", .text = "", .error = "no model"})
        == json{{"status", "error"},
                {"message", nullptr},
                {"text", ""},
                {"results", nullptr},
                {"model_used", nullptr},
                {"error", "Chat failed: no model"},
                {"role", "r"},
                {"acts", json::array()},
                {"rounds", 0},
                {"cut", false},
                {"usage", to_json(model_usage{})},
                {"session", nullptr},
                {"conversation_id", "c"},
                {"conversationId", "c"},
                {"turn_id", nullptr},
                {"turnId", nullptr},
                {"session_id", nullptr},
                {"sessionId", nullptr}});
}

TEST_CASE("A chat that failed says so in the contract's words", "[terraphim]") {
  chat asked{.conversation = "c", .role = "Nobody"};
  CHECK(chat_failed_json(fail(ec::not_found, "role: there is no Nobody"), asked)["error"]
        == "Role 'Nobody' not found");
  json got = chat_failed_json(fail(ec::machine_failed, "http://x: refused"), asked);
  CHECK(got["error"] == "Chat failed: http://x: refused");
  CHECK(got["status"] == "error");
  CHECK(got["message"].is_null());
}

TEST_CASE("Every name of a pattern means it", "[terraphim]") {
  for (auto [name, pattern] : {std::pair{"prompt-chain", workflow_pattern::prompt_chaining},
                               {"prompt_chain", workflow_pattern::prompt_chaining},
                               {"route", workflow_pattern::routing},
                               {"routing", workflow_pattern::routing},
                               {"parallel", workflow_pattern::parallelization},
                               {"parallelization", workflow_pattern::parallelization},
                               {"orchestrate", workflow_pattern::orchestration},
                               {"orchestration", workflow_pattern::orchestration},
                               {"orchestrator", workflow_pattern::orchestration},
                               {"optimize", workflow_pattern::optimization},
                               {"optimization", workflow_pattern::optimization},
                               {"evaluator", workflow_pattern::optimization},
                               {"vm-execution-demo", workflow_pattern::vm_execution},
                               {"vm_execution_demo", workflow_pattern::vm_execution}})
    CHECK(pattern_of(name) == pattern);
  CHECK(!pattern_of("sessions"));
  CHECK(!pattern_of(""));
}

TEST_CASE("A workflow request is honoured with its steps and configurations", "[terraphim]") {
  auto got = understood(
      {{"prompt", "build"},
       {"role", "BusinessAnalyst"},
       {"overall_role", "engineering_agent"},
       {"context", "small"},
       {"config", {{"system_prompt_override", "be kind"}, {"max_iterations", 2}, {"votes", 3}}},
       {"llm_config",
        {{"llm_provider", "ollama"},
         {"llm_model", "m"},
         {"llm_base_url", "http://127.0.0.1:11434/"},
         {"llm_temperature", 0.1}}},
       {"steps",
        {{{"id", "a"}, {"name", "A"}, {"prompt", "first"}, {"role", "QAEngineer"}},
         {{"name", "B"},
          {"system_prompt", "own"},
          {"llm_config", {{"llm_model", "n"}}},
          {"depends_on", {"a"}},
          {"gate", {{"contains", "x"}}},
          {"editable", true}}}},
       {"workflow_id", "workflow_mine"},
       {"async", true}});
  CHECK(got.what.prompt == "build\n\nContext:\nsmall");
  CHECK(got.what.role == "BusinessAnalyst");
  CHECK(got.what.overall_role == "engineering_agent");
  CHECK(got.what.system_prompt == "be kind");
  CHECK(got.what.rounds_max == 2);
  CHECK(got.what.votes == 3);
  CHECK(got.what.model.base_url == "http://127.0.0.1:11434");
  CHECK(got.what.model.model == "m");
  CHECK(*got.what.model.temperature == 0.1);
  REQUIRE(got.what.steps.size() == 2);
  CHECK(got.what.steps[0].role == "QAEngineer");
  CHECK(got.what.steps[1].id == "step_2");
  CHECK(got.what.steps[1].system_prompt == "own");
  CHECK(got.what.steps[1].model.model == "n");
  CHECK(got.what.steps[1].gate->contains == "x");
  CHECK(got.what.steps[1].depends_on == std::vector<std::string>{"a"});
  CHECK(got.what.workflow == "workflow_mine");
  CHECK(got.async);
  CHECK(got.warnings.empty());
}

TEST_CASE("What the web applications send beside the contract is understood", "[terraphim]") {
  auto got = understood(
      {{"prompt", "write"},
       {"overallRole", "TechnicalWriter"},
       {"parameters", {{"steps", {{{"id", "one"}, {"prompt", "p"}}}}}},
       {"config",
        {{"system_prompt_override",
          "This role has no default system prompt. You can define one here."},
         {"qualityThreshold", 85},
         {"previousContent", "draft"},
         {"optimizationPrompt", {{"focusAreas", {"tone"}}}}}},
       {"llm_config", {{"llm_provider", "openrouter"}, {"llm_base_url", "https://elsewhere"}}}},
      workflow_pattern::optimization);
  CHECK(got.what.overall_role == "TechnicalWriter");
  CHECK(got.what.system_prompt.empty());
  CHECK(*got.what.threshold == 8.5);
  CHECK(got.what.prompt
        == "write\n\nPrevious version:\ndraft\n\nTo be improved:\n{\"focusAreas\":[\"tone\"]}");
  CHECK(got.what.steps.empty());
  CHECK(got.what.model == model_choice{});
  REQUIRE(got.warnings.size() == 2);
  CHECK(got.warnings[0].find("https://elsewhere") != std::string::npos);
}

TEST_CASE("A model of an endpoint that is not configured goes with it", "[terraphim]") {
  auto got = understood({{"prompt", "write"},
                         {"steps", {{{"id", "clarity"}, {"name", "Clarity"}, {"weight", 25}}}},
                         {"llm_config",
                          {{"provider", "ollama"},
                           {"model", "elsewhere:1b"},
                           {"base_url", "http://10.0.0.1:11434"},
                           {"temperature", 0.7},
                           {"max_tokens", 2048},
                           {"max_iterations", 5},
                           {"quality_threshold", 85}}}},
                        workflow_pattern::optimization);
  CHECK(got.what.model.model.empty());
  CHECK(got.what.model.base_url.empty());
  CHECK(got.what.model.provider.empty());
  CHECK(*got.what.model.temperature == 0.7);
  CHECK(got.warnings.size() == 2);
  // Bounds are found there too.
  CHECK(got.what.rounds_max == 5);
  CHECK(*got.what.threshold == 8.5);
  auto here = understood({{"prompt", "write"}, {"llm_config", {{"model", "m"}}}});
  CHECK(here.what.model.model == "m");
  CHECK(here.warnings.empty());
}

TEST_CASE("Steps for a pattern that has its own are left aside, and that is said", "[terraphim]") {
  json body{{"prompt", "better"}, {"steps", {{{"id", "a"}, {"prompt", "do"}}}}};
  for (auto pattern : {workflow_pattern::optimization, workflow_pattern::vm_execution}) {
    auto got = understood(body, pattern);
    CHECK(got.what.steps.empty());
    REQUIRE(got.warnings.size() == 1);
    CHECK(got.warnings[0].starts_with("steps: "));
  }
  auto chain = understood(body);
  CHECK(chain.what.steps.size() == 1);
  CHECK(chain.warnings.empty());
}

TEST_CASE("A chain's answer has its steps beside the result too", "[terraphim]") {
  auto info = workflow(workflow_pattern::prompt_chaining, {step("a", "step", "one")});
  json got = workflow_json(info, {});
  CHECK(got["steps"] == got["result"]["steps"]);
  CHECK(got["steps"][0]["output"] == "one");
  CHECK(got["execution_summary"] == got["result"]["execution_summary"]);
  info.status = workflow_status::running;
  CHECK(!workflow_json(info, {}).contains("steps"));
}

TEST_CASE("A workflow request that cannot be understood names the member", "[terraphim]") {
  CHECK(fault_of_workflow(json::object()) == "prompt: is missing");
  CHECK(fault_of_workflow({{"prompt", "  "}}) == "prompt: is missing");
  CHECK(fault_of_workflow({{"prompt", 5}}) == "prompt: must be text, is a whole number");
  CHECK(fault_of_workflow({{"prompt", "x"}, {"steps", "y"}}) == "steps: must be a list, is text");
  CHECK(fault_of_workflow({{"prompt", "x"}, {"steps", {1}}})
        == "steps[0]: must be a map, is a whole number");
  CHECK(fault_of_workflow({{"prompt", "x"}, {"steps", {{{"id", json::array()}}}}}).find("steps[0].")
        == 0);
  CHECK(fault_of_workflow({{"prompt", "x"}, {"llm_config", {{"llm_temperature", "hot"}}}})
            .find("llm_config.temperature: ")
        == 0);
  json many = json::array();
  for (std::size_t i = 0; i <= limits::workflow_steps_max; ++i)
    many.push_back({{"prompt", "p"}});
  CHECK(fault_of_workflow({{"prompt", "x"}, {"steps", many}}) == "steps: must be 64 at most");
}

TEST_CASE("A chain's answer is the contract's, the last of equal names standing for its step",
          "[terraphim]") {
  auto first = step("a", "step", "refused");
  first.status = workflow_status::failed;
  auto again = step("a.2", "step", "good");
  again.name = "a";
  auto gate = step("a.gate", "gate", R"({"answer":"yes"})");
  auto info =
      workflow(workflow_pattern::prompt_chaining, {first, gate, again, step("b", "step", "done")});
  workflow_request asked;
  asked.what.overall_role = "engineering_agent";
  json got = workflow_json(info, asked);
  CHECK(got["workflow_id"] == "workflow_1");
  CHECK(got["sessionId"] == "workflow_1");
  CHECK(got["success"] == true);
  CHECK(got["error"].is_null());
  CHECK(got["metadata"]["pattern"] == "prompt_chaining");
  CHECK(got["metadata"]["execution_time_ms"] == 1500);
  CHECK(got["metadata"]["role"] == "DevelopmentAgent");
  CHECK(got["metadata"]["overall_role"] == "engineering_agent");
  json result = got["result"];
  CHECK(result["pattern"] == "prompt_chaining");
  REQUIRE(result["steps"].size() == 2);
  CHECK(result["steps"][0]["output"] == "good");
  CHECK(result["steps"][1]["step_id"] == "b");
  CHECK(result["steps"][1]["duration_ms"] == 250);
  CHECK(result["steps"][1]["success"] == true);
  CHECK(result["steps"][1]["tokens_used"] == json{{"input", 10}, {"output", 5}});
  CHECK(result["final_result"] == "what came of it");
  CHECK(result["execution_summary"]["total_steps"] == 2);
  CHECK(result["execution_summary"]["total_tokens"] == 30);
  CHECK(result["execution_summary"]["specialized_agents"] == true);
  CHECK(result["execution_summary"]["input_prompt"] == "the task");
}

TEST_CASE("Routing, branches, workers and rounds have the contract's shapes", "[terraphim]") {
  auto classify = step("classify", "classify",
                       R"({"route":"complex_route","confidence":0.9,"method":"model",
                           "complexity":0.8})");
  classify.confidence = 0.9;
  auto route = step("complex_route", "route", "# Title\nbody");
  route.reason = "it is hard";
  auto routed = workflow(workflow_pattern::routing, {classify, route});
  routed.chosen = "complex_route";
  routed.result = "# Title\nbody";
  json got = result_json(routed);
  CHECK(got["task_analysis"]["complexity"] == 0.8);
  CHECK(got["task_analysis"]["analysis_method"] == "model");
  CHECK(got["selected_route"]["route_id"] == "complex_route");
  CHECK(got["selected_route"]["reasoning"] == "it is hard");
  CHECK(got["selected_route"]["confidence"] == 0.9);
  CHECK(got["title"] == "Title");
  CHECK(got["body"] == "# Title\nbody");

  auto broken = step("perspective_1", "branch", "");
  broken.status = workflow_status::failed;
  broken.error = "the model is gone";
  auto good = step("perspective_0", "branch", "seen");
  good.name = "analytical";
  json parallel = result_json(workflow(workflow_pattern::parallelization,
                                       {good, broken, step("aggregate", "join", "all")}));
  REQUIRE(parallel["parallel_tasks"].size() == 2);
  CHECK(parallel["parallel_tasks"][0]["task_id"] == "perspective_0");
  CHECK(parallel["parallel_tasks"][0]["perspective"] == "analytical");
  CHECK(parallel["parallel_tasks"][0]["result"] == "seen");
  CHECK(parallel["parallel_tasks"][0]["tokens_used"] == 15);
  CHECK(parallel["parallel_tasks"][1]["success"] == false);
  CHECK(parallel["parallel_tasks"][1]["result"] == "the model is gone");
  CHECK(parallel["aggregated_result"] == "what came of it");
  CHECK(parallel["execution_summary"]["perspectives_count"] == 2);

  auto refused = step("plan", "plan", "not a plan");
  refused.status = workflow_status::failed;
  auto worker = step("w", "worker", "found");
  worker.reason = "look";
  json orchestrated =
      result_json(workflow(workflow_pattern::orchestration,
                           {refused, step("plan.repair", "plan", R"({"workers":[]})"), worker}));
  CHECK(orchestrated["orchestrator_plan"] == R"({"workers":[]})");
  CHECK(orchestrated["plan"] == json{{"workers", json::array()}});
  CHECK(orchestrated["worker_results"][0]["worker_name"] == "w");
  CHECK(orchestrated["worker_results"][0]["task_description"] == "look");
  CHECK(orchestrated["final_synthesis"] == "what came of it");
  CHECK(orchestrated["execution_summary"]["workers_count"] == 1);

  auto poor = step("evaluate_1", "evaluate", "raw");
  poor.score = 6;
  poor.reason = "longer";
  auto fine = step("evaluate_2", "evaluate", "raw");
  fine.score = 8.5;
  auto rounds =
      workflow(workflow_pattern::optimization, {step("generate_1", "generate", "v1"), poor,
                                                step("generate_2", "generate", "v2"), fine});
  rounds.chosen = "generate_2";
  rounds.result = "v2";
  json optimized = result_json(rounds, 8.0);
  REQUIRE(optimized["iterations"].size() == 2);
  CHECK(optimized["iterations"][0]["quality_score"] == 6);
  CHECK(optimized["iterations"][0]["evaluation_feedback"] == "longer");
  CHECK(optimized["iterations"][1]["chosen"] == true);
  CHECK(optimized["iterations"][1]["iteration_cost"] == 1.0);
  CHECK(optimized["initial_content"] == "v1");
  CHECK(optimized["optimized_content"] == "v2");
  CHECK(optimized["final_result"] == "v2");
  CHECK(optimized["optimization_complete"] == true);
  CHECK(optimized["quality_metrics"]["overall"] == 85.0);
  CHECK(optimized["execution_summary"]["best_quality_score"] == 8.5);

  auto executed = step("execute", "execute", "42");
  executed.acts = {{.tool = "execute_code", .language = "python", .ended = outcome{}},
                   {.tool = "execute_code", .language = "bash", .refused = "blocked"}};
  json demo = result_json(workflow(workflow_pattern::vm_execution,
                                   {step("generate", "generate", "print(42)"), executed}));
  CHECK(demo["llm_generated_code"] == "print(42)");
  CHECK(demo["execution_output"] == "what came of it");
  CHECK(demo["execution_summary"]["code_blocks_generated"] == 2);
  CHECK(demo["execution_summary"]["code_blocks_executed"] == 1);
}

TEST_CASE("Status and trace of a workflow that runs have what is known so far", "[terraphim]") {
  auto info = workflow(workflow_pattern::routing, {step("classify", "classify", "{}")});
  info.status = workflow_status::running;
  info.progress = 50;
  info.current_step = "classify";
  info.ended_at_ms = 0;
  info.result.clear();
  json status = status_json(info);
  CHECK(status["id"] == "workflow_1");
  CHECK(status["status"] == "running");
  CHECK(status["progress"] == 50.0);
  CHECK(status["current_step"] == "classify");
  CHECK(status["started_at"] == "2023-11-14T22:13:20.000Z");
  CHECK(status["completed_at"].is_null());
  CHECK(status["result"].is_null());
  CHECK(status["error"].is_null());
  CHECK(status["steps"].size() == 1);
  json trace = trace_json(info);
  CHECK(trace["workflow_id"] == "workflow_1");
  CHECK(trace["timeline"]["completed_at"].is_null());
  CHECK(trace["performance"]["progress"] == 50.0);
  info.status = workflow_status::cancelled;
  CHECK(workflow_json(info, {})["success"] == false);
  CHECK(workflow_json(info, {})["error"] == "the workflow was cancelled");
}

TEST_CASE("Output of the strangest kind never breaks a shape", "[terraphim]") {
  for (auto pattern : {workflow_pattern::prompt_chaining, workflow_pattern::routing,
                       workflow_pattern::parallelization, workflow_pattern::orchestration,
                       workflow_pattern::optimization, workflow_pattern::vm_execution}) {
    for (const char* kind :
         {"step", "classify", "route", "plan", "generate", "evaluate", "other"}) {
      auto odd = step("x", kind,
                      GENERATE(std::string{"[1,2"}, std::string{"[]"}, std::string{"\xff\xfe"},
                               std::string(10'000, '[')));
      auto info = workflow(pattern, {odd});
      info.result = odd.output;
      CHECK(!json_text(workflow_json(info, {})).empty());
      CHECK(!json_text(status_json(info)).empty());
    }
    CHECK(!json_text(workflow_json(workflow(pattern, {}), {})).empty());
  }
}

TEST_CASE("The configuration is passed on whole, wrapped or not", "[terraphim]") {
  std::string text = R"({"z":9,"id":"Server","roles":{"B":{"extra":{"extra":{"k":1}}},"A":{}}})";
  std::string body = config_body({text});
  CHECK(body.find("\"config\":" + text) != std::string::npos);
  CHECK(json::parse(body)["roles"] == json::parse(text)["roles"]);
  CHECK(read_config(text)->json == text);
  CHECK(read_config(R"({"config":)" + text + "}")->json == text);
  CHECK(!read_config("[]"));
  CHECK(!read_config("{\"roles\":"));
  CHECK(!read_config(R"({"roles":")" + std::string(5 * limits::mib, 'x') + "\"}"));
}
