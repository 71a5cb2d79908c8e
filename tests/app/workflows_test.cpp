// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/model_server.hpp"
#include "tests/support/skip.hpp"

#include <algorithm>
#include <csignal>
#include <set>
#include <sstream>

using namespace berth::test;
using nlohmann::json;

namespace {

json settings_with(const model_server& models, const json& more = json::object()) {
  json made{{"models", {{{"base_url", models.url()}, {"model", "scripted"}, {"calls_max", 32}}}},
            {"pool", {{"slots_max", 16}, {"warm", {{"python", 1}, {"bash", nullptr}}}}}};
  made.merge_patch(more);
  return made;
}

/// A server whose models are played by a script.
struct rig {
  explicit rig(const json& script, const json& more = json::object())
    : models(script)
    , more_settings(more)
    , serving(std::make_unique<server>(home, settings_with(models, more))) {}

  /// The server is killed and another one begins with what is on disk.
  void kill_and_restart() {
    serving->program().signal(SIGKILL);
    serving->program().wait();
    serving = std::make_unique<server>(home, settings_with(models, more_settings));
  }

  /// Runs a workflow by the command line to its end; what it is then.
  json run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"workflow", "run", "--json"});
    auto done = serving->cli(std::move(arguments));
    INFO(done.out << done.err);
    REQUIRE(!done.out.empty());
    auto from = done.out.rfind('\n', done.out.size() - 2);
    json last = json::parse(done.out.substr(from + 1), nullptr, false);
    REQUIRE(last.contains("steps"));
    return last;
  }
  /// Starts one and leaves it running; its id.
  std::string start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"workflow", "run", "-d"});
    auto done = serving->cli(std::move(arguments));
    INFO(done.err);
    REQUIRE(done.code == 0);
    return done.out.substr(0, done.out.find('\n'));
  }
  json status(const std::string& id) {
    auto done = serving->cli({"workflow", "status", "--json", id});
    INFO(done.err);
    REQUIRE(done.code == 0);
    return json::parse(done.out);
  }
  json act(const std::string& verb, const std::string& id) {
    auto done = serving->cli({"workflow", verb, "--json", id});
    INFO(done.err);
    REQUIRE(done.code == 0);
    return json::parse(done.out);
  }
  json end_of(const std::string& id) {
    REQUIRE(eventually([&] { return status(id)["ended_at_ms"] > 0; }));
    return status(id);
  }
  bool holds(int count) {
    return eventually([&] { return models.state()["held"] == count; });
  }
  std::string file(const std::string& name, const json& content) {
    std::string path = home.path() + "/" + name;
    write_file(path, content.dump());
    return path;
  }

  model_server models;
  server_home home;
  json more_settings;
  std::unique_ptr<server> serving;
};

json rule(const std::string& part, const std::string& text) {
  return {{"when", {{"last", part}}}, {"reply", {{"text", text}}}};
}

json step(const json& info, const std::string& id) {
  for (const json& each : info["steps"])
    if (each["id"] == id)
      return each;
  return nullptr;
}

/// What a model was asked last in each request that has a part in it.
std::vector<std::string> asked_with(const model_server& models, const std::string& part) {
  std::vector<std::string> found;
  for (const json& each : models.requests()) {
    if (!each.contains("body") || !each["body"].contains("messages"))
      continue;
    std::string last = each["body"]["messages"].back().value("content", "");
    if (last.find(part) != std::string::npos)
      found.push_back(last);
  }
  return found;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

json evaluation(double score, const std::string& feedback) {
  return json{{"score", score}, {"feedback", feedback}};
}

json two_steps() {
  return {{{"id", "draft"}, {"prompt", "Draft it."}, {"role", "BusinessAnalyst"}},
          {{"id", "polish"}, {"prompt", "Polish it."}, {"role", "TechnicalWriter"}}};
}

} // namespace

TEST_CASE("Workflow: each step of a chain is given the whole output of the one before") {
  NEEDS_SERVER();
  std::string draft = "DRAFT " + std::string(3000, 'd') + " END";
  rig play{{{"rules", {rule("Your step: draft", draft), rule("Your step: polish", "POLISHED")}}}};
  auto done = play.serving->cli({"workflow", "run", "chain", "Write a song", "--steps",
                                 play.file("steps.json", two_steps())});
  INFO(done.err);
  CHECK(done.code == 0);
  CHECK(done.out == "POLISHED\n");
  CHECK(has(done.err, "draft: started, by BusinessAnalyst"));
  auto asked = asked_with(play.models, "Your step: polish");
  REQUIRE(asked.size() == 1);
  CHECK(has(asked[0], draft));
  CHECK(has(asked[0], "Write a song"));
}

TEST_CASE("Workflow: feedback is really fed back, and the best version is what comes of it") {
  NEEDS_SERVER();
  rig play{{{"rules",
             {{{"when", {{"last", "Judge how well"}}},
               {"replies",
                {{{"text", evaluation(4, "it lacks a RHYME").dump()}},
                 {{"text", evaluation(7, "more COLOUR").dump()}},
                 {{"text", evaluation(5, "worse").dump()}}}}},
              {{"when", {{"last", "Do the task."}}}, {"reply", {{"text", "VERSION-ONE"}}}},
              rule("lacks a RHYME", "VERSION-TWO"),
              rule("more COLOUR", "VERSION-THREE")}}}};
  auto info = play.run({"optimize", "Write a song"});
  CHECK(info["status"] == "completed");
  CHECK(info["result"] == "VERSION-TWO");
  CHECK(info["chosen"] == "generate_2");
  CHECK(step(info, "evaluate_2")["score"] == 7.0);
  auto second = asked_with(play.models, "it lacks a RHYME");
  REQUIRE(!second.empty());
  CHECK(has(second[0], "VERSION-ONE"));
  auto third = asked_with(play.models, "more COLOUR");
  REQUIRE(!third.empty());
  CHECK(has(third[0], "VERSION-TWO"));
}

TEST_CASE("Workflow: branches are under way at once, and one that fails does not lose the others") {
  NEEDS_SERVER();
  json held = rule("Your part: ", "an ANSWER");
  held["reply"]["hold"] = "branches";
  json failing{{"when", {{"last", "Your part: creative"}}},
               {"reply", {{"status", 400}, {"error", "no creativity"}}}};
  rig play{{{"rules", {failing, held, rule("Join the outputs", "JOINED {{last}}")}}}};
  auto id = play.start({"parallel", "Think"});
  // Both others wait for their answer at the same time: neither waits for the other.
  REQUIRE(play.holds(2));
  play.models.release("branches");
  auto info = play.end_of(id);
  CHECK(info["status"] == "completed");
  CHECK(step(info, "perspective_1")["status"] == "failed");
  CHECK(step(info, "perspective_0")["output"] == "an ANSWER");
  CHECK(has(info["result"], "creative failed"));
}

TEST_CASE("Workflow: votes are asked at once and the majority's answer is taken") {
  NEEDS_SERVER();
  rig play{{{"rules",
             {{{"when", {{"last", "ANSWER:"}}},
               {"replies",
                {{{"text", "ANSWER: 42"}, {"hold", "votes"}},
                 {{"text", "ANSWER: 41"}, {"hold", "votes"}},
                 {{"text", "So.\nAnswer: **42**"}, {"hold", "votes"}},
                 {{"text", "ANSWER: 42."}, {"hold", "votes"}},
                 {{"text", "ANSWER: 40"}, {"hold", "votes"}}}}}}}}};
  auto id = play.start({"parallel", "What is 6 x 7?", "--votes", "5"});
  REQUIRE(play.holds(5));
  play.models.release("votes");
  auto info = play.end_of(id);
  CHECK(info["status"] == "completed");
  CHECK(has(info["result"], "42"));
  CHECK(step(info, info["chosen"])["reason"] == "42");
}

TEST_CASE("Workflow: a model chooses the route; where it does not, words and length do") {
  NEEDS_SERVER();
  json route{{"route", "SecurityAnalyst"}, {"confidence", 0.9}, {"reason", "it is about a leak"}};
  rig play{{{"rules",
             {{{"when", {{"last", "Choose the route"}}},
               {"replies", {{{"text", "```json\n" + route.dump() + "\n```"}}, {{"text", "?"}}}}},
              {{"when", {{"last", "leak"}}}, {"reply", {{"text", "by {{system}}"}}}}}}}};
  auto info = play.run({"route", "Our keys leak"});
  CHECK(info["chosen"] == "SecurityAnalyst");
  CHECK(step(info, "classify")["confidence"] == 0.9);
  CHECK(step(info, "SecurityAnalyst")["role"] == "SecurityAnalyst");
  CHECK(has(step(info, "SecurityAnalyst")["reason"], "it is about a leak"));
  auto fallback = play.run({"route", "A leak?"});
  CHECK(fallback["status"] == "completed");
  CHECK(json::parse(step(fallback, "classify")["output"].get<std::string>())["method"]
        == "keyword_and_length_based");
}

TEST_CASE("Workflow: a plan is data, mended once, and what the workers get; needs are respected") {
  NEEDS_SERVER();
  auto worker = [](const char* id, json needs) {
    return json{{"id", id},
                {"name", id},
                {"task", std::string{"TASK-"} + id},
                {"role", "BusinessAnalyst"},
                {"depends_on", std::move(needs)}};
  };
  json bad{{"workers", {worker("a", {"nobody"})}}};
  json good{{"strategy", "STRATEGY"},
            {"workers",
             {worker("a", json::array()), worker("b", json::array()), worker("c", {"a", "b"})}}};
  json held = rule("Your task: ", "OUTPUT {{last}}");
  held["reply"]["hold"] = "workers";
  rig play{
      {{"rules",
        {rule("cannot be used", good.dump()), rule("Plan how workers", bad.dump()),
         rule("Your task: c", "OUTPUT-C"), rule("one answer to the task", "SYNTHESIS"), held}}}};
  auto id = play.start({"orchestrate", "Build it"});
  REQUIRE(play.holds(2)); // a and b at once, c not yet
  play.models.release("workers");
  auto info = play.end_of(id);
  CHECK(info["status"] == "completed");
  CHECK(info["result"] == "SYNTHESIS");
  CHECK(has(step(info, "plan")["error"], "depends on nobody"));
  auto c = asked_with(play.models, "Your task: c");
  REQUIRE(c.size() == 1);
  CHECK(has(c[0], "STRATEGY"));
  CHECK(has(c[0], "TASK-b"));
  CHECK(has(c[0], "OUTPUT"));
}

TEST_CASE("Workflow: a model's program really runs") {
  NEEDS_SERVER();
  rig play{{{"rules", {rule("", "```python\nprint(6 * 7)\n```")}}}};
  auto info = play.run({"execute", "Print the answer"});
  CHECK(info["status"] == "completed");
  CHECK(has(info["result"], "42"));
  json acts = step(info, "execute")["acts"];
  REQUIRE(acts.size() == 1);
  CHECK(acts[0]["ended"]["exit_code"] == 0);
  CHECK(asked_with(play.models, "").size() == 1); // what it wrote goes to no model again
}

TEST_CASE("Workflow: a server killed in the middle of any pattern comes to the same end") {
  NEEDS_SERVER();
  struct scene {
    std::vector<std::string> run;
    json rules;
    std::string first; // the step that is finished before
  };
  json steps = two_steps();
  json held_polish = rule("Your step: polish", "END");
  json held_route = rule("leak", "END");
  json held_join = rule("Join the outputs", "END");
  json held_synthesis = rule("one answer to the task", "END");
  json held_evaluation = rule("Judge how well", evaluation(9, "fine").dump());
  json plan{{"workers", {{{"id", "a"}, {"task", "A"}, {"role", "BusinessAnalyst"}}}}};
  // What is let go once is never held again.
  held_polish["reply"]["hold"] = "chain";
  held_route["reply"]["hold"] = "route";
  held_join["reply"]["hold"] = "parallel";
  held_synthesis["reply"]["hold"] = "orchestrate";
  held_evaluation["reply"]["hold"] = "optimize";
  const std::vector<scene> scenes{
      {{"chain", "Write"}, {held_polish, rule("Your step: draft", "DRAFT")}, "draft"},
      {{"route", "A leak"},
       {rule("Choose the route", json{{"route", "QAEngineer"}}.dump()), held_route},
       "classify"},
      {{"parallel", "Think"}, {held_join, rule("Your part", "PART")}, "perspective_0"},
      {{"orchestrate", "Build"},
       {rule("Plan how workers", plan.dump()), held_synthesis, rule("Your task: a", "A DONE")},
       "a"},
      {{"optimize", "Write"}, {held_evaluation, rule("Do the task", "END")}, "generate_1"}};
  rig play{json::object()};
  std::string file = play.file("steps.json", steps);
  for (const scene& each : scenes) {
    INFO(each.run[0]);
    play.models.play({{"rules", each.rules}});
    auto run = each.run;
    if (run[0] == "chain")
      run.insert(run.end(), {"--steps", file});
    auto id = play.start(run);
    REQUIRE(play.holds(1));
    REQUIRE(step(play.status(id), each.first)["status"] == "completed");
    play.models.forget();
    play.kill_and_restart();
    REQUIRE(play.holds(1));
    play.models.release(each.run[0]);
    auto info = play.end_of(id);
    CHECK(info["status"] == "completed");
    CHECK(info["result"] == "END");
    CHECK(info["resumed"] == 1);
    // What was finished is not asked for again; what was under way is its second attempt.
    CHECK(step(info, each.first)["attempt"] == 1);
    CHECK(info["steps"].back()["attempt"] == 2);
    auto asked = asked_with(play.models, "");
    CHECK(std::set<std::string>(asked.begin(), asked.end()).size() == 1);
  }
}

TEST_CASE(
    "Workflow: nothing that was acknowledged is lost when the server is killed again and again") {
  NEEDS_SERVER();
  json slow = rule("", "DONE");
  slow["reply"]["first_delay_ms"] = 30;
  rig play{{{"rules", {slow}}}};
  std::string file = play.file("steps.json", two_steps());
  std::set<std::string> acknowledged;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i)
      acknowledged.insert(play.start({"chain", "Write", "--steps", file}));
    play.kill_and_restart();
  }
  for (const std::string& id : acknowledged) {
    auto info = play.end_of(id);
    CHECK(info["status"] == "completed");
    CHECK(info["result"] == "DONE");
  }
  auto list = play.serving->cli({"workflow", "ls", "--json"});
  CHECK(json::parse(list.out)["workflows"].size() == acknowledged.size());
}

TEST_CASE("Workflow: where the settings say so one that ran is marked interrupted, and resumed on "
          "demand") {
  NEEDS_SERVER();
  json held = rule("Your step: polish", "END");
  held["reply"]["hold"] = "last";
  rig play{{{"rules", {held, rule("Your step: draft", "DRAFT")}}},
           {{"workflows", {{"on_restart", "interrupt"}}}}};
  auto id = play.start({"chain", "Write", "--steps", play.file("steps.json", two_steps())});
  REQUIRE(play.holds(1));
  play.kill_and_restart();
  CHECK(play.status(id)["status"] == "interrupted");
  CHECK(play.act("resume", id)["status"] == "running");
  play.models.release("last");
  CHECK(play.end_of(id)["result"] == "END");
}

TEST_CASE("Workflow: a server that ends cleanly leaves it to the next") {
  NEEDS_SERVER();
  json held = rule("Your step: polish", "END");
  held["reply"]["hold"] = "last";
  rig play{{{"rules", {held, rule("Your step: draft", "DRAFT")}}}};
  auto waiting = play.serving->cli_process(
      {"workflow", "run", "chain", "Write", "--steps", play.file("steps.json", two_steps())});
  REQUIRE(play.holds(1));
  play.serving->program().signal(SIGTERM);
  CHECK(play.serving->program().wait() == 0);
  CHECK(eventually([&] { return play.models.state()["open"] == 0; }));
  play.serving = std::make_unique<server>(play.home, settings_with(play.models));
  play.models.release("last");
  auto list = json::parse(play.serving->cli({"workflow", "ls", "--json"}).out);
  REQUIRE(list["workflows"].size() == 1);
  CHECK(play.end_of(list["workflows"][0]["workflow"])["result"] == "END");
  waiting->signal(SIGKILL);
}

TEST_CASE("Workflow: a cancel closes the calls of models and ends programs") {
  NEEDS_SERVER();
  json held = rule("Your part", "PART");
  held["reply"]["hold"] = "for ever";
  rig play{{{"rules", {held, rule("Wait long", "```python\nimport time\ntime.sleep(600)\n```")}}}};
  auto id = play.start({"parallel", "Think"});
  REQUIRE(play.holds(3));
  CHECK(play.act("cancel", id)["status"] == "cancelled");
  CHECK(eventually([&] { return play.models.state()["open"] == 0; }));
  auto runs = play.start({"execute", "Wait long"});
  auto jobs = [&] { return json::parse(play.serving->cli({"ps", "--json"}).out)["jobs"].size(); };
  REQUIRE(eventually([&] { return jobs() == 1; }));
  CHECK(play.act("cancel", runs)["status"] == "cancelled");
  CHECK(eventually([&] { return jobs() == 0; }));
}

TEST_CASE("Workflow: a paused one lets its step end, begins none, and goes on when it is resumed") {
  NEEDS_SERVER();
  json held = rule("Your step: draft", "DRAFT");
  held["reply"]["hold"] = "draft";
  rig play{{{"rules", {held, rule("Your step: polish", "END")}}}};
  auto id = play.start({"chain", "Write", "--steps", play.file("steps.json", two_steps())});
  REQUIRE(play.holds(1));
  CHECK(play.act("pause", id)["status"] == "paused");
  play.models.release("draft");
  REQUIRE(eventually([&] { return step(play.status(id), "draft")["status"] == "completed"; }));
  CHECK(play.status(id)["status"] == "paused");
  CHECK(asked_with(play.models, "Your step: polish").empty());
  play.kill_and_restart();
  CHECK(play.status(id)["status"] == "paused");
  play.act("resume", id);
  CHECK(play.end_of(id)["result"] == "END");
}

TEST_CASE("Workflow: the command line tells of each step, and says how it ended by its exit code") {
  NEEDS_SERVER();
  rig play{{{"rules",
             {{{"when", {{"last", "Your step: draft"}}},
               {"reply", {{"status", 400}, {"error", "out of ink"}}}}}}}};
  auto done = play.serving->cli(
      {"workflow", "run", "chain", "Write", "--steps", play.file("steps.json", two_steps())});
  CHECK(done.code == 1);
  CHECK(done.out.empty());
  CHECK(has(done.err, "draft: failed"));
  CHECK(has(done.err, "out of ink"));
  CHECK(play.serving->cli({"workflow", "run", "dance", "x"}).code == 125);
  auto unknown = play.serving->cli({"workflow", "status", "workflow_x"});
  CHECK(unknown.code == 125);
  CHECK(has(unknown.err, "workflow_x"));
}
