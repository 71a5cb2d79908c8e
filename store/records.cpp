// SPDX-License-Identifier: Apache-2.0
#include "store/records.hpp"

#include "config/limits.hpp"
#include "store/checksum.hpp"

#include <algorithm>
#include <chrono>

namespace berth {

namespace {

/// `touched` orders ids by their last change.
constexpr const char* schema = R"sql(
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    body BLOB NOT NULL,
    body_sum INTEGER NOT NULL,
    PRIMARY KEY (kind, id, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS records_heads ON records (kind, touched) WHERE seq = 0;
)sql";

std::int64_t now_us() {
  using namespace std::chrono;
  return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t sum_of(std::string_view kind, std::string_view id, std::span<const char> body) {
  return static_cast<std::int64_t>(checksum({kind, id, body}));
}

error in_store(const error& why) {
  return fail(ec::store_failed, "agents.db: " + describe_error(why));
}

} // namespace

expected<records> records::open(const std::string& dir) {
  auto db = sqlite::database::open(dir.empty() ? ":memory:" : dir + "/agents.db", true);
  if (!db)
    return in_store(db.error());
  records made{std::move(*db)};
  if (error why = made.prepare())
    return in_store(why);
  return made;
}

error records::prepare() {
  if (error why = db_.run(schema))
    return why;
  struct row {
    sqlite::statement& to;
    const char* sql;
  };
  const row rows[] = {
      {put_, "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET "
             "touched = ?4, body = ?5, body_sum = ?6"},
      {get_one_, "SELECT id, seq, body, body_sum FROM records WHERE kind = ?1 AND id = ?2 "
                 "ORDER BY seq LIMIT ?3"},
      {get_all_, "SELECT id, seq, body, body_sum FROM records WHERE kind = ?1 AND seq = 0 "
                 "ORDER BY touched DESC LIMIT ?2"},
      {drop_, "DELETE FROM records WHERE kind = ?1 AND id = ?2"},
  };
  for (const row& each : rows) {
    auto made = db_.prepare(each.sql);
    if (!made)
      return made.error();
    each.to = std::move(*made);
  }
  return {};
}

error records::put_row(const put_record& record) {
  return put_.bind(record.kind)
      .bind(record.id)
      .bind(static_cast<std::int64_t>(record.seq))
      .bind(now_us())
      .bind_blob(record.body)
      .bind(sum_of(record.kind, record.id, record.body))
      .run();
}

error records::put(const put_record& record) {
  error why = put_row(record);
  return why ? in_store(why) : error{};
}

error records::put_all(std::span<const put_record> all) {
  if (all.size() == 1)
    return put(all.front());
  error why = db_.run("BEGIN IMMEDIATE");
  for (std::size_t i = 0; i < all.size() && !why; ++i)
    why = put_row(all[i]);
  if (!why)
    why = db_.run("COMMIT");
  if (!why)
    return {};
  (void)db_.run("ROLLBACK");
  return in_store(why);
}

expected<record_page> records::get(const get_records& request) {
  auto limit = static_cast<std::int64_t>(limits::records_read_max);
  if (request.limit > 0)
    limit = std::min<std::int64_t>(limit, request.limit);
  sqlite::statement& from = request.id.empty() ? get_all_ : get_one_;
  from.bind(request.kind);
  if (!request.id.empty())
    from.bind(request.id);
  from.bind(limit);
  record_page page;
  for (;;) {
    auto row = from.step();
    if (!row) {
      from.reset();
      return in_store(row.error());
    }
    if (!*row)
      break;
    put_record one;
    one.kind = request.kind;
    one.id = from.text(0);
    one.seq = static_cast<std::uint64_t>(from.number(1));
    auto body = from.blob(2);
    one.body.assign(body.begin(), body.end());
    if (from.number(3) == sum_of(one.kind, one.id, one.body))
      page.records.push_back(std::move(one));
    else
      ++page.damaged;
  }
  from.reset();
  return page;
}

error records::drop(const drop_records& request) {
  error why = drop_.bind(request.kind).bind(request.id).run();
  return why ? in_store(why) : error{};
}

} // namespace berth
