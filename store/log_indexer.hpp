// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "store/journal.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace berth {

/// Brings the log into the index behind the scenes, in large transactions, in a thread of its own;
/// removes segments once the database holds them and is synced. Any thread may call.
class log_indexer {
public:
  /// Owns the index from now on. The log begins where the index says.
  explicit log_indexer(journal index);
  /// Stops as stop() does.
  ~log_indexer();
  log_indexer(const log_indexer&) = delete;
  log_indexer& operator=(const log_indexer&) = delete;

  /// Brings in what is left, closes the index and ends. Nothing may be written to the log after it.
  void stop();

  /// More was written to the log: up to here, so many bytes since the server's start.
  void advance(log_position end, std::uint64_t bytes_written);
  /// Returns when the index holds all that advance() told of before the call. Fails with
  /// store_failed when that takes longer than `limit`.
  error wait_until_current(std::chrono::milliseconds limit);
  /// Returns when the index is less than `lag` bytes behind; otherwise as above.
  error wait_until_near(std::uint64_t lag, std::chrono::milliseconds limit);

private:
  void run();
  error index_some(log_position end);
  error index_segment_part(log_position end);
  void tidy();

  std::optional<journal> index_; // until it is stopped
  const std::string dir_;
  /// The thread's own: where it is, and the oldest segment that is left.
  log_position at_;
  std::uint64_t oldest_;
  std::optional<log_reader> reader_;

  std::mutex mutex_;
  std::condition_variable to_thread_;
  std::condition_variable from_thread_;
  log_position end_;     // where the log ends
  log_position indexed_; // where the index ends
  std::uint64_t bytes_written_ = 0;
  std::uint64_t bytes_indexed_ = 0;
  unsigned hurry_ = 0; // who waits
  bool stopping_ = false;
  std::thread thread_;
};

} // namespace berth
