// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"
#include "messages/caf.hpp"

#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace berth {

/// Output of jobs on disk: one file for each job and stream, appended to and read at any offset,
/// within one budget. A plain class for one thread; its owner may wait for the disk.
///
/// The spool is a cache of the running server: nothing in it survives a restart, so nothing is
/// synced. The files have no names once they are open, so a killed server leaves none behind.
class spool {
public:
  /// Makes the directory, or empties it of what a dead server left. `bytes_max` bounds all files
  /// together.
  static expected<spool> open(const std::string& directory, std::uint64_t bytes_max);

  spool(spool&& other) noexcept;
  spool& operator=(spool&& other) noexcept;
  /// Removes the directory, too, where nothing else is in it.
  ~spool();

  /// Appends to a stream and returns its new size. When the budget is used up, jobs that ended go
  /// first, the oldest before others; no_capacity when nothing can go, store_failed when the disk
  /// refuses, conflict after end(). After an error nothing of the data was kept.
  expected<std::uint64_t> append(const std::string& job, std::uint32_t stream,
                                 std::span<const char> data);

  /// Reads up to `bytes_max` bytes from an offset; empty at or beyond the end. not_found when the
  /// stream was never written or is gone.
  expected<std::vector<char>> read(const std::string& job, std::uint32_t stream,
                                   std::uint64_t offset, std::size_t bytes_max) const;

  /// Bytes kept of a stream; 0 when it is not here.
  std::uint64_t size(const std::string& job, std::uint32_t stream) const;

  /// Says that a job writes no more: its output may go when space is needed.
  void end(const std::string& job);

  /// Forgets a job's output.
  void remove(const std::string& job);

  /// Bytes of all files.
  std::uint64_t bytes() const { return bytes_; }
  /// Jobs that were forgotten to make space.
  std::uint64_t evicted() const { return evicted_; }

private:
  struct stream_file {
    int fd = -1;
    std::uint64_t size = 0;
  };

  struct job_files {
    std::map<std::uint32_t, stream_file> streams;
    bool ended = false;
    std::list<std::string>::iterator place;
  };

  spool(std::string directory, std::uint64_t bytes_max);

  const stream_file* find(const std::string& job, std::uint32_t stream) const;
  expected<stream_file*> make(const std::string& job, std::uint32_t stream);
  bool make_room(std::uint64_t wanted);
  void close_all();

  std::string directory_;
  std::uint64_t bytes_max_ = 0;
  std::uint64_t bytes_ = 0;
  std::size_t files_ = 0;
  std::uint64_t evicted_ = 0;
  std::map<std::string, job_files> jobs_;
  /// Jobs that ended, oldest first.
  std::list<std::string> ended_;
};

} // namespace berth
