// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/wait.h>

#include <csignal>
#include <unistd.h>

using namespace berth;

namespace {

settings in_dir(const temp_dir& dir) {
  settings values;
  values.data_dir = dir.path();
  return values;
}

job_order order(const std::string& job, const std::string& agent = {},
                const std::string& language = "python") {
  job_order made;
  made.job = job;
  made.request.code = "code of " + job + " 100%_x";
  made.request.language = language;
  made.request.agent_id = agent;
  made.submitted_at_ms = 1000 + static_cast<std::int64_t>(job.size());
  return made;
}

outcome ended(const std::string& job, std::int32_t code = 0) {
  outcome made;
  made.job = job;
  made.state = job_state::exited;
  made.exit_code = code;
  made.session = "s-" + job;
  made.machine = "m-" + job;
  return made;
}

void write(journal& to, const job_record& record) {
  REQUIRE_FALSE(to.begin());
  REQUIRE(to.record(record));
  REQUIRE_FALSE(to.commit());
}

void full_job(journal& to, const std::string& job, const std::string& agent = {},
              std::int32_t code = 0) {
  write(to, make_record(order(job, agent), true));
  write(to, make_record(ended(job, code)));
}

std::vector<std::string> jobs(journal& from, const query_history& query) {
  auto page = from.reader().query(query);
  REQUIRE(page);
  std::vector<std::string> names;
  for (const entry& told : page->entries)
    names.push_back(told.result.job);
  return names;
}

using names = std::vector<std::string>;

} // namespace

TEST_CASE("Entries are found by everything a query can say, newest first") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  full_job(*opened, "j1", "ada");
  full_job(*opened, "j2", "bob", 3);
  write(*opened, make_record(order("j33", "ada", "rust"), true));
  auto ask = [&](auto set) {
    query_history query;
    set(query);
    return jobs(*opened, query);
  };
  CHECK(ask([](auto&) {}) == names{"j33", "j2", "j1"});
  CHECK(ask([](auto& q) { q.job = "j2"; }) == names{"j2"});
  CHECK(ask([](auto& q) { q.agent_id = "ada"; }) == names{"j33", "j1"});
  CHECK(ask([](auto& q) { q.session = "s-j1"; }) == names{"j1"});
  CHECK(ask([](auto& q) { q.machine = "m-j2"; }) == names{"j2"});
  CHECK(ask([](auto& q) { q.language = "rust"; }) == names{"j33"});
  CHECK(ask([](auto& q) { q.state = job_state::exited; }) == names{"j2", "j1"});
  CHECK(ask([](auto& q) { q.state = job_state::queued; }) == names{"j33"});
  CHECK(ask([](auto& q) { q.failures_only = true; }) == names{"j2"});
  CHECK(ask([](auto& q) { q.text = "of j1"; }) == names{"j1"});
  CHECK(ask([](auto& q) { q.text = "100%_x"; }).size() == 3);
  CHECK(ask([](auto& q) { q.text = "1%x"; }).empty());
  CHECK(ask([](auto& q) { q.since_ms = 1003; }) == names{"j33"});
  CHECK(ask([](auto& q) { q.until_ms = 1003; }) == names{"j2", "j1"});
  CHECK(ask([](auto& q) { q.text = "' OR 1=1 --"; }).empty());
}

TEST_CASE("Pages follow one another without gap or repetition") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  for (int i = 0; i < 25; ++i)
    full_job(*opened, "j" + std::to_string(i));
  query_history query;
  query.limit = 10;
  names all;
  for (;;) {
    auto page = opened->reader().query(query);
    REQUIRE(page);
    CHECK(page->total == 25);
    for (const entry& told : page->entries)
      all.push_back(told.result.job);
    if (!page->next_before)
      break;
    query.before = *page->next_before;
  }
  CHECK(all.size() == 25);
  CHECK(all.front() == "j24");
  CHECK(all.back() == "j0");
  query.limit = 1001;
  CHECK(opened->reader().query(query).error() == ec::too_large);
}

TEST_CASE("Opening marks what a dead server left alive") {
  temp_dir dir;
  int told[2];
  REQUIRE(pipe(told) == 0);
  pid_t child = fork();
  if (child == 0) { // the server that dies
    auto opened = journal::open(in_dir(dir));
    if (!opened || opened->begin() || !opened->record(make_record(order("ended"), true))
        || !opened->record(make_record(ended("ended")))
        || !opened->record(make_record(order("alive"), true)))
      _exit(1);
    session_info session;
    session.session = session.name = "s1";
    session.state = session_state::ready;
    if (opened->record_session(session) || opened->commit() || opened->begin()
        || !opened->record(make_record(order("never-told"), true)))
      _exit(1);
    (void)!::write(told[1], "x", 1);
    pause();
    _exit(0);
  }
  char byte = 0;
  close(told[1]);
  CHECK(::read(told[0], &byte, 1) == 1);
  close(told[0]);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);

  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  CHECK(opened->recovered().jobs_interrupted == 1);
  CHECK(opened->recovered().sessions_lost == 1);
  CHECK(opened->recovered().records_damaged == 0);
  CHECK(jobs(*opened, {}) == names{"alive", "ended"});
  query_history query;
  query.job = "alive";
  auto page = opened->reader().query(query);
  REQUIRE(page);
  const outcome& result = page->entries.at(0).result;
  CHECK(result.state == job_state::interrupted);
  CHECK(result.ended_at_ms > 0);
  CHECK(page->entries[0].code == order("alive").request.code);
  CHECK(opened->reader().find_session_record("s1")->state == session_state::lost);
}

TEST_CASE("A damaged record is told as damaged, never served") {
  temp_dir dir;
  {
    auto opened = journal::open(in_dir(dir));
    REQUIRE(opened);
    full_job(*opened, "good");
    full_job(*opened, "bad");
    write(*opened, make_record(order("bad-alive"), true));
  }
  {
    auto db = sqlite::database::open(dir.path() + "/journal.db", false);
    REQUIRE(db);
    REQUIRE_FALSE(db->run("UPDATE jobs SET code = 'other code' WHERE job LIKE 'bad%'"));
  }
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  CHECK(opened->recovered().records_damaged == 1);
  auto page = opened->reader().query({});
  REQUIRE(page);
  REQUIRE(page->entries.size() == 3);
  for (std::size_t i : {0U, 1U}) {
    CHECK(page->entries[i].code.empty());
    CHECK(page->entries[i].result.state == job_state::interrupted);
    CHECK(page->entries[i].result.detail.find("damaged") != std::string::npos);
  }
  CHECK(page->entries[2].code == order("good").request.code);
}

TEST_CASE("Each agent keeps its newest entries, and nobody loses what is alive") {
  temp_dir dir;
  settings values = in_dir(dir);
  values.policy.history.max_history_entries = 5;
  auto opened = journal::open(values);
  REQUIRE(opened);
  write(*opened, make_record(order("alive", "ada"), true));
  for (int i = 0; i < 12; ++i) {
    full_job(*opened, "a" + std::to_string(i), "ada");
    full_job(*opened, "n" + std::to_string(i));
  }
  query_history query;
  query.agent_id = "ada";
  CHECK(jobs(*opened, query) == names{"a11", "a10", "a9", "a8", "a7", "alive"});
  CHECK(jobs(*opened, {}).size() == 18); // jobs without an agent are not counted
}

TEST_CASE("A journal that grew too large loses its oldest entries") {
  temp_dir dir;
  settings values = in_dir(dir);
  values.journal_bytes_max = limits::mib;
  auto opened = journal::open(values);
  REQUIRE(opened);
  REQUIRE_FALSE(opened->begin());
  for (int i = 0; i < 2000; ++i) {
    job_order made = order("j" + std::to_string(i));
    made.request.code.assign(2000, 'x');
    job_record both = make_record(made, true);
    join(both, make_record(ended(made.job)));
    REQUIRE(opened->record(both));
  }
  REQUIRE_FALSE(opened->commit());
  auto page = opened->reader().query({});
  REQUIRE(page);
  CHECK(page->total < 1200);
  CHECK(page->entries.front().result.job == "j1999");
}

TEST_CASE("One journal serves one server") {
  temp_dir dir;
  auto first = journal::open(in_dir(dir));
  REQUIRE(first);
  auto second = journal::open(in_dir(dir));
  REQUIRE_FALSE(second);
  CHECK(second.error() == ec::conflict);
}

TEST_CASE("A journal of a newer Berth, or no journal at all, is refused in words") {
  temp_dir dir;
  {
    auto db = sqlite::database::open(dir.path() + "/journal.db", true);
    REQUIRE(db);
    REQUIRE_FALSE(db->run("PRAGMA user_version = 99"));
  }
  auto newer = journal::open(in_dir(dir));
  REQUIRE_FALSE(newer);
  CHECK(describe_error(newer.error()).find("newer Berth") != std::string::npos);
  temp_dir other;
  std::filesystem::create_directories(other.path() + "/journal.db");
  auto none = journal::open(in_dir(other));
  REQUIRE_FALSE(none);
  CHECK(none.error() == ec::store_failed);
}

TEST_CASE("A reader of its own sees what was committed, and nothing that was not") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  auto reader = opened->open_reader();
  REQUIRE(reader);
  full_job(*opened, "j1");
  REQUIRE_FALSE(opened->begin());
  REQUIRE(opened->record(make_record(order("j2"), true)));
  CHECK(reader->query({})->total == 1);
  opened->rollback();
  reader->checkpoint();
  CHECK(reader->query({})->total == 1);
}
