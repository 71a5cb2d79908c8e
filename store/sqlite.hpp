// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

/// SQLite with its errors as values and its handles owned.
namespace berth::sqlite {

/// A prepared statement. It keeps pointers into what was bound, so that outlives the run.
class statement {
public:
  statement() = default;

  statement& bind(std::int64_t value);
  statement& bind(std::string_view value);
  statement& bind_blob(std::span<const char> value);

  /// Runs to the next row: true, or to the end: false.
  expected<bool> step();
  /// Runs a statement that gives no rows, and makes it ready to be bound again.
  error run();
  /// Makes it ready to be bound again.
  void reset();

  std::int64_t number(int column) const;
  /// Valid until the next step.
  std::string_view text(int column) const;
  std::span<const char> blob(int column) const;

private:
  friend class database;

  struct closer {
    void operator()(sqlite3_stmt* handle) const;
  };

  std::unique_ptr<sqlite3_stmt, closer> handle_;
  int bound_ = 0;
  bool failed_ = false;
};

/// A connection, used by one thread at a time.
class database {
public:
  /// Opens a file, or with ":memory:" a database that ends with the connection.
  static expected<database> open(const std::string& path, bool create);

  expected<statement> prepare(std::string_view sql);
  /// Runs statements that give no rows.
  error run(const char* sql);
  /// The first number of the first row.
  expected<std::int64_t> number(std::string_view sql);
  /// Rows that the last statement changed.
  std::int64_t changes() const;
  std::int64_t last_row() const;
  /// Copies what is in the write-ahead log into the database and syncs it, without making anybody
  /// wait. False: a reader still needs some of it there.
  bool checkpoint();

private:
  struct closer {
    void operator()(sqlite3* handle) const;
  };

  std::unique_ptr<sqlite3, closer> handle_;
};

} // namespace berth::sqlite
