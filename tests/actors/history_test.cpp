// SPDX-License-Identifier: Apache-2.0
#include "actors/history.hpp"
#include "tests/support/temp_dir.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>

#include <chrono>
#include <cstdio>
#include <map>

using namespace berth;
using namespace std::chrono_literals;

namespace {

/// A system and a HISTORY on a journal of its own directory.
class fixture {
public:
  fixture() {
    config_.set("scheduler.policy", caf::atom("sharing"));
    config_.add_message_types<caf::id_block::berth_errors>();
    config_.add_message_types<caf::id_block::berth_messages>();
    config_.add_message_types<caf::id_block::berth_actors>();
    values_.data_dir = dir_.path();
    system_ = std::make_unique<caf::actor_system>(config_);
  }

  ~fixture() { stop(); }

  history_actor& start() {
    auto opened = journal::open(values_);
    REQUIRE(opened);
    recovered_ = opened->recovered();
    auto spawned = spawn_history(*system_, std::move(*opened), values_);
    REQUIRE(spawned);
    history_ = *spawned;
    return history_;
  }

  void stop() {
    if (!history_)
      return;
    caf::scoped_actor self{*system_};
    caf::anon_send_exit(history_, caf::exit_reason::user_shutdown);
    self->wait_for(history_);
    history_ = nullptr;
  }

  template <class Answer, class Request>
  expected<Answer> ask(const Request& request) {
    caf::scoped_actor self{*system_};
    expected<Answer> got{error{}};
    self->request(history_, 60s, request)
        .receive([&](const Answer& answer) { got = answer; }, [&](const error& why) { got = why; });
    return got;
  }

  temp_dir dir_;
  settings values_;
  caf::actor_system_config config_;
  std::unique_ptr<caf::actor_system> system_;
  history_actor history_;
  recovery recovered_;
};

record_accepted accepted_job(const std::string& job, const std::string& agent = {}) {
  record_accepted request;
  request.order.job = job;
  request.order.request.code = "print('" + job + "')";
  request.order.request.language = "python";
  request.order.request.agent_id = agent;
  request.order.request.args = {"a"};
  request.order.request.metadata = {{"k", "v"}};
  request.order.limits.timeout_ms = 5;
  request.order.submitted_at_ms = 1000;
  return request;
}

record_ended ended_job(const std::string& job, const std::string& output = "out\n",
                       const std::string& agent = {}) {
  record_ended request;
  request.ended.job = job;
  request.ended.state = job_state::exited;
  request.ended.exit_code = 0;
  request.ended.language = "python";
  request.ended.agent_id = agent;
  request.ended.stdout_data.assign(output.begin(), output.end());
  request.ended.stdout_bytes = output.size();
  return request;
}

query_history by_job(const std::string& job) {
  query_history query;
  query.job = job;
  return query;
}

std::string text(const bytes& data) {
  return {data.begin(), data.end()};
}

} // namespace

TEST_CASE_METHOD(fixture, "A job that was recorded is found with all that was said about it") {
  start();
  auto first = ask<recorded>(accepted_job("j1", "ada"));
  REQUIRE(first);
  REQUIRE(ask<recorded>(ended_job("j1", "out\n", "ada")));
  auto page = ask<history_page>(by_job("j1"));
  REQUIRE(page);
  REQUIRE(page->entries.size() == 1);
  const entry& told = page->entries[0];
  CHECK(told.number == first->number);
  CHECK(told.code == "print('j1')");
  CHECK(told.args == std::vector<std::string>{"a"});
  CHECK(told.metadata.at("k") == "v");
  CHECK(told.limits.timeout_ms == 5);
  CHECK(told.result.state == job_state::exited);
  CHECK(text(told.result.stdout_data) == "out\n");
}

TEST_CASE_METHOD(fixture, "Who waits for a run is answered behind the record of its end") {
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  caf::scoped_actor self{*system_};
  record_ended end = ended_job("j1");
  answer_run run{.ended = end.ended};
  self->send(history_, end);
  self->send(history_, run);
  std::vector<std::string> order;
  for (int i = 0; i < 2; ++i)
    self->receive([&](const recorded&) { order.emplace_back("recorded"); },
                  [&](const outcome& told) { order.push_back(told.job); });
  CHECK(order == std::vector<std::string>{"recorded", "j1"});
  auto again = ask<outcome>(run); // nothing of it is on its way any more
  REQUIRE(again);
  CHECK(*again == run.ended);
}

TEST_CASE_METHOD(fixture, "A job whose end comes in the batch of its acceptance is one record") {
  start();
  caf::scoped_actor self{*system_};
  for (int i = 0; i < 100; ++i) { // what waits in the mailbox is one batch
    std::string job = "j" + std::to_string(i);
    self->send(history_, accepted_job(job));
    self->send(history_, ended_job(job));
  }
  std::map<std::uint64_t, int> numbers;
  for (int i = 0; i < 200; ++i)
    self->receive([&](const recorded& done) { ++numbers[done.number]; });
  CHECK(numbers.size() == 100);
  for (auto [number, count] : numbers)
    CHECK(count == 2);
  auto page = ask<history_page>(query_history{});
  REQUIRE(page);
  CHECK(page->total == 100);
  CHECK(page->entries.front().result.state == job_state::exited);
}

TEST_CASE_METHOD(fixture, "A record that cannot be fails alone, its batch does not") {
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  auto twice = ask<recorded>(accepted_job("j1"));
  REQUIRE_FALSE(twice);
  CHECK(twice.error() == ec::already_exists);
  auto unknown = ask<recorded>(ended_job("nobody"));
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error() == ec::not_found);
  REQUIRE(ask<recorded>(ended_job("j1")));
  auto again = ask<recorded>(ended_job("j1"));
  REQUIRE_FALSE(again);
  CHECK(again.error() == ec::conflict);
}

TEST_CASE_METHOD(fixture, "An orderly stop puts what waits in the mailbox on disk") {
  start();
  for (int i = 0; i < 500; ++i)
    caf::anon_send(history_, accepted_job("j" + std::to_string(i)));
  stop();
  start();
  CHECK(recovered_.jobs_interrupted == 500);
  auto page = ask<history_page>(by_job("j499"));
  REQUIRE(page);
  REQUIRE(page->entries.size() == 1);
  CHECK(page->entries[0].result.state == job_state::interrupted);
  CHECK(page->entries[0].result.detail == "the server stopped while the job was alive");
  CHECK(page->entries[0].code == "print('j499')");
}

TEST_CASE_METHOD(fixture, "Output in an entry is cut") {
  values_.history_output_bytes = 100;
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  REQUIRE(ask<recorded>(ended_job("j1", std::string(1021, 'x'))));
  auto page = ask<history_page>(by_job("j1"));
  REQUIRE(page);
  const outcome& result = page->entries.at(0).result;
  CHECK(result.stdout_data.size() == 100);
  CHECK(result.stdout_truncated);
  CHECK(result.stdout_bytes == 1021);
}

TEST_CASE_METHOD(fixture, "With history switched off a job is recorded without its content") {
  values_.policy.history.enabled = false;
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  REQUIRE(ask<recorded>(ended_job("j1")));
  auto page = ask<history_page>(by_job("j1"));
  REQUIRE(page);
  const entry& told = page->entries.at(0);
  CHECK(told.code.empty());
  CHECK(told.args.empty());
  CHECK(told.metadata.empty());
  CHECK(told.result.stdout_data.empty());
  CHECK(told.result.state == job_state::exited);
}

TEST_CASE_METHOD(fixture, "A journal in memory serves as a file does and ends with the server") {
  values_.policy.history.persist_history = false;
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  auto page = ask<history_page>(by_job("j1"));
  REQUIRE(page);
  CHECK(page->total == 1);
  stop();
  start();
  CHECK(ask<history_page>(by_job("j1"))->total == 0);
}

TEST_CASE_METHOD(fixture, "The language of a query may be an alias") {
  start();
  REQUIRE(ask<recorded>(accepted_job("j1")));
  query_history query;
  query.language = "py";
  CHECK(ask<history_page>(query)->total == 1);
  query.language = "rust";
  CHECK(ask<history_page>(query)->total == 0);
}

TEST_CASE_METHOD(fixture, "Pairs of records with 64 in flight: the measure", "[.bench]") {
  start();
  constexpr int pairs = 40'000;
  constexpr int in_flight = 64;
  caf::scoped_actor self{*system_};
  int sent = 0;
  int done = 0;
  auto begin = std::chrono::steady_clock::now();
  auto next = [&] { self->send(history_, accepted_job("j" + std::to_string(sent++))); };
  for (int i = 0; i < in_flight; ++i)
    next();
  // The number of the answer tells nothing of the phase: count both kinds in order of arrival.
  std::map<std::uint64_t, int> open;
  while (done < pairs)
    self->receive([&](const recorded& was) {
      if (++open[was.number] == 1) {
        self->send(history_, ended_job("j" + std::to_string(was.number - 1)));
        return;
      }
      open.erase(was.number);
      ++done;
      if (sent < pairs)
        next();
    });
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("history: %.0f pairs/s with %d in flight\n", pairs / seconds, in_flight);

  std::vector<double> times;
  for (int i = 0; i < 2000; ++i) {
    auto start_one = std::chrono::steady_clock::now();
    REQUIRE(ask<recorded>(accepted_job("k" + std::to_string(i))));
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_one)
            .count());
  }
  std::sort(times.begin(), times.end());
  std::printf("history: one record p50 %.3f ms, p99 %.3f ms\n", times[1000], times[1980]);
}
