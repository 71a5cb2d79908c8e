// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"

#include "messages/codec.hpp"
#include "store/checksum.hpp"

#include <sys/file.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <unordered_map>

namespace berth {

namespace {

/// Each step brings a journal of version i to version i + 1. Never change one that was released.
constexpr std::array migrations{
    R"sql(
    CREATE TABLE jobs (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      job TEXT NOT NULL UNIQUE,
      agent TEXT NOT NULL,
      session TEXT NOT NULL,
      machine TEXT NOT NULL,
      language TEXT NOT NULL,
      state TEXT NOT NULL,
      failed INTEGER NOT NULL,
      submitted_at_ms INTEGER NOT NULL,
      code TEXT NOT NULL,
      request BLOB NOT NULL,
      request_sum INTEGER NOT NULL,
      result BLOB NOT NULL,
      result_sum INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX jobs_agent ON jobs (agent) WHERE agent <> '';
    CREATE INDEX jobs_session ON jobs (session) WHERE session <> '';
    CREATE INDEX jobs_machine ON jobs (machine) WHERE machine <> '';
    CREATE INDEX jobs_language ON jobs (language);
    CREATE INDEX jobs_state ON jobs (state);
    CREATE INDEX jobs_failed ON jobs (failed) WHERE failed = 1;
    CREATE INDEX jobs_submitted ON jobs (submitted_at_ms);
    CREATE TABLE sessions (
      session TEXT PRIMARY KEY,
      agent TEXT NOT NULL,
      state TEXT NOT NULL,
      body BLOB NOT NULL,
      body_sum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX sessions_open ON sessions (state) WHERE state NOT IN ('closed', 'lost');
  )sql",
    // The log: how far the database follows it. Indexes that tell few rows from many are gone.
    R"sql(
    DROP INDEX jobs_language;
    DROP INDEX jobs_state;
    CREATE INDEX jobs_alive ON jobs (number) WHERE state IN ('queued', 'running');
    CREATE TABLE log_position (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      segment INTEGER NOT NULL,
      place INTEGER NOT NULL
    ) STRICT;
    INSERT INTO log_position VALUES (1, 0, 0);
  )sql",
    // Numbers are given by HISTORY: SQLite need not keep the last one with each row. Ids of
    // machines are random: an index of all of them is written all over, one of each 16,384 entries
    // is not.
    R"sql(
    ALTER TABLE log_position ADD COLUMN last_number INTEGER NOT NULL DEFAULT 0;
    UPDATE log_position SET
      last_number = ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0);
    CREATE TABLE kept (
      number INTEGER PRIMARY KEY,
      job TEXT NOT NULL UNIQUE,
      agent TEXT NOT NULL,
      session TEXT NOT NULL,
      machine TEXT NOT NULL,
      language TEXT NOT NULL,
      state TEXT NOT NULL,
      failed INTEGER NOT NULL,
      submitted_at_ms INTEGER NOT NULL,
      code TEXT NOT NULL,
      request BLOB NOT NULL,
      request_sum INTEGER NOT NULL,
      result BLOB NOT NULL,
      result_sum INTEGER NOT NULL
    ) STRICT;
    INSERT INTO kept SELECT * FROM jobs ORDER BY number;
    DROP TABLE jobs;
    ALTER TABLE kept RENAME TO jobs;
    CREATE INDEX jobs_agent ON jobs (agent) WHERE agent <> '';
    CREATE INDEX jobs_session ON jobs (session) WHERE session <> '';
    CREATE INDEX jobs_machine ON jobs (number >> 14, machine) WHERE machine <> '';
    CREATE INDEX jobs_failed ON jobs (failed) WHERE failed = 1;
    CREATE INDEX jobs_submitted ON jobs (submitted_at_ms);
    CREATE INDEX jobs_alive ON jobs (number) WHERE state IN ('queued', 'running');
  )sql",
};

/// The entries of a machine, by an index that begins anew every 16,384 entries.
constexpr const char* of_machine =
    "number IN (WITH RECURSIVE blocks (block) AS (SELECT max(number) >> 14 FROM jobs"
    " UNION ALL SELECT block - 1 FROM blocks WHERE block > (SELECT min(number) >> 14 FROM jobs))"
    " SELECT one.number FROM blocks CROSS JOIN jobs AS one"
    " WHERE one.number >> 14 = block AND one.machine <> '' AND one.machine = ?)";

/// Records between two looks at the journal's size.
constexpr std::uint64_t size_check_records = 256;
/// Entries that go at once when the journal is too large.
constexpr std::int64_t trim_entries = 512;

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

/// SQLite's integers are signed.
std::int64_t as_signed(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}

std::int64_t request_sum(const record_view& record) {
  return as_signed(checksum({record.id, record.code, record.request}));
}

std::int64_t result_sum(std::string_view job, std::span<const char> result) {
  return as_signed(checksum({job, result}));
}

/// What stands for a record that cannot be trusted.
entry damaged_entry(std::uint64_t number, std::string_view job) {
  entry told;
  told.number = number;
  told.result.job = job;
  told.result.state = job_state::interrupted;
  told.result.detail = "this record is damaged on disk: its checksum does not match";
  return told;
}

/// The columns that entries are made of, in the order in which read_entry takes them.
constexpr const char* entry_columns =
    "number, job, code, request, request_sum, result, result_sum, agent, session, language,"
    " submitted_at_ms";

/// The outcome of a job that is alive: none was recorded yet.
outcome outcome_so_far(const sqlite::statement& row, const stored_request& request) {
  outcome queued;
  queued.job = row.text(1);
  queued.state = job_state::queued;
  queued.agent_id = row.text(7);
  queued.session = row.text(8);
  queued.language = row.text(9);
  queued.submitted_at_ms = row.number(10);
  if (request.verdict)
    queued.verdict = *request.verdict;
  return queued;
}

expected<entry> read_entry(const sqlite::statement& row) {
  entry read;
  read.number = static_cast<std::uint64_t>(row.number(0));
  std::string_view job = row.text(1);
  read.code = row.text(2);
  std::span<const char> request_bytes = row.blob(3);
  std::span<const char> result_bytes = row.blob(5);
  if (as_signed(checksum({job, read.code, request_bytes})) != row.number(4)
      || result_sum(job, result_bytes) != row.number(6))
    return damaged_entry(read.number, job);
  auto request = request_bytes.empty() ? decoded<stored_request>{stored_request{}}
                                       : decode<stored_request>(request_bytes);
  if (!request)
    return damaged_entry(read.number, job);
  if (result_bytes.empty()) {
    read.result = outcome_so_far(row, *request);
  } else {
    auto result = decode<outcome>(result_bytes);
    if (!result)
      return damaged_entry(read.number, job);
    read.result = std::move(*result);
  }
  read.args = std::move(request->args);
  read.limits = request->limits;
  read.metadata = std::move(request->metadata);
  read.kind = request->kind;
  return read;
}

std::size_t size_of(const entry& told) {
  return told.code.size() + told.result.stdout_data.size() + told.result.stderr_data.size() + 1024;
}

/// The conditions of a query and what is bound to them.
class conditions {
public:
  void text(const char* condition, const std::string& value) {
    if (!value.empty())
      add(condition, value);
  }

  void number(const char* condition, std::int64_t value) { add(condition, value); }

  void plain(const char* condition) {
    sql_ += std::string{sql_.empty() ? " WHERE " : " AND "} + condition;
  }

  const std::string& sql() const { return sql_; }

  void bind(sqlite::statement& to) const {
    for (const bound_value& next : values_)
      next.is_text ? to.bind(std::string_view{next.text}) : to.bind(next.number);
  }

private:
  struct bound_value {
    bool is_text;
    std::string text;
    std::int64_t number;
  };

  void add(const char* condition, const std::string& text) {
    plain(condition);
    values_.push_back({true, text, 0});
  }

  void add(const char* condition, std::int64_t number) {
    plain(condition);
    values_.push_back({false, {}, number});
  }

  std::string sql_;
  std::vector<bound_value> values_;
};

conditions conditions_of(const query_history& request) {
  conditions all;
  all.text("job = ?", request.job);
  if (!request.agent_id.empty()) // lets SQLite use the partial indexes
    all.plain("agent <> ''");
  all.text("agent = ?", request.agent_id);
  if (!request.session.empty())
    all.plain("session <> ''");
  all.text("session = ?", request.session);
  all.text(of_machine, request.machine);
  all.text("language = ?", request.language);
  if (request.state)
    all.text("state = ?", std::string{name_of(*request.state)});
  if (request.failures_only)
    all.plain("failed = 1");
  all.text("instr(code, ?) > 0", request.text);
  if (request.since_ms > 0)
    all.number("submitted_at_ms >= ?", request.since_ms);
  if (request.until_ms > 0)
    all.number("submitted_at_ms < ?", request.until_ms);
  return all;
}

error make_directory(const std::string& path) {
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  if (failed)
    return fail(ec::store_failed, "journal: cannot make " + path + ": " + failed.message());
  return {};
}

} // namespace

// --- reading -------------------------------------------------------------------------------------

expected<history_page> journal_reader::query(const query_history& request) {
  if (request.limit > limits::history_page_max)
    return fail(ec::too_large, "limit: " + std::to_string(request.limit) + " exceeds the limit of "
                                   + std::to_string(limits::history_page_max));
  std::uint32_t limit = request.limit == 0 ? limits::history_page_default : request.limit;
  conditions all = conditions_of(request);
  history_page page;
  auto count = db_.prepare("SELECT count(*) FROM jobs" + all.sql());
  if (!count)
    return count.error();
  all.bind(*count);
  auto counted = count->step();
  if (!counted)
    return counted.error();
  page.total = static_cast<std::uint64_t>(count->number(0));
  if (request.before > 0)
    all.number("number < ?", as_signed(std::min<std::uint64_t>(request.before, INT64_MAX)));
  auto rows = db_.prepare(std::string{"SELECT "} + entry_columns + " FROM jobs" + all.sql()
                          + " ORDER BY number DESC LIMIT ?");
  if (!rows)
    return rows.error();
  all.bind(*rows);
  rows->bind(std::int64_t{limit} + 1);
  std::size_t size = 0;
  for (;;) {
    auto more = rows->step();
    if (!more)
      return more.error();
    if (!*more)
      return page;
    if (page.entries.size() == limit || size > limits::history_page_bytes_max) {
      page.next_before = page.entries.back().number;
      return page;
    }
    auto told = read_entry(*rows);
    if (!told)
      return told.error();
    size += size_of(*told);
    page.entries.push_back(std::move(*told));
  }
}

expected<session_info> journal_reader::find_session_record(const std::string& session) {
  auto rows = db_.prepare("SELECT body, body_sum FROM sessions WHERE session = ?");
  if (!rows)
    return rows.error();
  rows->bind(std::string_view{session});
  auto found = rows->step();
  if (!found)
    return found.error();
  if (!*found)
    return fail(ec::not_found, "session: none is or was named " + session);
  if (as_signed(checksum({session, rows->blob(0)})) != rows->number(1))
    return fail(ec::store_failed, "journal: the record of session " + session + " is damaged");
  auto info = decode<session_info>(rows->blob(0));
  if (!info)
    return fail(ec::store_failed, "journal: session " + session + ": " + info.why().text());
  return std::move(*info);
}

// --- opening -------------------------------------------------------------------------------------

journal::file_lock::~file_lock() {
  if (fd >= 0)
    close(fd);
}

expected<journal> journal::open(const settings& values) {
  bool in_file = values.policy.history.persist_history;
  std::string path = ":memory:";
  auto lock = std::make_unique<file_lock>();
  if (in_file) {
    if (error why = make_directory(values.data_dir))
      return why;
    path = values.data_dir + "/journal.db";
    lock->fd =
        ::open((values.data_dir + "/journal.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock->fd < 0)
      return fail(ec::store_failed, "journal: cannot make " + values.data_dir
                                        + "/journal.lock: " + std::strerror(errno));
    if (flock(lock->fd, LOCK_EX | LOCK_NB) != 0)
      return fail(ec::conflict, "journal: another server uses " + path);
  }
  auto db = sqlite::database::open(path, true);
  if (!db)
    return db.error();
  journal opened{std::move(*db)};
  opened.dir_ = in_file ? values.data_dir : "";
  opened.lock_ = std::move(lock);
  opened.entries_max_ = values.policy.history.max_history_entries;
  opened.bytes_max_ = values.journal_bytes_max;
  if (error why = opened.prepare())
    return why;
  if (error why = opened.count_entries())
    return why;
  if (error why = opened.replay())
    return why;
  if (error why = opened.recover())
    return why;
  return opened;
}

error journal::prepare() {
  // Not FULL: a commit need not be synced while the log holds the same; a checkpoint is.
  constexpr const char* pragmas =
      "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
      "PRAGMA wal_autocheckpoint = 8192; PRAGMA cache_size = -4096;"
      "PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;";
  if (error why = db().run(pragmas))
    return why;
  auto version = db().number("PRAGMA user_version");
  if (!version)
    return version.error();
  auto known = static_cast<std::int64_t>(migrations.size());
  if (*version > known)
    return fail(ec::store_failed, "journal: " + dir_ + "/journal.db was written by a newer Berth"
                                      + " (version " + std::to_string(*version)
                                      + ", this one knows " + std::to_string(known) + ")");
  for (std::int64_t i = *version; i < known; ++i) {
    std::string step = "BEGIN IMMEDIATE;" + std::string{migrations[static_cast<std::size_t>(i)]}
                       + "PRAGMA user_version = " + std::to_string(i + 1) + "; COMMIT;";
    if (error why = db().run(step.c_str())) {
      rollback();
      return why;
    }
  }
  return prepare_statements();
}

error journal::prepare_statements() {
  const std::pair<sqlite::statement*, const char*> statements[] = {
      {&insert_, "INSERT INTO jobs (number, job, agent, session, machine, language, state, failed,"
                 " submitted_at_ms, code, request, request_sum, result, result_sum)"
                 " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
      {&update_, "UPDATE jobs SET session = iif(?1 = '', session, ?1), machine = ?2, state = ?3,"
                 " failed = ?4, result = ?5, result_sum = ?6"
                 " WHERE number = ?7 AND state IN ('queued', 'running')"},
      {&trim_, "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE agent <> ''"
               " AND agent = ? AND state NOT IN ('queued', 'running') ORDER BY number LIMIT ?)"},
      {&put_session_, "INSERT INTO sessions (session, agent, state, body, body_sum)"
                      " VALUES (?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE SET"
                      " agent = excluded.agent, state = excluded.state, body = excluded.body,"
                      " body_sum = excluded.body_sum"},
      {&put_position_, "UPDATE log_position SET segment = ?, place = ?, last_number = ?"},
  };
  for (const auto& [statement, sql] : statements) {
    auto made = db().prepare(sql);
    if (!made)
      return made.error();
    *statement = std::move(*made);
  }
  return {};
}

/// Brings into the database what only the log holds, and removes the log.
error journal::replay() {
  if (!is_file())
    return {};
  auto known = db().prepare("SELECT segment, place, last_number FROM log_position");
  if (!known)
    return known.error();
  auto row = known->step();
  if (!row)
    return row.error();
  log_position from;
  if (*row) {
    from = {static_cast<std::uint64_t>(known->number(0)),
            static_cast<std::uint64_t>(known->number(1))};
    last_number_ = static_cast<std::uint64_t>(known->number(2));
  }
  known->reset();
  std::vector<std::uint64_t> segments = list_segments(dir_);
  std::vector<std::uint64_t> damaged;
  for (std::uint64_t segment : segments) {
    std::uint64_t before = recovered_.records_damaged;
    std::uint64_t offset = segment == from.segment ? from.offset : 0;
    if (segment >= from.segment)
      if (error why = replay_segment(segment, std::max(offset, log_head_bytes)))
        return why;
    if (recovered_.records_damaged != before)
      damaged.push_back(segment);
  }
  log_begin_ = {std::max(from.segment, segments.empty() ? 0 : segments.back()) + 1, log_head_bytes};
  if (!segments.empty() && !checkpoint())
    return {}; // somebody reads the database: the next start removes them
  for (std::uint64_t segment : segments) {
    if (std::ranges::find(damaged, segment) != damaged.end())
      set_segment_aside(dir_, segment);
    else
      remove_segment(dir_, segment);
  }
  return {};
}

error journal::replay_segment(std::uint64_t segment, std::uint64_t from) {
  auto opened = log_reader::open(dir_, segment);
  if (!opened) {
    ++recovered_.records_damaged;
    return {};
  }
  auto data = opened->read(from, opened->size() - std::min(from, opened->size()));
  if (!data) {
    ++recovered_.records_damaged;
    return {};
  }
  log_scanner scan{*data, opened->salt(), from};
  std::vector<record_view> found;
  auto flush = [&] {
    error why = apply(found, {segment, scan.offset()});
    recovered_.records_replayed += found.size();
    found.clear();
    return why;
  };
  do {
    while (auto payload = scan.next()) {
      if (auto record = read_record(*payload))
        found.push_back(*record);
      else
        ++recovered_.records_damaged;
      if (found.size() >= limits::index_batch_max)
        if (error why = flush())
          return why;
    }
  } while (scan.resume() && ++recovered_.records_damaged > 0);
  return flush();
}

error journal::recover() {
  if (error why = begin())
    return why;
  error why = recover_jobs();
  if (!why)
    why = recover_sessions();
  if (!why)
    why = commit();
  if (why) {
    rollback();
    return why;
  }
  checkpoint();
  auto last = db().number("SELECT max(number) FROM jobs");
  if (!last)
    return last.error();
  last_number_ = std::max(last_number_, static_cast<std::uint64_t>(*last));
  return count_entries();
}

error journal::recover_jobs() {
  auto rows = db().prepare(std::string{"SELECT "} + entry_columns
                           + " FROM jobs WHERE state IN ('queued', 'running')");
  if (!rows)
    return rows.error();
  std::vector<entry> alive; // first read, then written: a row changes its place in the index
  for (;;) {
    auto more = rows->step();
    if (!more)
      return more.error();
    if (!*more)
      break;
    auto told = read_entry(*rows);
    if (!told)
      return told.error();
    told->code.clear();
    alive.push_back(std::move(*told));
  }
  for (entry& told : alive) {
    ++recovered_.jobs_interrupted;
    if (told.result.state == job_state::interrupted) { // damaged: stays so, but no longer alive
      ++recovered_.records_damaged;
      std::string sql = "UPDATE jobs SET state = 'interrupted', failed = 1 WHERE number = "
                        + std::to_string(told.number);
      if (error why = db().run(sql.c_str()))
        return why;
      continue;
    }
    told.result.state = job_state::interrupted;
    told.result.ended_at_ms = now_ms();
    told.result.detail = "the server stopped while the job was alive";
    bytes ended = ended_record(told.number, told.result);
    if (error why = update(*read_record(ended)))
      return why;
  }
  return {};
}

/// What becomes of them is for the SUPERVISOR to say, which knows what of them was saved.
error journal::recover_sessions() {
  auto rows = db().prepare("SELECT session FROM sessions WHERE state <> 'closed'");
  if (!rows)
    return rows.error();
  std::vector<std::string> open;
  for (;;) {
    auto more = rows->step();
    if (!more)
      return more.error();
    if (!*more)
      break;
    open.emplace_back(rows->text(0));
  }
  for (const std::string& session : open) {
    session_info info;
    if (auto known = reader().find_session_record(session)) {
      info = std::move(*known);
    } else {
      ++recovered_.records_damaged;
      info.session = info.name = session;
      info.state = session_state::lost;
    }
    recovered_.sessions.push_back(std::move(info));
  }
  return db().run("DELETE FROM sessions WHERE state = 'closed' AND session NOT IN"
                  " (SELECT session FROM sessions ORDER BY session DESC LIMIT 10000)");
}

error journal::count_entries() {
  entries_of_.clear();
  auto rows = db().prepare("SELECT agent, count(*) FROM jobs WHERE agent <> ''"
                           " AND state NOT IN ('queued', 'running') GROUP BY agent");
  if (!rows)
    return rows.error();
  for (;;) {
    auto more = rows->step();
    if (!more)
      return more.error();
    if (!*more)
      return {};
    entries_of_.emplace(rows->text(0), static_cast<std::uint64_t>(rows->number(1)));
  }
}

expected<journal_reader> journal::open_reader() const {
  auto db = sqlite::database::open(dir_ + "/journal.db", false);
  if (!db)
    return db.error();
  if (error why = db->run("PRAGMA query_only = ON;"
                          "PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;"))
    return why;
  return journal_reader{std::move(*db)};
}

// --- writing -------------------------------------------------------------------------------------

error journal::commit() {
  return db().run("COMMIT");
}

void journal::rollback() {
  db().run("ROLLBACK"); // fails when SQLite has rolled back by itself
  count_entries();
}

error journal::apply(std::span<const record_view> records, log_position behind) {
  error why = begin();
  if (!why)
    why = write(records, behind);
  if (!why)
    why = commit();
  if (why)
    rollback();
  return why;
}

error journal::write(std::span<const record_view> records, log_position behind) {
  // A job that was accepted and ended in one batch costs one insert.
  std::unordered_map<std::uint64_t, const record_view*> ends;
  for (const record_view& record : records)
    if (record.kind == record_kind::ended)
      ends.emplace(record.number, &record);
  for (const record_view& record : records) {
    last_number_ = std::max(last_number_, record.number);
    error why;
    if (record.kind == record_kind::session) {
      why = put_session(record);
    } else if (record.kind == record_kind::accepted) {
      auto end = ends.find(record.number);
      why = insert(record, end == ends.end() ? nullptr : end->second);
      if (end != ends.end())
        end->second = nullptr;
    } else if (ends.at(record.number) == &record) {
      why = update(record);
    }
    if (why)
      return why;
  }
  records_since_check_ += records.size();
  if (records_since_check_ >= size_check_records) {
    records_since_check_ = 0;
    if (error why = keep_size_bound())
      return why;
  }
  if (behind == log_position{})
    return {};
  return put_position_.bind(as_signed(behind.segment))
      .bind(as_signed(behind.offset))
      .bind(as_signed(last_number_))
      .run();
}

/// Adds a job; ended already when its end is given.
error journal::insert(const record_view& accepted, const record_view* ended) {
  const record_view& last = ended == nullptr ? accepted : *ended;
  insert_.bind(as_signed(accepted.number))
      .bind(accepted.id)
      .bind(accepted.agent)
      .bind(last.session.empty() ? accepted.session : last.session)
      .bind(last.machine)
      .bind(accepted.language)
      .bind(name_of(last.state))
      .bind(std::int64_t{last.failed})
      .bind(accepted.submitted_at_ms)
      .bind(accepted.code)
      .bind_blob(accepted.request)
      .bind(request_sum(accepted))
      .bind_blob(last.result)
      .bind(result_sum(accepted.id, last.result));
  if (error why = insert_.run())
    return why;
  if (db().changes() == 0 || !is_terminal(last.state))
    return {};
  return keep_agent_bound(accepted.agent);
}

error journal::update(const record_view& ended) {
  update_.bind(ended.session)
      .bind(ended.machine)
      .bind(name_of(ended.state))
      .bind(std::int64_t{ended.failed})
      .bind_blob(ended.result)
      .bind(result_sum(ended.id, ended.result))
      .bind(as_signed(ended.number));
  if (error why = update_.run())
    return why;
  // Its acceptance was lost with a part of the log, or it is known and has ended: no harm then.
  if (db().changes() == 0)
    return insert(ended, &ended);
  return is_terminal(ended.state) ? keep_agent_bound(ended.agent) : error{};
}

error journal::put_session(const record_view& session) {
  return put_session_.bind(session.id)
      .bind(session.agent)
      .bind(session.language)
      .bind_blob(session.result)
      .bind(as_signed(checksum({session.id, session.result})))
      .run();
}

error journal::keep_agent_bound(std::string_view agent) {
  if (agent.empty())
    return {};
  auto known = entries_of_.find(agent);
  if (known == entries_of_.end())
    known = entries_of_.emplace(std::string{agent}, 0).first;
  std::uint64_t& count = known->second;
  ++count;
  if (count <= entries_max_)
    return {};
  if (error why = trim_.bind(agent).bind(as_signed(count - entries_max_)).run())
    return why;
  count -= static_cast<std::uint64_t>(db().changes());
  return {};
}

error journal::keep_size_bound() {
  auto used = db().number("SELECT (page_count - freelist_count) * page_size FROM"
                          " pragma_page_count, pragma_freelist_count, pragma_page_size");
  if (!used)
    return used.error();
  if (static_cast<std::uint64_t>(*used) <= bytes_max_)
    return {};
  auto gone = db().prepare("DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE"
                           " state NOT IN ('queued', 'running') ORDER BY number LIMIT ?)"
                           " RETURNING agent");
  if (!gone)
    return gone.error();
  gone->bind(trim_entries);
  for (;;) {
    auto more = gone->step();
    if (!more)
      return more.error();
    if (!*more)
      return {};
    auto known = entries_of_.find(gone->text(0));
    if (known != entries_of_.end() && --known->second == 0)
      entries_of_.erase(known);
  }
}

} // namespace berth
