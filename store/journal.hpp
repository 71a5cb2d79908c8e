// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"
#include "messages/history.hpp"
#include "messages/internal.hpp"
#include "store/sqlite.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace berth {

/// A job as the journal keeps it: columns to search by, and the rest as msgpack. Made from an order
/// or an outcome, so that nothing larger has to wait for a batch's commit.
struct job_record {
  std::string job;
  std::string agent;
  std::string session;
  std::string machine;
  std::string language;
  job_state state = job_state::queued;
  bool failed = false;
  std::int64_t submitted_at_ms = 0;
  std::string code;
  /// Arguments, limits, metadata. Empty: the job was accepted before, only its result is new.
  bytes request;
  /// The outcome.
  bytes result;

  /// Whether this makes the job known, or ends one that is.
  bool is_new() const { return !request.empty(); }
  /// Bytes held by it.
  std::size_t size() const { return code.size() + request.size() + result.size() + 256; }
};

/// The record of a job that was accepted. With `content` false its code, arguments and metadata are
/// left out.
job_record make_record(const job_order& order, bool content);

/// The record of a job that ended.
job_record make_record(const outcome& ended);

/// Joins a job's acceptance with its end, when both wait for one commit.
void join(job_record& accepted, job_record ended);

/// What opening found of a server that did not end in order.
struct recovery {
  /// Jobs that were alive and are `interrupted` now.
  std::uint64_t jobs_interrupted = 0;
  /// Sessions that were open and are `lost` now.
  std::uint64_t sessions_lost = 0;
  /// Records whose checksum does not match.
  std::uint64_t records_damaged = 0;
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

  /// Moves what was committed into the database proper, beside the writer.
  void checkpoint() { db_.checkpoint(); }

private:
  friend class journal;

  sqlite::database db_;
};

/// The journal: what must not be lost, in one SQLite file. One writer, in one thread.
///
/// A write-ahead log with a sync at each commit: what commit() reported done survives the loss of
/// power. Each record bears a checksum that is verified when it is read.
class journal {
public:
  /// Opens or makes the journal in the settings' data_dir, or in memory when persist_history is
  /// false; brings an older one up to date; marks what a dead server left alive. Fails with
  /// conflict when another server has it open, store_failed otherwise.
  static expected<journal> open(const settings& values);

  /// What opening found.
  const recovery& recovered() const { return recovered_; }

  /// Whether the journal is a file, which other connections can read.
  bool is_file() const { return !path_.empty(); }

  /// A reader with a connection of its own; only of a file.
  expected<journal_reader> open_reader() const;

  /// The reader on the writer's own connection.
  journal_reader& reader() { return self_; }

  /// Opens a batch.
  error begin();
  /// Puts the batch on disk. After an error nothing of it is kept.
  error commit();
  /// Forgets the batch.
  void rollback();

  /// Adds a job or its end to the batch; gives the entry's number. already_exists for a job that is
  /// known, not_found for the end of one that is not.
  expected<std::uint64_t> record(const job_record& record);
  /// Adds a session to the batch.
  error record_session(const session_info& session);

private:
  struct file_lock {
    int fd = -1;
    ~file_lock();
  };

  explicit journal(sqlite::database db)
    : self_{std::move(db)} {}

  sqlite::database& db() { return self_.db_; }
  error prepare();
  error recover();
  error recover_jobs();
  error recover_sessions();
  error count_entries();
  expected<std::uint64_t> insert(const job_record& record);
  expected<std::uint64_t> update(const job_record& record);
  error keep_agent_bound(const std::string& agent);
  error keep_size_bound();

  journal_reader self_;
  std::string path_;
  std::unique_ptr<file_lock> lock_;
  recovery recovered_;
  std::uint64_t entries_max_ = 0;
  std::uint64_t bytes_max_ = 0;
  std::uint64_t records_since_check_ = 0;
  /// Ended jobs of each agent.
  std::map<std::string, std::uint64_t, std::less<>> entries_of_;
  sqlite::statement insert_;
  sqlite::statement update_;
  sqlite::statement find_;
  sqlite::statement trim_;
  sqlite::statement put_session_;
};

} // namespace berth
