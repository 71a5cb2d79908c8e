// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// The log: the one durable truth of what the server acknowledged, in numbered files ("segments")
/// that are only ever appended to.
///
///     segment   head, the same head again, records...
///     head      u64 magic, u64 number of the segment, u64 salt, u64 checksum of these
///     record    u32 magic, u32 size, u64 checksum of salt, place and payload; payload; 0 to 7
///               bytes of padding, so that records begin at multiples of eight
///
/// A segment is allocated before it is written, so that a sync has no metadata to write; what
/// follows the last record is zeros. Numbers are little-endian. The salt is random: a program's
/// text inside a record cannot pass for a record.
namespace berth {

/// A place in the log; the next record begins there.
struct log_position {
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;

  auto operator<=>(const log_position&) const = default;
};

/// Where the first record of a segment is.
inline constexpr std::uint64_t log_head_bytes = 64;

/// What a record of so many bytes takes.
constexpr std::uint64_t log_room(std::uint64_t size) {
  return 16 + (size + 7) / 8 * 8;
}

/// Takes records from bytes of one segment. Any bytes may be given.
class log_scanner {
public:
  /// `offset` is where in the segment the bytes begin.
  log_scanner(std::span<const char> data, std::uint64_t salt, std::uint64_t offset)
    : data_(data)
    , salt_(salt)
    , base_(offset) {}

  /// The next record if a whole, sound one comes next.
  std::optional<std::span<const char>> next();
  /// Goes on to the next sound record behind what is not one; false: there is none. What lay
  /// between was damaged, for a record is begun only when those before it are written.
  bool resume();
  /// Where the next record would begin.
  std::uint64_t offset() const { return base_ + at_; }
  /// Whether something that is no record is left: written in part when power failed or the server
  /// died, and so never acknowledged.
  bool is_torn() const;

private:
  std::span<const char> data_;
  std::uint64_t salt_;
  std::uint64_t base_;
  std::uint64_t at_ = 0;
};

/// The numbers of the segments in a directory, ascending.
std::vector<std::uint64_t> list_segments(const std::string& dir);

/// Removes one segment.
void remove_segment(const std::string& dir, std::uint64_t segment);

/// Keeps a segment that is damaged out of the way, for whoever wants to look at it.
void set_segment_aside(const std::string& dir, std::uint64_t segment);

/// Reads one segment.
class log_reader {
public:
  /// Fails with store_failed when it cannot be read or both heads are damaged.
  static expected<log_reader> open(const std::string& dir, std::uint64_t segment);
  log_reader(log_reader&& other) noexcept;
  log_reader& operator=(log_reader&&) = delete;
  ~log_reader();

  std::uint64_t salt() const { return salt_; }
  std::uint64_t size() const { return size_; }
  /// Bytes from an offset on, at most `most`; fewer only at the end.
  expected<std::vector<char>> read(std::uint64_t offset, std::uint64_t most) const;

private:
  log_reader() = default;

  int fd_ = -1;
  std::uint64_t salt_ = 0;
  std::uint64_t size_ = 0;
};

/// Writes the log. Owned by one thread.
class log_writer {
public:
  /// The first segment is made by the first write; its number must be new.
  log_writer(std::string dir, std::uint64_t segment, std::uint64_t segment_bytes);
  log_writer(const log_writer&) = delete;
  log_writer& operator=(const log_writer&) = delete;
  ~log_writer();

  /// Takes a record for the next write().
  void add(std::span<const char> payload);
  /// Hands what was added to the kernel: it survives the death of this process. After an error
  /// nothing of it can be relied on, and later records go into a segment of their own.
  error write();
  /// Puts what was written on disk: it survives the loss of power.
  error sync();
  /// Whether something was written and not synced.
  bool is_dirty() const { return dirty_; }

  /// Behind what was written.
  log_position end() const { return {segment_, end_}; }
  /// Bytes written since the start.
  std::uint64_t bytes_written() const { return bytes_written_; }

private:
  error begin_segment();
  bool clear_ahead(std::uint64_t place);
  error give_up(error why);
  void close_segment();

  std::string dir_;
  std::uint64_t segment_;
  std::uint64_t segment_bytes_;
  std::uint64_t salt_ = 0;
  int fd_ = -1;
  std::uint64_t end_ = log_head_bytes;
  /// Where the segment begins that was never written.
  std::uint64_t written_over_ = log_head_bytes;
  bool dirty_ = false;
  std::uint64_t bytes_written_ = 0;
  /// Payloads, each behind its size, until write() gives them their places.
  std::vector<char> added_;
  std::vector<char> buffer_;
};

} // namespace berth
