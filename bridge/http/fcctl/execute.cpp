// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"
#include "config/languages.hpp"

namespace berth::http::fcctl {

namespace {

constexpr double threshold_default = 0.7;
/// Programs of one text that are run; more are named among the errors.
constexpr std::size_t runs_max = 64;
constexpr std::uint64_t task_timeout_ms = 60'000;

void execute(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto asked = read_execute(*body, c->values);
  if (!asked)
    return done(malformed_reply(asked.why()));
  run job = asked->job;
  c->gateway.ask<outcome>(std::move(job),
                          [done, asked = std::move(*asked)](expected<outcome> answer) {
                            if (!answer)
                              return done(error_reply(answer.error()));
                            done(outcome_reply(*answer, asked));
                          });
}

/// What is gathered while the programs of one request run.
struct gathering {
  parsed_text text;
  json results = json::array();
  std::string output;
  bool failed = false;
};

void parse_execute(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto text = read_parse_execute(*body, c->values);
  if (!text)
    return done(malformed_reply(text.why()));
  auto all = std::make_shared<gathering>();
  all->text = std::move(*text);
  auto jobs = std::move(all->text.jobs);
  run_in_order(
      c, std::move(jobs),
      [all](const execute_request& asked, expected<outcome> answer) {
        if (!answer)
          all->text.errors.push_back("Failed to execute " + asked.job.language
                                     + " code: " + to_refusal(answer.error()).detail);
        else if (answer->state == job_state::blocked)
          all->text.errors.push_back("Validation failed for " + asked.job.language + " code: "
                                     + blocked_text(answer->verdict.reasons, answer->detail));
        else
          all->results.push_back(execute_response(*answer, asked));
      },
      [all, done] {
        json blocks = json::array();
        for (const auto& block : all->text.blocks)
          blocks.push_back(block_json(block));
        done(json_reply({{"code_blocks", blocks},
                         {"execution_results", all->results},
                         {"execution_intent", intent_json(all->text.intent)},
                         {"errors", all->text.errors}}));
      });
}

/// The programs of a task: what its fences hold, else the task itself as a shell command.
decoded<std::vector<execute_request>> read_task(const json& body, const settings& values) {
  auto task = read_text_member(body, "task");
  if (!task)
    return task.why();
  if (task->empty())
    return malformed{"task", "is missing"};
  json plain = body;
  if (!plain.contains("timeout_ms") && !plain.contains("timeout_seconds"))
    plain["timeout_ms"] = task_timeout_ms;
  std::vector<execute_request> jobs;
  auto add = [&](const std::string& language, const std::string& code) -> std::optional<malformed> {
    plain["language"] = language;
    plain["code"] = code;
    auto one = read_execute(plain, values);
    if (!one)
      return one.why();
    jobs.push_back(std::move(*one));
    return std::nullopt;
  };
  for (const auto& block : find_code(*task, runs_max))
    if (!block.in_line && canonical_language(block.language))
      if (auto why = add(block.language, block.code))
        return *why;
  if (jobs.empty())
    if (auto why = add("bash", *task))
      return *why;
  return jobs;
}

void execute_task(const shared_context& c, const request& what, const responder& done) {
  auto body = read_body(what);
  if (!body)
    return done(malformed_reply(body.why()));
  auto jobs = read_task(*body, c->values);
  if (!jobs)
    return done(malformed_reply(jobs.why()));
  struct task_state {
    json answer;
    std::string result;
    std::int64_t started = now_ms();
    std::optional<reply> refused;
  };
  auto task = std::make_shared<task_state>();
  const execute_request& first = jobs->front();
  task->answer = {{"agent_id", first.job.agent_id},
                  {"status", "completed"},
                  {"vm_id", nullptr},
                  {"task_id", ""},
                  {"snapshot_id", nullptr},
                  {"error", nullptr},
                  {"exit_code", 0}};
  run_in_order(
      c, std::move(*jobs),
      [task](const execute_request& asked, expected<outcome> answer) {
        if (!answer) {
          task->refused = error_reply(answer.error());
          return;
        }
        if (answer->state == job_state::blocked) {
          task->refused = outcome_reply(*answer, asked);
          return;
        }
        task->result += to_utf8({answer->stdout_data.data(), answer->stdout_data.size()});
        task->result += to_utf8({answer->stderr_data.data(), answer->stderr_data.size()});
        task->answer["task_id"] = answer->job;
        task->answer["vm_id"] = answer->machine;
        std::int32_t code = exit_code_of(*answer);
        if (code == 0)
          return;
        task->answer["status"] = "failed";
        task->answer["exit_code"] = code;
        json why = error_of(*answer);
        task->answer["error"] =
            why.is_null() ? json("Execution failed: exit code " + std::to_string(code)) : why;
      },
      [task, done] {
        if (task->refused)
          return done(*task->refused);
        std::int64_t ended = now_ms();
        task->answer["result"] = task->result;
        task->answer["duration_ms"] = std::max<std::int64_t>(ended - task->started, 0);
        task->answer["started_at"] = to_rfc3339(task->started);
        task->answer["completed_at"] = to_rfc3339(ended);
        done(json_reply(task->answer));
      });
}

} // namespace

reply outcome_reply(const outcome& ended, const execute_request& asked) {
  json body = execute_response(ended, asked);
  if (ended.state != job_state::blocked)
    return json_reply(body);
  body.update(error_body(name_of(ec::rejected), blocked_text(ended.verdict.reasons, ended.detail)));
  return json_reply(body, 400);
}

void run_in_order(const shared_context& c, std::vector<execute_request> jobs,
                  std::function<void(const execute_request&, expected<outcome>)> each,
                  std::function<void()> finished) {
  struct queue : std::enable_shared_from_this<queue> {
    shared_context c;
    std::vector<execute_request> jobs;
    std::function<void(const execute_request&, expected<outcome>)> each;
    std::function<void()> finished;
    std::size_t next = 0;

    void go_on() {
      if (next == jobs.size())
        return finished();
      run job = jobs[next].job;
      c->gateway.ask<outcome>(std::move(job),
                              [self = shared_from_this()](expected<outcome> answer) {
                                self->each(self->jobs[self->next++], std::move(answer));
                                self->go_on();
                              });
    }
  };
  auto all = std::make_shared<queue>();
  all->c = c;
  all->jobs = std::move(jobs);
  all->each = std::move(each);
  all->finished = std::move(finished);
  all->go_on();
}

decoded<parsed_text> read_parse_execute(const json& body, const settings& values) {
  auto text = read_text_member(body, "llm_response");
  if (!text)
    return text.why();
  if (!body.contains("llm_response") || body["llm_response"].is_null())
    return malformed{"llm_response", "is missing"};
  bool execute = false;
  if (auto wish = body.find("auto_execute"); wish != body.end() && !wish->is_null()) {
    if (!wish->is_boolean())
      return malformed{"auto_execute", "must be true or false, is " + detail::kind_of(*wish)};
    execute = wish->get<bool>();
  }
  double threshold = threshold_default;
  if (auto wish = body.find("auto_execute_threshold"); wish != body.end() && !wish->is_null()) {
    if (!wish->is_number())
      return malformed{"auto_execute_threshold", "must be a number, is " + detail::kind_of(*wish)};
    threshold = std::clamp(wish->get<double>(), 0.0, 1.0);
  }
  json common = json::object();
  for (const char* name : {"agent_id", "vm_id", "timeout_ms", "timeout_seconds", "working_dir"})
    if (auto member = body.find(name); member != body.end())
      common[name] = *member;
  if (auto config = body.find("vm_config"); config != body.end() && config->is_object())
    for (const char* name : {"vm_id", "vm_type", "memory_mib"})
      if (auto member = config->find(name); member != config->end())
        common[name] = *member;
  parsed_text made;
  made.blocks = find_code(*text);
  made.intent = find_intent(*text, !made.blocks.empty());
  common["language"] = "python";
  common["code"] = "pass";
  if (auto valid = read_execute(common, values); !valid)
    return valid.why();
  for (const auto& block : made.blocks) {
    constexpr double grain = 1e-9;
    if (!execute || block.confidence + grain < threshold)
      continue;
    if (!canonical_language(block.language)) {
      made.errors.push_back("Language not supported: " + block.language);
      continue;
    }
    if (made.jobs.size() == runs_max) {
      made.errors.push_back("only the first " + std::to_string(runs_max) + " programs were run");
      break;
    }
    common["language"] = block.language;
    common["code"] = block.code;
    auto job = read_execute(common, values);
    if (!job)
      return job.why();
    made.jobs.push_back(std::move(*job));
  }
  return made;
}

void add_execute_routes(router& routes, const shared_context& c) {
  routes.post("/api/llm/execute",
              [c](const request& what, const responder& done) { execute(c, what, done); });
  routes.post("/api/llm/parse-execute",
              [c](const request& what, const responder& done) { parse_execute(c, what, done); });
  routes.post("/api/vm/agent/execute",
              [c](const request& what, const responder& done) { execute_task(c, what, done); });
}

} // namespace berth::http::fcctl
