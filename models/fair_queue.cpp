// SPDX-License-Identifier: Apache-2.0
#include "models/fair_queue.hpp"

#include <algorithm>

namespace berth::models {

void fair_queue::give_place(line& to) {
  ++running_;
  ++to.running;
  turns_ += 2;
  to.served = turns_;
}

fair_queue::line& fair_queue::line_of(const std::string& asker) {
  auto [at, is_new] = lines_.try_emplace(asker);
  // Before the one that was served last, behind everybody who has waited longer: nobody starves.
  if (is_new && turns_ > 0)
    at->second.served = turns_ - 1;
  return at->second;
}

void fair_queue::drop_if_empty(const std::string& asker) {
  auto at = lines_.find(asker);
  if (at != lines_.end() && at->second.running == 0 && at->second.calls.empty())
    lines_.erase(at);
}

fair_queue::entry fair_queue::enter(const std::string& asker, ticket call) {
  if (running_ < places_) {
    give_place(line_of(asker));
    return entry::go;
  }
  if (waiting_ >= waiting_max_)
    return entry::full;
  line_of(asker).calls.push_back(call);
  ++waiting_;
  return entry::wait;
}

std::optional<fair_queue::ticket> fair_queue::leave(const std::string& asker) {
  auto at = lines_.find(asker);
  if (at == lines_.end() || at->second.running == 0)
    return std::nullopt;
  --at->second.running;
  --running_;
  line* next = nullptr;
  for (auto& [name, each] : lines_) {
    if (each.calls.empty())
      continue;
    if (next == nullptr || each.running < next->running
        || (each.running == next->running && each.served < next->served))
      next = &each;
  }
  std::optional<ticket> call;
  if (next != nullptr) {
    call = next->calls.front();
    next->calls.pop_front();
    --waiting_;
    give_place(*next);
  }
  drop_if_empty(asker);
  return call;
}

bool fair_queue::forget(const std::string& asker, ticket call) {
  auto at = lines_.find(asker);
  if (at == lines_.end())
    return false;
  auto place = std::ranges::find(at->second.calls, call);
  if (place == at->second.calls.end())
    return false;
  at->second.calls.erase(place);
  --waiting_;
  drop_if_empty(asker);
  return true;
}

} // namespace berth::models
