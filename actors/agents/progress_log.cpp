// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/progress_log.hpp"

#include <algorithm>

namespace berth {

namespace {

/// What an event costs in memory, about.
std::size_t bytes_of(const progress_event& event) {
  return sizeof event + event.id.size() + event.step.size() + event.name.size() + event.text.size()
         + event.job.size();
}

} // namespace

const progress_event& progress_log::add(progress_event event) {
  const std::string id = event.id;
  stream& to = streams_[id];
  event.seq = ++to.last_seq;
  mark_ended(to, id, event.kind == progress_kind::ended);
  std::size_t size = bytes_of(event);
  to.bytes += size;
  bytes_ += size;
  to.events.push_back(std::move(event));
  while (to.events.size() > events_max_)
    let_go_oldest(to);
  keep_bound(id);
  return streams_.at(id).events.back();
}

bool progress_log::has_news(const read_progress& request) const {
  auto found = streams_.find(request.id);
  return found != streams_.end()
         && (found->second.last_seq > request.after || found->second.ended > 0);
}

progress_page progress_log::page(const read_progress& request, std::size_t events_max) const {
  progress_page made{.id = request.id, .events = {}, .lost = 0, .last_seq = 0, .ended = false};
  auto found = streams_.find(request.id);
  if (found == streams_.end())
    return made;
  const stream& from = found->second;
  made.last_seq = from.last_seq;
  if (from.last_seq > request.after) {
    std::uint64_t first = from.last_seq - from.events.size() + 1;
    std::uint64_t next = std::max(first, request.after + 1);
    made.lost = next - request.after - 1;
    auto begin = from.events.begin() + static_cast<std::ptrdiff_t>(next - first);
    auto left = static_cast<std::size_t>(from.events.end() - begin);
    made.events.assign(begin, begin + static_cast<std::ptrdiff_t>(std::min(left, events_max)));
  }
  std::uint64_t told = made.events.empty() ? request.after + made.lost : made.events.back().seq;
  made.ended = from.ended > 0 && told >= from.last_seq;
  return made;
}

void progress_log::let_go_oldest(stream& from) {
  std::size_t size = bytes_of(from.events.front());
  from.bytes -= size;
  bytes_ -= size;
  from.events.pop_front();
}

void progress_log::mark_ended(stream& one, const std::string& id, bool ended) {
  if (one.ended > 0)
    ended_.erase(one.ended);
  one.ended = ended ? ++last_end_ : 0;
  if (ended)
    ended_.emplace(one.ended, id);
}

/// Streams that ended go first; then the oldest events of the one that grows.
void progress_log::keep_bound(const std::string& but) {
  for (auto each = ended_.begin(); bytes_ > bytes_max_ && each != ended_.end();) {
    if (each->second == but) {
      ++each;
      continue;
    }
    auto found = streams_.find(each->second);
    bytes_ -= found->second.bytes;
    streams_.erase(found);
    each = ended_.erase(each);
  }
  stream& own = streams_.at(but);
  while (bytes_ > bytes_max_ && own.events.size() > 1)
    let_go_oldest(own);
}

} // namespace berth
