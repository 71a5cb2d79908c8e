// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/agents_internal.hpp"
#include "store/sqlite.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace berth {

/// What agents and workflows must not lose: encoded messages by kind, id and number, in a SQLite
/// database of their own. Each row bears a checksum that is verified when it is read. One thread.
class records {
public:
  /// Opens or makes `dir`/agents.db; with an empty `dir` the records end with the object. Fails
  /// with store_failed.
  static expected<records> open(const std::string& dir);

  /// Keeps a record in place of one with the same kind, id and number. On disk when this returns.
  error put(const put_record& record);

  /// Keeps several, in their order, all or none: one sync for all of them.
  error put_all(std::span<const put_record> all);

  /// Records of a kind: of one id in the order of their numbers, or the first record of every id,
  /// the newest id first. At most `limit`, and never more than limits::records_read_max.
  expected<record_page> get(const get_records& request);

  /// Forgets the records of an id.
  error drop(const drop_records& request);

private:
  explicit records(sqlite::database db)
    : db_{std::move(db)} {}

  error prepare();
  error put_row(const put_record& record);

  sqlite::database db_;
  sqlite::statement put_;
  sqlite::statement get_one_;
  sqlite::statement get_all_;
  sqlite::statement drop_;
};

} // namespace berth
