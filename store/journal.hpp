// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"
#include "messages/history.hpp"
#include "messages/internal.hpp"
#include "store/log_record.hpp"
#include "store/record_log.hpp"
#include "store/sqlite.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace berth {

/// What opening found of a server that did not end in order.
struct recovery {
  /// Jobs that were alive and are `interrupted` now.
  std::uint64_t jobs_interrupted = 0;
  /// Sessions that were open, as they were recorded last.
  std::vector<session_info> sessions;
  /// Records whose checksum does not match, in the database or in the log. Segments of the log in
  /// which there are such are set aside, as *.damaged.
  std::uint64_t records_damaged = 0;
  /// Records of the log that were not in the database yet.
  std::uint64_t records_replayed = 0;
};

/// Reads history through a connection of its own. One thread at a time.
class journal_reader {
public:
  explicit journal_reader(sqlite::database db)
    : db_{std::move(db)} {}

  /// Entries that match, newest first. A record whose checksum does not match is given as
  /// interrupted, with nothing but its id and a detail that says so.
  expected<history_page> query(const query_history& request);

  /// A session as last recorded; not_found when there is none.
  expected<session_info> find_session_record(const std::string& session);

private:
  friend class journal;

  sqlite::database db_;
};

/// The index of the log: what was recorded, in one SQLite database that can be asked. One thread.
///
/// The log is the truth; the index follows it and says, in the same transaction, how far. A sync of
/// the database is needed only before a segment of the log is removed. Each row bears checksums
/// that are verified when it is read.
class journal {
public:
  /// Opens or makes the journal in the settings' data_dir, or in memory when persist_history is
  /// false; brings an older one up to date; replays what the log holds beyond the index; marks what
  /// a dead server left alive. Afterwards no segment of the log is left. Fails with conflict when
  /// another server has it open, store_failed otherwise.
  static expected<journal> open(const settings& values);

  /// What opening found.
  const recovery& recovered() const { return recovered_; }

  /// Whether the journal is a file, which other connections can read and for which there is a log.
  bool is_file() const { return !dir_.empty(); }
  /// Where it is; empty when it is in memory.
  const std::string& dir() const { return dir_; }
  /// Where the log of this server begins.
  log_position log_begin() const { return log_begin_; }
  /// The number that the next entry is to have.
  std::uint64_t next_number() const { return last_number_ + 1; }

  /// A reader with a connection of its own; only of a file.
  expected<journal_reader> open_reader() const;

  /// The reader on the writer's own connection.
  journal_reader& reader() { return self_; }

  /// Brings records into the database, all or nothing. `behind` is where the log goes on after
  /// them. What is known already is not recorded twice; the end of a job that is not known makes it
  /// known.
  error apply(std::span<const record_view> records, log_position behind = {});

  /// Copies what was committed into the database proper, and syncs it. False: something is left.
  bool checkpoint() { return db().checkpoint(); }

private:
  struct file_lock {
    int fd = -1;
    ~file_lock();
  };

  explicit journal(sqlite::database db)
    : self_{std::move(db)} {}

  sqlite::database& db() { return self_.db_; }
  error begin() { return db().run("BEGIN IMMEDIATE"); }
  error commit();
  void rollback();
  error prepare();
  error prepare_statements();
  error replay();
  error replay_segment(std::uint64_t segment, std::uint64_t from);
  error recover();
  error recover_jobs();
  error recover_sessions();
  error count_entries();
  error write(std::span<const record_view> records, log_position behind);
  error insert(const record_view& accepted, const record_view* ended);
  error update(const record_view& ended);
  error put_session(const record_view& session);
  error keep_agent_bound(std::string_view agent);
  error keep_size_bound();

  journal_reader self_;
  std::string dir_;
  std::unique_ptr<file_lock> lock_;
  recovery recovered_;
  log_position log_begin_;
  /// The largest that an entry had, even if that is gone.
  std::uint64_t last_number_ = 0;
  std::uint64_t entries_max_ = 0;
  std::uint64_t bytes_max_ = 0;
  std::uint64_t records_since_check_ = 0;
  /// Ended jobs of each agent.
  std::map<std::string, std::uint64_t, std::less<>> entries_of_;
  sqlite::statement insert_;
  sqlite::statement update_;
  sqlite::statement trim_;
  sqlite::statement put_session_;
  sqlite::statement put_position_;
};

} // namespace berth
