// SPDX-License-Identifier: Apache-2.0
#include "store/log_indexer.hpp"

#include "config/log.hpp"
#include "config/threads.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <pthread.h>
#include <unistd.h>

namespace berth {

namespace {

/// Bytes of the log that are read at once, unless one record is larger.
constexpr std::uint64_t read_bytes = 2 * limits::mib;
/// The index follows when there is time: its lag is bounded.
constexpr int index_niceness = 5;
/// How long to wait after the database refused.
constexpr std::chrono::milliseconds retry_pause{500};

} // namespace

log_indexer::log_indexer(journal index)
  : index_(std::move(index))
  , dir_(index_->dir())
  , at_(index_->log_begin())
  , oldest_(at_.segment)
  , end_(at_)
  , indexed_(at_) {
  thread_ = start_without_signals([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "berth-index");
}

log_indexer::~log_indexer() {
  stop();
}

void log_indexer::stop() {
  if (!thread_.joinable())
    return;
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  to_thread_.notify_all();
  thread_.join();
  if (indexed_ == end_ && index_->checkpoint())
    for (; oldest_ <= at_.segment; ++oldest_)
      remove_segment(dir_, oldest_);
  index_.reset();
}

void log_indexer::advance(log_position end, std::uint64_t bytes_written) {
  // Not woken for each batch: the thread looks by itself, and somebody who waits wakes it.
  std::lock_guard guard{mutex_};
  bool first = end_ == indexed_;
  end_ = end;
  bytes_written_ = bytes_written;
  if (first)
    to_thread_.notify_all();
}

error log_indexer::wait_until_current(std::chrono::milliseconds limit) {
  std::unique_lock lock{mutex_};
  log_position wanted = end_;
  if (indexed_ >= wanted)
    return {};
  ++hurry_;
  to_thread_.notify_all();
  bool there = from_thread_.wait_for(lock, limit, [&] { return indexed_ >= wanted; });
  --hurry_;
  return there ? error{} : fail(ec::store_failed, "journal: the index cannot follow the log");
}

error log_indexer::wait_until_near(std::uint64_t lag, std::chrono::milliseconds limit) {
  std::unique_lock lock{mutex_};
  auto is_near = [&] { return bytes_written_ - bytes_indexed_ < lag; };
  if (is_near())
    return {};
  ++hurry_;
  to_thread_.notify_all();
  bool there = from_thread_.wait_for(lock, limit, is_near);
  --hurry_;
  return there ? error{} : fail(ec::store_failed, "journal: the index cannot follow the log");
}

void log_indexer::run() {
  // Who is in a hurry waits for it; everybody else goes first.
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), index_niceness);
  std::unique_lock lock{mutex_};
  for (;;) {
    to_thread_.wait(lock, [this] { return stopping_ || end_ != indexed_; });
    if (end_ == indexed_)
      break;
    // Lets more gather, for one transaction costs as much as many records.
    auto is_due = [this] {
      return stopping_ || hurry_ > 0 || bytes_written_ - bytes_indexed_ >= read_bytes;
    };
    to_thread_.wait_for(lock, limits::index_pause, is_due);
    log_position end = end_;
    std::uint64_t written = bytes_written_;
    lock.unlock();
    error why;
    while (at_ < end && !why)
      why = index_some(end);
    if (!why)
      tidy();
    lock.lock();
    if (!why) {
      indexed_ = end;
      bytes_indexed_ = written;
      from_thread_.notify_all();
      continue;
    }
    log::error("history", "the index does not follow the log", {{"why", describe_error(why)}});
    if (stopping_) // the log holds what is missing; the next start brings it in
      break;
    to_thread_.wait_for(lock, retry_pause, [this] { return stopping_; });
  }
}

/// Brings in records before `end`, as many as one transaction takes.
error log_indexer::index_some(log_position end) {
  if (!reader_) {
    auto opened = log_reader::open(dir_, at_.segment);
    if (!opened)
      return opened.error();
    reader_.emplace(std::move(*opened));
  }
  std::uint64_t stop = at_.segment == end.segment ? end.offset : reader_->size();
  std::vector<record_view> records;
  std::uint64_t size = std::min(read_bytes, stop - std::min(at_.offset, stop));
  auto data = reader_->read(at_.offset, size);
  if (!data)
    return data.error();
  log_scanner scan{*data, reader_->salt(), at_.offset};
  auto take = [&] {
    while (auto payload = scan.next())
      if (auto record = read_record(*payload))
        records.push_back(*record);
  };
  take();
  if (records.empty() && size == read_bytes) { // a large record
    data = reader_->read(at_.offset, stop - at_.offset);
    if (!data)
      return data.error();
    scan = log_scanner{*data, reader_->salt(), at_.offset};
    take();
  }
  log_position behind{at_.segment, scan.offset()};
  if (!records.empty())
    if (error why = index_->apply(records, behind))
      return why;
  if (records.empty() || behind.offset >= stop) {
    if (at_.segment == end.segment && behind.offset < end.offset)
      return fail(ec::store_failed, "journal: the log cannot be read back");
    if (at_.segment < end.segment) {
      behind = {at_.segment + 1, log_head_bytes};
      reader_.reset();
    }
  }
  at_ = behind;
  return {};
}

/// Removes segments that the database holds for certain.
void log_indexer::tidy() {
  if (oldest_ >= at_.segment || !index_->checkpoint())
    return;
  for (; oldest_ < at_.segment; ++oldest_)
    remove_segment(dir_, oldest_);
}

} // namespace berth
