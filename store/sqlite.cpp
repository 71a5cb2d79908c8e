// SPDX-License-Identifier: Apache-2.0
#include "store/sqlite.hpp"

#include <sqlite3.h>

namespace berth::sqlite {

namespace {

error why(sqlite3* handle, std::string_view what) {
  return fail(ec::store_failed, "journal: " + std::string{what} + ": " + sqlite3_errmsg(handle));
}

} // namespace

void statement::closer::operator()(sqlite3_stmt* handle) const {
  sqlite3_finalize(handle);
}

statement& statement::bind(std::int64_t value) {
  failed_ |= sqlite3_bind_int64(handle_.get(), ++bound_, value) != SQLITE_OK;
  return *this;
}

statement& statement::bind(std::string_view value) {
  const char* data = value.data() == nullptr ? "" : value.data(); // null would be NULL
  failed_ |=
      sqlite3_bind_text64(handle_.get(), ++bound_, data, value.size(), SQLITE_STATIC, SQLITE_UTF8)
      != SQLITE_OK;
  return *this;
}

statement& statement::bind_blob(std::span<const char> value) {
  const char* data = value.data() == nullptr ? "" : value.data();
  failed_ |=
      sqlite3_bind_blob64(handle_.get(), ++bound_, data, value.size(), SQLITE_STATIC) != SQLITE_OK;
  return *this;
}

expected<bool> statement::step() {
  sqlite3* owner = sqlite3_db_handle(handle_.get());
  if (failed_)
    return why(owner, "bind");
  int got = sqlite3_step(handle_.get());
  if (got == SQLITE_ROW)
    return true;
  if (got == SQLITE_DONE)
    return false;
  return why(owner, sqlite3_sql(handle_.get()));
}

error statement::run() {
  auto got = step();
  error failed = got ? error{} : got.error();
  reset();
  return failed;
}

void statement::reset() {
  sqlite3_reset(handle_.get());
  bound_ = 0;
  failed_ = false;
}

std::int64_t statement::number(int column) const {
  return sqlite3_column_int64(handle_.get(), column);
}

std::string_view statement::text(int column) const {
  const void* data = sqlite3_column_text(handle_.get(), column);
  auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column));
  return data == nullptr ? std::string_view{}
                         : std::string_view{static_cast<const char*>(data), size};
}

std::span<const char> statement::blob(int column) const {
  const void* data = sqlite3_column_blob(handle_.get(), column);
  auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column));
  return data == nullptr ? std::span<const char>{}
                         : std::span{static_cast<const char*>(data), size};
}

void database::closer::operator()(sqlite3* handle) const {
  sqlite3_close_v2(handle);
}

expected<database> database::open(const std::string& path, bool create) {
  sqlite3* handle = nullptr;
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
  int got = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  database made;
  made.handle_.reset(handle);
  if (handle == nullptr)
    return fail(ec::store_failed, "journal: no memory for " + path);
  if (got != SQLITE_OK)
    return why(handle, "open " + path);
  sqlite3_busy_timeout(handle, 10'000);
  return made;
}

expected<statement> database::prepare(std::string_view sql) {
  sqlite3_stmt* handle = nullptr;
  int got = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                               SQLITE_PREPARE_PERSISTENT, &handle, nullptr);
  if (got != SQLITE_OK)
    return why(handle_.get(), sql);
  statement made;
  made.handle_.reset(handle);
  return made;
}

error database::run(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return why(handle_.get(), std::string_view{sql}.substr(0, 80));
  return {};
}

expected<std::int64_t> database::number(std::string_view sql) {
  auto query = prepare(sql);
  if (!query)
    return query.error();
  auto row = query->step();
  if (!row)
    return row.error();
  return *row ? query->number(0) : 0;
}

std::int64_t database::changes() const {
  return sqlite3_changes64(handle_.get());
}

std::int64_t database::last_row() const {
  return sqlite3_last_insert_rowid(handle_.get());
}

bool database::checkpoint() {
  int in_log = 0;
  int copied = 0;
  int got = sqlite3_wal_checkpoint_v2(handle_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log,
                                      &copied);
  return got == SQLITE_OK && copied == in_log;
}

} // namespace berth::sqlite
