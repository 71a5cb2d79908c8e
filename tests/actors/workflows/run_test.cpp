// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/bounds.hpp"
#include "actors/workflows/request.hpp"
#include "actors/workflows/stand_in.hpp"

#include <catch2/catch.hpp>

#include "rehearsal.hpp"
#include <map>
#include <set>

using namespace berth;
using namespace berth::test;

namespace {

/// What everybody says in a rehearsal of any pattern.
std::string line_of(const std::string& id) {
  static const std::map<std::string, std::string> lines{
      {"classify", "{\"route\": \"complex_route\", \"confidence\": 0.8, \"reason\": \"hard\"}"},
      {"plan", "not yet"},
      {"plan.repair",
       "{\"strategy\": \"s\", \"workers\": [{\"id\": \"a\", \"task\": \"A\"}, {\"id\": \"b\", "
       "\"task\": \"B\"}, {\"id\": \"c\", \"task\": \"C\", \"depends_on\": [\"a\", \"b\"]}]}"},
      {"evaluate_1", "{\"score\": 3, \"feedback\": \"more\"}"},
      {"evaluate_2", "{\"score\": 6, \"feedback\": \"more\"}"},
      {"evaluate_3", "{\"score\": 5, \"feedback\": \"more\"}"},
      {"generate", "```python\nprint(1)\n```"}};
  auto found = lines.find(id);
  return found == lines.end() ? "what " + id + " says" : found->second;
}

run_workflow request_of(workflow_pattern pattern) {
  run_workflow made;
  made.pattern = pattern;
  made.prompt = "Make a clock";
  return made;
}

workflow_pattern any_pattern() {
  return GENERATE(workflow_pattern::prompt_chaining, workflow_pattern::routing,
                  workflow_pattern::parallelization, workflow_pattern::orchestration,
                  workflow_pattern::optimization, workflow_pattern::vm_execution);
}

/// Lets steps answer, the oldest first, until it ended or so many did.
void play_on(rehearsal& play, std::size_t answers_max = 100) {
  for (; answers_max > 0 && !play.ended() && !play.asked().empty(); --answers_max) {
    std::string id = play.asked().front();
    play.answer(id, line_of(id));
  }
}

} // namespace

TEST_CASE(
    "Whenever the server dies, the next one comes to the same end from the last finished step") {
  auto pattern = any_pattern();
  rehearsal whole{request_of(pattern)};
  play_on(whole);
  REQUIRE(whole.ended());
  for (std::size_t before = 0; before < whole.info().steps.size(); ++before) {
    rehearsal play{request_of(pattern)};
    play_on(play, before);
    if (play.ended())
      break;
    auto under_way = play.asked();
    std::map<std::string, step_info> finished;
    for (const step_info& each : play.info().steps)
      if (is_terminal(each.status))
        finished[each.id] = each;
    play.restart();
    INFO(name_of(pattern) << " after " << before);
    CHECK(play.asked() == under_way);
    for (const std::string& id : under_way) {
      CHECK(play.step(id)->attempt == 2);
      bool talks = !play.step(id)->conversation.empty();
      CHECK((!talks || play.step(id)->conversation.ends_with(".r2")));
    }
    for (const auto& [id, step] : finished)
      CHECK(*play.step(id) == step);
    play_on(play);
    CHECK(play.info().status == workflow_status::completed);
    CHECK(play.info().result == whole.info().result);
    CHECK(play.info().chosen == whole.info().chosen);
    CHECK(play.info().resumed == 1);
    CHECK(play.info().steps.size() == whole.info().steps.size());
  }
}

TEST_CASE("A server that dies again and again gets there all the same") {
  auto pattern = any_pattern();
  rehearsal play{request_of(pattern)};
  for (int i = 0; i < 50 && !play.ended(); ++i) {
    play.restart();
    play_on(play, 1);
  }
  CHECK(play.info().status == workflow_status::completed);
}

TEST_CASE("A paused workflow lets its steps end, begins none, and goes on when it is resumed") {
  auto pattern = any_pattern();
  rehearsal play{request_of(pattern)};
  play.pause();
  CHECK(play.info().status == workflow_status::paused);
  auto under_way = play.asked();
  play_on(play);
  CHECK(play.asked().empty());
  CHECK_FALSE(play.ended());
  for (const std::string& id : under_way)
    CHECK(play.step(id)->status != workflow_status::running);
  play.restart(); // a new server keeps it paused
  CHECK(play.info().status == workflow_status::paused);
  CHECK(play.asked().empty());
  play.resume();
  CHECK_FALSE(play.asked().empty());
  play_on(play);
  CHECK(play.info().status == workflow_status::completed);
  CHECK(play.told(progress_kind::paused).size() == 2);
  CHECK(play.told(progress_kind::resumed).size() == 1);
}

TEST_CASE("A cancelled workflow begins nothing and ends when its steps did") {
  auto pattern = any_pattern();
  rehearsal play{request_of(pattern)};
  auto under_way = play.asked();
  play.cancel();
  CHECK_FALSE(play.ended());
  for (std::size_t i = 0; i < under_way.size(); ++i) {
    if (i == 0)
      play.answer(under_way[i], line_of(under_way[i])); // it was quicker than the cancel
    else
      play.fail(under_way[i], "cancelled");
  }
  REQUIRE(play.ended());
  CHECK(play.info().status == workflow_status::cancelled);
  CHECK(play.info().steps.size() == under_way.size());
  CHECK(play.events().back().kind == progress_kind::ended);
}

TEST_CASE("A cancelled workflow ends without its steps when they do not") {
  rehearsal play{request_of(workflow_pattern::parallelization)};
  play.cancel().end_now();
  REQUIRE(play.ended());
  CHECK(play.info().status == workflow_status::cancelled);
  for (const step_info& each : play.info().steps)
    CHECK(each.status == workflow_status::cancelled);
  play.run().finish(0, {.output = "late"}, 1); // changes nothing
  CHECK(play.info().steps[0].output.empty());
}

TEST_CASE("What a workflow tells is in order, grows, and ends once") {
  auto pattern = any_pattern();
  rehearsal play{request_of(pattern)};
  play_on(play);
  REQUIRE(play.ended());
  double progress = 0;
  std::uint32_t calls = 0;
  std::set<std::string> open;
  for (const progress_event& each : play.events()) {
    CHECK(each.id == "workflow_1");
    CHECK(each.progress >= progress);
    progress = each.progress;
    CHECK(each.usage->calls >= calls);
    calls = each.usage->calls;
    // Told where it is known, and then it is right.
    bool knows_total = each.steps_total > 0;
    CHECK((!knows_total || each.steps_total == play.info().steps.size()));
    bool is_open_ended = pattern == workflow_pattern::optimization;
    bool is_planned = pattern == workflow_pattern::orchestration && each.step.starts_with("plan");
    if (each.kind == progress_kind::step_started && !is_planned)
      CHECK(knows_total == !is_open_ended);
    if (each.kind == progress_kind::step_started)
      CHECK(open.insert(each.step).second);
    if (each.kind == progress_kind::step_ended)
      CHECK(open.erase(each.step) == 1);
    // The step that ended counts at once.
    if (each.kind == progress_kind::step_ended && knows_total)
      CHECK(each.progress > 0);
  }
  CHECK(open.empty());
  CHECK(progress == 100);
  CHECK(play.events().front().kind == progress_kind::started);
  CHECK(play.told(progress_kind::ended).size() == 1);
  CHECK(play.info().steps_total == play.info().steps.size());
  CHECK(play.events().back().steps_total == play.info().steps.size());
  CHECK(play.events().back().kind == progress_kind::ended);
}

TEST_CASE("An interrupted workflow is at its end until it is resumed") {
  rehearsal play{request_of(workflow_pattern::parallelization)};
  play.answer("perspective_0", "zero");
  play.run().interrupt(9);
  CHECK(play.info().status == workflow_status::interrupted);
  CHECK(play.step("perspective_1")->status == workflow_status::interrupted);
  CHECK(play.run().under_way().empty());
  play.restart();
  CHECK(play.asked() == std::vector<std::string>{"perspective_1", "perspective_2"});
  CHECK(play.info().status == workflow_status::running);
}

TEST_CASE("An output beyond the bound loses its middle, and so does what an agent did") {
  rehearsal play{request_of(workflow_pattern::prompt_chaining)};
  step_answer huge{.output = std::string(2 * limits::step_output_bytes_max, 'x')};
  for (int i = 0; i < 100; ++i) {
    agent_act act{.tool = "execute_code", .code = std::string(100'000, 'c')};
    act.ended = outcome{};
    act.ended->stdout_data.assign(1'000'000, 'o');
    huge.acts.push_back(std::move(act));
  }
  play.run().finish(0, std::move(huge), 5);
  const step_info& step = play.info().steps[0];
  CHECK(step.output.size() < limits::step_output_bytes_max + 100);
  CHECK(step.acts.size() == limits::step_acts_max);
  CHECK(step.acts[0].code.size() < limits::act_text_bytes_max + 100);
  CHECK(step.acts[0].ended->stdout_data.size() < limits::act_text_bytes_max + 100);
}

TEST_CASE("A question that would be too long loses of its oldest outputs") {
  auto request = request_of(workflow_pattern::prompt_chaining);
  for (int i = 0; i < 8; ++i) {
    workflow_step step;
    step.id = "s" + std::to_string(i);
    step.prompt = "Go on.";
    request.steps.push_back(step);
  }
  rehearsal play{request};
  for (int i = 0; i < 7; ++i)
    play.answer("s" + std::to_string(i),
                "begin " + std::string(200'000, 'a') + " end of " + std::to_string(i));
  const std::string& prompt = play.prompt("s7");
  CHECK(prompt.size() <= limits::prompt_bytes_max);
  CHECK(has(prompt, std::string(200'000, 'a') + " end of 6"));
  CHECK(has(prompt, "bytes left out"));
}

// --- roles ---------------------------------------------------------------------------------------

TEST_CASE("A role that is not configured has somebody who stands in for it") {
  auto roles = known_roles();
  auto who = [&](std::string_view wanted, std::string_view instead = {}) {
    found_role found = find_or_stand_in(roles, wanted, instead);
    return (found.itself ? "itself: " : "for it: ") + found.name;
  };
  CHECK(who("qaengineer") == "itself: QAEngineer");
  CHECK(who("Multi-Agent Analyst") == "for it: BusinessAnalyst");
  CHECK(who("Workflow Coordinator") == "for it: OrchestratorAgent");
  CHECK(who("Quality Optimizer") == "for it: EvaluatorAgent");
  CHECK(who("Senior Rust Developer") == "for it: RustSystemDeveloper");
  CHECK(who("engineering_agent", "Quality Optimizer") == "for it: EvaluatorAgent");
  CHECK(who("engineering_agent") == "for it: Default");
  CHECK(find_or_stand_in({}, "Anybody").name == "Anybody");
}

// --- requests ------------------------------------------------------------------------------------

TEST_CASE("A request's fault is named with its member") {
  struct fault {
    const char* member;
    std::function<void(run_workflow&)> make;
  };
  auto step = [](const char* id) {
    workflow_step made;
    made.id = id;
    made.prompt = "Do it.";
    return made;
  };
  const std::vector<fault> faults{
      {"prompt", [](run_workflow& x) { x.prompt = " \n"; }},
      {"prompt", [](run_workflow& x) { x.prompt.assign(limits::prompt_bytes_max, 'x'); }},
      {"role", [](run_workflow& x) { x.role.assign(300, 'x'); }},
      {"role", [](run_workflow& x) { x.role = "a\nb"; }},
      {"workflow", [](run_workflow& x) { x.workflow = "mine"; }},
      {"workflow", [](run_workflow& x) { x.workflow = "workflow_"; }},
      {"workflow", [](run_workflow& x) { x.workflow = "workflow_a.b"; }},
      {"rounds_max", [](run_workflow& x) { x.rounds_max = 21; }},
      {"threshold", [](run_workflow& x) { x.threshold = 10.5; }},
      {"votes", [](run_workflow& x) { x.votes = 64; }},
      {"votes", [&](run_workflow& x) { x.votes = 2, x.steps = {step("a")}; }},
      {"model.temperature", [](run_workflow& x) { x.model.temperature = 3; }},
      {"steps[0].id", [&](run_workflow& x) { x.steps = {step("")}; }},
      {"steps[1].id",
       [&](run_workflow& x) {
         x.steps = {step("a"), step("a")};
       }},
      {"steps", [&](run_workflow& x) { x.steps.assign(64, step("a")); }},
      {"steps: a depends on b",
       [&](run_workflow& x) { x.steps = {step("a")}, x.steps[0].depends_on = {"b"}; }},
      {"steps: a depends on b, which comes later",
       [&](run_workflow& x) {
         x.steps = {step("a"), step("b")}, x.steps[0].depends_on = {"b"};
       }},
      {"steps[0].gate",
       [&](run_workflow& x) { x.steps = {step("a")}, x.steps[0].gate = step_gate{}; }},
      {"steps[0].gate.matches",
       [&](run_workflow& x) {
         x.steps = {step("a")}, x.steps[0].gate = step_gate{.matches = "(oh"};
       }},
      {"steps[0].gate.repeats_max",
       [&](run_workflow& x) {
         x.steps = {step("a")};
         x.steps[0].gate = step_gate{.contains = "x", .repeats_max = 11};
       }},
      {"steps[1].id",
       [&](run_workflow& x) {
         x.steps = {step("a"), step("a.gate")}, x.steps[0].gate = step_gate{.question = "q"};
       }},
      {"steps[0].gate",
       [&](run_workflow& x) {
         x.pattern = workflow_pattern::routing;
         x.steps = {step("a")}, x.steps[0].gate = step_gate{.question = "q"};
       }},
      {"steps[0].id",
       [&](run_workflow& x) {
         x.pattern = workflow_pattern::routing, x.steps = {step("classify")};
       }},
      {"steps",
       [&](run_workflow& x) { x.pattern = workflow_pattern::optimization, x.steps = {step("a")}; }},
      {"steps[0].prompt", [&](run_workflow& x) {
         x.pattern = workflow_pattern::orchestration;
         x.steps = {step("a")}, x.steps[0].prompt.clear();
       }}};
  auto request = request_of(workflow_pattern::prompt_chaining);
  CHECK_FALSE(check_workflow(request));
  for (std::size_t i = 0; i < faults.size(); ++i) {
    run_workflow wrong = request;
    faults[i].make(wrong);
    error why = check_workflow(wrong);
    INFO(i << " " << faults[i].member);
    REQUIRE(why);
    CHECK(has(to_refusal(why).detail, faults[i].member));
  }
}

TEST_CASE("Ids of workflows are version 4 UUIDs, and unique") {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    std::string id = new_workflow_id();
    CHECK(is_workflow_id(id));
    CHECK(id.size() == 9 + 36);
    CHECK(id[9 + 14] == '4');
    CHECK(std::string_view{"89ab"}.find(id[9 + 19]) != std::string_view::npos);
    CHECK(seen.insert(id).second);
  }
}
