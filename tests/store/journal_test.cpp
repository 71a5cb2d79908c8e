// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <map>

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

/// Numbers entries as HISTORY does and brings them into a journal, each by itself.
class recorder {
public:
  explicit recorder(journal& to)
    : to_(to)
    , next_(to.next_number()) {}

  void accept(const job_order& made) {
    numbers_[made.job] = next_;
    keep(accepted_record(next_++, made, true));
  }
  void end(const outcome& result) { keep(ended_record(numbers_.at(result.job), result)); }
  void full_job(const std::string& job, const std::string& agent = {}, std::int32_t code = 0) {
    accept(order(job, agent));
    outcome result = ended(job, code);
    result.agent_id = agent;
    end(result);
  }

private:
  void keep(const bytes& record) {
    auto view = read_record(record);
    REQUIRE(view);
    REQUIRE_FALSE(to_.apply({&*view, 1}));
  }

  journal& to_;
  std::uint64_t next_;
  std::map<std::string, std::uint64_t> numbers_;
};

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
  recorder record{*opened};
  record.full_job("j1", "ada");
  record.full_job("j2", "bob", 3);
  record.accept(order("j33", "ada", "rust"));
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

TEST_CASE("The entries of a machine are found however many came between them") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  auto keep = [&](std::uint64_t number, const std::string& machine) {
    outcome result = ended("j" + std::to_string(number));
    result.machine = machine;
    bytes record = ended_record(number, result);
    auto view = read_record(record);
    REQUIRE(view);
    REQUIRE_FALSE(opened->apply({&*view, 1}));
  };
  for (std::uint64_t number : {5, 16'383, 16'384, 40'000, 1'000'000}) {
    keep(number, "m-1");
    keep(number + 7, "m-2");
  }
  query_history query{.machine = "m-1"};
  CHECK(jobs(*opened, query) == names{"j1000000", "j40000", "j16384", "j16383", "j5"});
  query.before = 40'000;
  query.limit = 2;
  auto page = opened->reader().query(query);
  REQUIRE(page);
  CHECK(page->total == 5);
  CHECK(page->next_before.value_or(0) == 16'383);
  query.machine = "m-3";
  CHECK(jobs(*opened, query).empty());
}

TEST_CASE("The numbers of entries that are gone are not given again") {
  temp_dir dir;
  settings values = in_dir(dir);
  values.policy.history.max_history_entries = 0;
  {
    auto opened = journal::open(values);
    REQUIRE(opened);
    outcome result = ended("j1");
    result.agent_id = "ada";
    bytes record = ended_record(7, result);
    auto view = read_record(record);
    REQUIRE(view);
    REQUIRE_FALSE(opened->apply({&*view, 1}, opened->log_begin()));
    CHECK(jobs(*opened, {}).empty());
    CHECK(opened->next_number() == 8);
  }
  auto again = journal::open(values);
  REQUIRE(again);
  CHECK(again->next_number() == 8);
}

TEST_CASE("A journal of an earlier version is brought up to date") {
  temp_dir dir;
  {
    auto opened = journal::open(in_dir(dir));
    REQUIRE(opened);
    recorder record{*opened};
    for (int i = 1; i <= 3; ++i)
      record.full_job("j" + std::to_string(i), "ada");
  }
  { // as the second version had it
    auto db = sqlite::database::open(dir.path() + "/journal.db", false);
    REQUIRE(db);
    REQUIRE_FALSE(db->run(
        "CREATE TABLE old (number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL UNIQUE,"
        " agent TEXT NOT NULL, session TEXT NOT NULL, machine TEXT NOT NULL,"
        " language TEXT NOT NULL, state TEXT NOT NULL, failed INTEGER NOT NULL,"
        " submitted_at_ms INTEGER NOT NULL, code TEXT NOT NULL, request BLOB NOT NULL,"
        " request_sum INTEGER NOT NULL, result BLOB NOT NULL, result_sum INTEGER NOT NULL) STRICT;"
        "INSERT INTO old SELECT * FROM jobs; DROP TABLE jobs; ALTER TABLE old RENAME TO jobs;"
        "UPDATE sqlite_sequence SET seq = 9 WHERE name = 'jobs';"
        "ALTER TABLE log_position DROP COLUMN last_number; PRAGMA user_version = 2;"));
  }
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  CHECK(opened->next_number() == 10);
  CHECK(opened->recovered().records_damaged == 0);
  CHECK(jobs(*opened, {.machine = "m-j2"}) == names{"j2"});
  CHECK(jobs(*opened, {.agent_id = "ada"}) == names{"j3", "j2", "j1"});
}

TEST_CASE("Pages follow one another without gap or repetition") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  recorder record{*opened};
  for (int i = 0; i < 25; ++i)
    record.full_job("j" + std::to_string(i));
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
  {
    auto opened = journal::open(in_dir(dir));
    REQUIRE(opened);
    recorder record{*opened};
    record.accept(order("ended"));
    record.end(ended("ended"));
    record.accept(order("alive"));
    session_info session;
    session.session = session.name = "s1";
    session.state = session_state::ready;
    bytes told = session_record(session);
    auto view = read_record(told);
    REQUIRE(view);
    REQUIRE_FALSE(opened->apply({&*view, 1}));
  }
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  CHECK(opened->recovered().jobs_interrupted == 1);
  REQUIRE(opened->recovered().sessions.size() == 1);
  CHECK(opened->recovered().sessions[0].session == "s1");
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
  CHECK(opened->reader().find_session_record("s1")->state == session_state::ready);
}

TEST_CASE("A damaged record is told as damaged, never served") {
  temp_dir dir;
  {
    auto opened = journal::open(in_dir(dir));
    REQUIRE(opened);
    recorder record{*opened};
    record.full_job("good");
    record.full_job("bad");
    record.accept(order("bad-alive"));
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
  recorder record{*opened};
  record.accept(order("alive", "ada"));
  for (int i = 0; i < 12; ++i) {
    record.full_job("a" + std::to_string(i), "ada");
    record.full_job("n" + std::to_string(i));
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
  recorder record{*opened};
  for (int i = 0; i < 2000; ++i) {
    job_order made = order("j" + std::to_string(i));
    made.request.code.assign(2000, 'x');
    record.accept(made);
    record.end(ended(made.job));
  }
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

TEST_CASE("A reader of its own sees what was brought in, at once") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  auto reader = opened->open_reader();
  REQUIRE(reader);
  recorder record{*opened};
  record.full_job("j1");
  CHECK(reader->query({})->total == 1);
  CHECK(opened->checkpoint());
  CHECK(reader->query({})->total == 1);
}

TEST_CASE("A job that was accepted and ended in one batch is one row; what is known is not recorded"
          " twice") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir));
  REQUIRE(opened);
  bytes first = accepted_record(1, order("j1", "ada"), true);
  bytes last = ended_record(1, ended("j1"));
  bytes orphan = ended_record(2, ended("j2"));
  std::vector<record_view> batch{*read_record(first), *read_record(last), *read_record(orphan)};
  REQUIRE_FALSE(opened->apply(batch));
  REQUIRE_FALSE(opened->apply(batch));
  CHECK(jobs(*opened, {}) == names{"j2", "j1"});
  query_history query;
  query.job = "j1";
  auto page = opened->reader().query(query);
  REQUIRE(page);
  CHECK(page->entries.at(0).code == order("j1").request.code);
  CHECK(page->entries.at(0).result.state == job_state::exited);
  query.job = "j2"; // its acceptance was lost
  CHECK(opened->reader().query(query)->entries.at(0).result.state == job_state::exited);
}
