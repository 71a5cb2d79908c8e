// SPDX-License-Identifier: Apache-2.0
#include "app/workflow_tree.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

/// A workflow told event by event, a second apart.
class story {
public:
  story& tell(progress_kind kind, std::string step = {}, std::string name = {},
              std::string text = {}, std::uint64_t tokens = 0) {
    progress_event event;
    event.id = "workflow_1";
    event.kind = kind;
    event.at_ms = clock_ += 1000;
    event.step = std::move(step);
    event.name = std::move(name);
    event.text = std::move(text);
    event.job = job_;
    total_.output_tokens += tokens;
    event.usage = total_;
    tree_.take(event);
    return *this;
  }
  story& job(std::string id) { return job_ = std::move(id), *this; }

  std::vector<std::string> lines(std::size_t output_lines = 2) const {
    std::vector<std::string> all;
    for (const workflow_line& each : tree_.draw(clock_, output_lines))
      all.push_back(each.rails + each.text);
    return all;
  }
  const workflow_tree& tree() const { return tree_; }

private:
  workflow_tree tree_;
  std::int64_t clock_ = 0;
  model_usage total_;
  std::string job_;
};

} // namespace

TEST_CASE("Steps stand below their workflow with status, role, tokens and time") {
  story it;
  it.tell(progress_kind::started, "", "parallelization")
      .tell(progress_kind::step_started, "a", "analytical", "BusinessAnalyst")
      .tell(progress_kind::step_started, "b", "creative", "Writer")
      .tell(progress_kind::step_ended, "a", "completed", "text", 40)
      .tell(progress_kind::step_ended, "b", "failed", "no\nconnection", 2);
  CHECK(it.lines()
        == std::vector<std::string>{
            "workflow_1  parallelization  running    0%  42 tokens  4.0 s",
            "├─ ✓ analytical  (BusinessAnalyst)  40 tokens  2.0 s",
            "└─ ✗ creative  (Writer)  2 tokens  2.0 s  no",
        });
}

TEST_CASE("A step under way shows the end of what it says, without control characters") {
  story it;
  it.tell(progress_kind::started, "", "routing").tell(progress_kind::step_started, "a", "one");
  for (const char* piece : {"first\nsec", "ond\n\n\x1b[2Jthi", "rd"})
    it.tell(progress_kind::token, "a", "", piece);
  auto lines = it.lines();
  REQUIRE(lines.size() == 4);
  CHECK(lines[2] == "     second");
  CHECK(lines[3].find("third") != std::string::npos);
  CHECK(lines[3].find('\x1b') == std::string::npos);
  it.tell(progress_kind::step_ended, "a", "completed");
  CHECK(it.lines().size() == 2);
}

TEST_CASE("Programs stand below their step with how they ended") {
  story it;
  it.tell(progress_kind::started, "", "vm_execution").tell(progress_kind::step_started, "a", "run");
  it.job("j1").tell(progress_kind::code, "a", "python", "print(1)\nprint(2)");
  it.tell(progress_kind::output, "a", "stdout", "1\n2\n");
  CHECK(it.lines().back() == "     2");
  it.tell(progress_kind::code_ended, "a", "exited");
  CHECK(it.lines()[2] == "     python: print(1) → exited");
}

TEST_CASE("The end is known with what came of it") {
  story it;
  it.tell(progress_kind::started, "", "routing");
  CHECK_FALSE(it.tree().ended());
  it.tell(progress_kind::paused);
  CHECK(it.tree().status() == workflow_status::paused);
  it.tell(progress_kind::resumed).tell(progress_kind::ended, "", "failed", "it broke");
  CHECK(it.tree().ended());
  CHECK(it.tree().outcome_text() == "it broke");
}

TEST_CASE("A workflow as it is now is drawn like one that was watched") {
  workflow_info info;
  info.workflow = "workflow_1";
  info.pattern = workflow_pattern::optimization;
  info.status = workflow_status::completed;
  info.progress = 100;
  info.started_at_ms = 1000;
  info.ended_at_ms = 5000;
  info.usage.output_tokens = 7;
  step_info judged;
  judged.id = "evaluate_1";
  judged.name = "Evaluation 1";
  judged.status = workflow_status::completed;
  judged.score = 8.5;
  judged.started_at_ms = 2000;
  judged.ended_at_ms = 3500;
  info.steps = {judged};
  workflow_tree tree;
  tree.take(info);
  auto lines = tree.draw(0, 3);
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].text == "workflow_1  optimization  completed  100%  7 tokens  4.0 s");
  CHECK(lines[1].text == "✓ Evaluation 1  1.5 s");
  CHECK(lines[2].text == "score 8.5");
}
