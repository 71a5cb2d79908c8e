// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/progress.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <string>

namespace berth {

/// The events of all conversations and workflows, within bounds. Numbers them from 1 in each
/// stream. A stream that ended may begin again, with the next turn: the numbers go on.
class progress_log {
public:
  progress_log(std::size_t events_per_stream_max, std::size_t bytes_max)
    : events_max_(events_per_stream_max)
    , bytes_max_(bytes_max) {}

  /// Keeps an event and fills in its number. What exceeds a bound goes, oldest first: of its own
  /// stream, then whole streams that ended longest ago.
  const progress_event& add(progress_event event);

  /// Whether a stream has anything after a number, or will have nothing for now.
  bool has_news(const read_progress& request) const;
  /// Whether there is such a stream.
  bool knows(const std::string& id) const { return streams_.contains(id); }

  /// Events after a number, `events_max` at most.
  progress_page page(const read_progress& request, std::size_t events_max) const;

  std::size_t bytes() const { return bytes_; }

private:
  struct stream {
    std::deque<progress_event> events;
    std::uint64_t last_seq = 0;
    /// Its place in `ended_`; 0: it has not ended.
    std::uint64_t ended = 0;
    std::size_t bytes = 0;
  };

  void let_go_oldest(stream& from);
  void mark_ended(stream& one, const std::string& id, bool ended);
  void keep_bound(const std::string& but);

  std::size_t events_max_;
  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  std::map<std::string, stream> streams_;
  std::map<std::uint64_t, std::string> ended_; // ids of the streams that have, oldest first
  std::uint64_t last_end_ = 0;
};

} // namespace berth
