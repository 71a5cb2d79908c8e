// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/bounds.hpp"

#include <catch2/catch.hpp>

#include "stage.hpp"

using namespace berth;
using namespace berth::test;

namespace {

using names = std::vector<std::string>;

run_workflow request_of(workflow_pattern pattern, const std::string& id = "workflow_1") {
  run_workflow made;
  made.pattern = pattern;
  made.prompt = "Make a clock";
  made.workflow = id;
  return made;
}

submit_workflow submission(workflow_pattern pattern, const std::string& id = "workflow_1") {
  submit_workflow made;
  static_cast<run_workflow&>(made) = request_of(pattern, id);
  return made;
}

workflow_pattern any_pattern() {
  return GENERATE(workflow_pattern::prompt_chaining, workflow_pattern::routing,
                  workflow_pattern::parallelization, workflow_pattern::orchestration,
                  workflow_pattern::optimization, workflow_pattern::vm_execution);
}

} // namespace

TEST_CASE("A run is answered when it ended, with every step") {
  auto pattern = any_pattern();
  stage play;
  auto run = play.ask_for(request_of(pattern));
  CHECK_FALSE(run.answered());
  play.play_on();
  REQUIRE(run.answered());
  REQUIRE(run.answer());
  const workflow_info& info = *run.answer();
  CHECK(info.status == workflow_status::completed);
  CHECK(info.steps.size() >= 2);
  CHECK_FALSE(info.result.empty());
  CHECK(info.usage.calls == info.steps.size());
  CHECK(play.count(progress_kind::ended) == 1);
  auto later = play.ask_for(get_workflow{"workflow_1"});
  REQUIRE(later.answer());
  CHECK(*later.answer() == info);
}

TEST_CASE(
    "A step is a turn of an agent in a conversation of its own, told in the workflow's stream") {
  stage play;
  auto request = request_of(workflow_pattern::prompt_chaining);
  request.system_prompt = "Be brief.";
  request.model.model = "large";
  auto run = play.ask_for(request);
  REQUIRE(play.book().chats.size() == 1);
  const chat& asked = play.book().chats[0].request;
  CHECK(asked.conversation == "workflow_1.requirements");
  CHECK(asked.progress == "workflow_1");
  CHECK(asked.step == "requirements");
  CHECK(asked.role == "BusinessAnalyst");
  CHECK(asked.system_prompt == "Be brief.");
  CHECK(asked.model.model == "large");
  REQUIRE(asked.messages.size() == 1);
  CHECK(asked.messages[0].role == speaker::user);
  CHECK_FALSE(asked.execute);
}

TEST_CASE("Who plans and judges is asked as a model, with the role's prompt and window") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::orchestration));
  REQUIRE(play.book().calls.size() == 1);
  const ask_model& asked = play.book().calls[0].request;
  CHECK(asked.json);
  CHECK(asked.model.model == "tiny");
  CHECK(asked.model.base_url == "http://m");
  CHECK(asked.context_window == 4096);
  CHECK(asked.progress == "workflow_1");
  CHECK(asked.step == "plan");
  REQUIRE(asked.messages.size() == 2);
  CHECK(asked.messages[0].content == "You are OrchestratorAgent.");
}

TEST_CASE("The program that a model wrote is run by an agent without asking a model") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::vm_execution));
  play.answer("generate", "```python\nprint(1)\n```");
  REQUIRE(play.book().chats.size() == 1);
  CHECK(play.book().chats[0].request.execute);
  play.answer_chat("execute", {.text = "done", .results = "1", .session = "s-1"});
  REQUIRE(run.answered());
  CHECK(run.answer()->result == "1");
  CHECK(run.answer()->steps[1].session == "s-1");
}

TEST_CASE("A submission is answered when it is on disk, and no step begins before") {
  stage play;
  play.book().shelf.holds = true;
  auto submitted = play.ask_for(submission(workflow_pattern::prompt_chaining));
  CHECK_FALSE(submitted.answered());
  CHECK(play.asked().empty());
  play.let_go_one();
  REQUIRE(submitted.answered());
  CHECK(submitted.answer()->status == workflow_status::pending);
  CHECK(play.asked().empty()); // that the step is under way is not on disk
  while (!play.book().shelf.held.empty())
    play.let_go_one();
  CHECK(play.asked() == names{"requirements"});
}

TEST_CASE("Each step is on disk before the next one is asked for, and before it is told") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::prompt_chaining));
  play.book().shelf.holds = true;
  play.answer("requirements", "R");
  CHECK(play.asked().empty());
  CHECK(play.count(progress_kind::step_ended) == 0);
  while (!play.book().shelf.held.empty())
    play.let_go_one();
  CHECK(play.asked() == names{"architecture"});
  CHECK(play.count(progress_kind::step_ended) == 1);
}

TEST_CASE("The end is answered when it is on disk") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::vm_execution));
  play.answer("generate", "print(1)");
  play.book().shelf.holds = true;
  play.answer("execute", "1");
  CHECK_FALSE(run.answered());
  while (!play.book().shelf.held.empty())
    play.let_go_one();
  CHECK(run.answered());
}

TEST_CASE("A killed server's workflows go on with the next one from their last finished step") {
  auto pattern = any_pattern();
  stage play;
  auto submitted = play.ask_for(submission(pattern));
  std::string first = play.asked().front();
  play.answer(first, play.line_of(first));
  auto under_way = play.asked();
  play.close();
  play.book().chats.clear();
  play.book().calls.clear();
  play.open();
  CHECK(play.asked() == under_way);
  CHECK(play.count(progress_kind::resumed) == 1);
  auto now = play.ask_for(get_workflow{"workflow_1"});
  REQUIRE(now.answer());
  CHECK(now.answer()->resumed == 1);
  CHECK(now.answer()->steps.front().status == workflow_status::completed);
  CHECK(now.answer()->steps.back().attempt == 2);
  play.play_on();
  auto ended = play.ask_for(get_workflow{"workflow_1"});
  CHECK(ended.answer()->status == workflow_status::completed);
}

TEST_CASE("Where the settings say so a killed server's workflows are interrupted, until resumed") {
  workflow_settings settings{.on_restart = "interrupt"};
  stage play{settings};
  auto submitted = play.ask_for(submission(workflow_pattern::prompt_chaining));
  play.answer("requirements", "R");
  play.close();
  play.book().chats.clear();
  play.open();
  CHECK(play.asked().empty());
  auto now = play.ask_for(get_workflow{"workflow_1"});
  REQUIRE(now.answer());
  CHECK(now.answer()->status == workflow_status::interrupted);
  CHECK(play.count(progress_kind::ended) == 1);
  auto resumed = play.ask_for(resume_workflow{"workflow_1"});
  REQUIRE(resumed.answer());
  CHECK(resumed.answer()->status == workflow_status::running);
  CHECK(play.asked() == names{"architecture"});
  play.play_on();
  CHECK(play.ask_for(get_workflow{"workflow_1"}).answer()->status == workflow_status::completed);
  auto again = play.ask_for(resume_workflow{"workflow_1"});
  REQUIRE_FALSE(again.answer());
  CHECK(again.answer().error() == ec::conflict);
}

TEST_CASE("A server that drains answers who waits, and the next one goes on") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::parallelization));
  play.answer("perspective_0", "zero");
  auto drain_now = play.ask<drained>(play.workflows(), drain{});
  REQUIRE(drain_now.answered());
  REQUIRE(run.answered());
  REQUIRE_FALSE(run.answer());
  CHECK(run.answer().error() == ec::shutting_down);
  CHECK(play.book().cancelled.empty()); // its agents end with all others, as interrupted
  play.book().chats.clear();
  auto late = play.ask_for(request_of(workflow_pattern::routing, "workflow_2"));
  CHECK(late.answer().error() == ec::shutting_down);
  play.close();
  play.open();
  CHECK(play.asked() == names{"perspective_1", "perspective_2"});
  // The conversations of the attempts that were lost are closed; new ones are had.
  CHECK(play.book().closed == names{"workflow_1.perspective_1", "workflow_1.perspective_2"});
  CHECK(play.book().chats[0].request.conversation == "workflow_1.perspective_1.r2");
  play.play_on();
  CHECK(play.ask_for(get_workflow{"workflow_1"}).answer()->status == workflow_status::completed);
}

TEST_CASE("A cancel closes turns and calls, and is answered when all ended") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::parallelization));
  auto cancelled = play.ask_for(cancel_workflow{"workflow_1"});
  CHECK(play.book().cancelled.size() == 3);
  CHECK(play.asked().empty());
  REQUIRE(cancelled.answered());
  CHECK(cancelled.answer()->status == workflow_status::cancelled);
  REQUIRE(run.answered());
  CHECK(run.answer()->status == workflow_status::cancelled);
  for (const step_info& each : run.answer()->steps)
    CHECK(each.status == workflow_status::cancelled);
  auto again = play.ask_for(cancel_workflow{"workflow_1"});
  CHECK(again.answer()->status == workflow_status::cancelled);
  stage other;
  auto planned = other.ask_for(request_of(workflow_pattern::orchestration));
  other.ask_for(cancel_workflow{"workflow_1"});
  CHECK(other.book().cancelled == names{"workflow_1.0.1"});
  CHECK(planned.answer()->status == workflow_status::cancelled);
}

TEST_CASE("A cancel does not wait for ever for steps that do not end") {
  stage play;
  play.book().deaf = true;
  auto run = play.ask_for(request_of(workflow_pattern::parallelization));
  auto cancelled = play.ask_for(cancel_workflow{"workflow_1"});
  CHECK_FALSE(cancelled.answered());
  play.pass(limits::cancel_wait_max);
  REQUIRE(cancelled.answered());
  CHECK(cancelled.answer()->status == workflow_status::cancelled);
  CHECK(run.answered());
}

TEST_CASE("A paused workflow lets its step end and waits, over a restart too") {
  stage play;
  auto run = play.ask_for(submission(workflow_pattern::prompt_chaining));
  auto paused = play.ask_for(pause_workflow{"workflow_1"});
  REQUIRE(paused.answer());
  CHECK(paused.answer()->status == workflow_status::paused);
  play.answer("requirements", "R");
  CHECK(play.asked().empty());
  play.close();
  play.open();
  CHECK(play.asked().empty());
  CHECK(play.ask_for(get_workflow{"workflow_1"}).answer()->status == workflow_status::paused);
  auto resumed = play.ask_for(resume_workflow{"workflow_1"});
  CHECK(resumed.answer()->status == workflow_status::running);
  CHECK(play.asked() == names{"architecture"});
}

TEST_CASE("No more workflows run than the settings allow") {
  workflow_settings settings{.alive_max = 2};
  stage play{settings};
  auto one = play.ask_for(submission(workflow_pattern::routing, "workflow_1"));
  auto two = play.ask_for(submission(workflow_pattern::routing, "workflow_2"));
  auto three = play.ask_for(submission(workflow_pattern::routing, "workflow_3"));
  CHECK(two.answer());
  REQUIRE_FALSE(three.answer());
  CHECK(three.answer().error() == ec::no_capacity);
  CHECK(to_refusal(three.answer().error()).retry_after_ms);
  play.ask_for(cancel_workflow{"workflow_1"});
  CHECK(play.ask_for(submission(workflow_pattern::routing, "workflow_3")).answer());
}

TEST_CASE("The oldest ended workflows are forgotten, with their conversations") {
  workflow_settings settings{.kept_max = 2};
  stage play{settings};
  for (int i = 1; i <= 3; ++i) {
    auto run = play.ask_for(request_of(workflow_pattern::routing, "workflow_" + std::to_string(i)));
    play.play_on();
    REQUIRE(run.answered());
  }
  auto first = play.ask_for(get_workflow{"workflow_1"});
  REQUIRE_FALSE(first.answer());
  CHECK(first.answer().error() == ec::not_found);
  CHECK(play.book().closed == names{"workflow_1.complex_route"});
  CHECK(play.book().shelf.order == names{"workflow_2", "workflow_3"});
}

TEST_CASE("What cannot be recorded is refused, or ends when it runs already") {
  stage play;
  play.book().shelf.fails = true;
  auto refused = play.ask_for(submission(workflow_pattern::routing));
  REQUIRE_FALSE(refused.answer());
  CHECK(refused.answer().error() == ec::store_failed);
  play.book().shelf.fails = false;
  auto run = play.ask_for(request_of(workflow_pattern::parallelization, "workflow_2"));
  play.book().shelf.fails = true;
  play.answer("perspective_0", "zero");
  REQUIRE(run.answered());
  REQUIRE(run.answer());
  CHECK(run.answer()->status == workflow_status::failed);
  CHECK(has(run.answer()->error, "the disk is full"));
  CHECK(play.asked().empty());
}

TEST_CASE("When nobody plays agents any more, steps fail and the run is answered") {
  stage play;
  auto run = play.ask_for(request_of(workflow_pattern::prompt_chaining));
  play.stop(play.parts().agents);
  auto next = play.ask_for(request_of(workflow_pattern::prompt_chaining, "workflow_2"));
  REQUIRE(next.answered());
  CHECK(next.answer()->status == workflow_status::failed);
}

TEST_CASE("A step for which there is no place waits for one, but not for ever") {
  stage play;
  play.book().full = true;
  auto chain = play.ask_for(request_of(workflow_pattern::prompt_chaining));
  auto plan = play.ask_for(request_of(workflow_pattern::orchestration, "workflow_2"));
  play.pass(limits::step_pause_min);
  CHECK(play.asked().empty());
  play.book().full = false;
  play.pass(limits::step_pause_max);
  CHECK(play.asked() == names{"requirements", "plan"});
  play.book().full = true;
  play.answer("requirements", "R");
  for (std::uint32_t i = 0; i < limits::step_tries_max; ++i)
    play.pass(limits::step_pause_max);
  REQUIRE(chain.answered());
  CHECK(has(chain.answer()->error, "too many turns"));
  auto again = play.ask_for(request_of(workflow_pattern::prompt_chaining, "workflow_3"));
  auto cancelled = play.ask_for(cancel_workflow{"workflow_3"});
  play.pass(limits::step_pause_max);
  REQUIRE(cancelled.answered());
  CHECK(again.answer()->status == workflow_status::cancelled);
}

TEST_CASE("Requests about what is not there say so") {
  stage play;
  for (auto answer :
       {play.ask_for(get_workflow{"workflow_x"}), play.ask_for(cancel_workflow{"workflow_x"}),
        play.ask_for(pause_workflow{"workflow_x"}), play.ask_for(resume_workflow{"workflow_x"})})
    CHECK(answer.answer().error() == ec::not_found);
  auto run = play.ask_for(submission(workflow_pattern::routing));
  CHECK(play.ask_for(submission(workflow_pattern::routing)).answer().error() == ec::already_exists);
  run_workflow wrong = request_of(workflow_pattern::routing, "workflow_2");
  wrong.prompt.clear();
  CHECK(play.ask_for(wrong).answer().error() == ec::malformed);
  play.play_on();
  CHECK(play.ask_for(pause_workflow{"workflow_1"}).answer().error() == ec::conflict);
}

TEST_CASE("Lists have the newest first, without steps, and the alive ones alone when asked") {
  stage play;
  for (int i = 1; i <= 3; ++i)
    play.ask_for(submission(workflow_pattern::routing, "workflow_" + std::to_string(i)));
  play.ask_for(cancel_workflow{"workflow_2"});
  auto list = [&](list_workflows request) {
    auto asked = play.ask<workflow_list>(play.workflows(), request);
    names ids;
    for (const workflow_info& each : asked.answer()->workflows) {
      CHECK(each.steps.empty());
      ids.push_back(each.workflow);
    }
    return ids;
  };
  CHECK(list({}).size() == 3);
  CHECK(list({.alive_only = true}).size() == 2);
  CHECK(list({.limit = 1}) == names{"workflow_3"});
  play.close();
  play.open();
  CHECK(list({}).size() == 3);
}

TEST_CASE("A record that is damaged costs what came after it, not the workflow") {
  stage play;
  auto run = play.ask_for(submission(workflow_pattern::prompt_chaining));
  for (const char* each : {"requirements", "architecture", "planning"})
    play.answer(each, std::string{"result of "} + each);
  play.close();
  play.book().chats.clear();
  play.book().shelf.all.erase({"workflow_1", 2});
  play.open();
  CHECK(play.asked() == names{"architecture"});
}
