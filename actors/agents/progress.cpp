// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/progress.hpp"

#include "actors/agents/progress_log.hpp"
#include "actors/ids.hpp"
#include "config/limits.hpp"
#include "messages/codec.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <map>

namespace berth {

namespace {

/// PROGRESS: what agents and workflows tell while they work.
class progress_state {
public:
  static constexpr const char* name = "berth.progress";

  progress_actor::behavior_type make_behavior(progress_actor::pointer self,
                                              std::shared_ptr<event_sink> sink) {
    self_ = self;
    sink_ = std::move(sink);
    return {
        [this](note_progress& x) { on_note(x.event); },
        [this](const read_progress& x) { return on_read(x); },
        [this](caf::timeout_atom, std::uint64_t ticket) { on_timeout(ticket); },
    };
  }

private:
  struct reader {
    read_progress request;
    caf::typed_response_promise<progress_page> promise;
  };

  void on_note(progress_event& event) {
    event.at_ms = unix_ms();
    const progress_event& kept = log_.add(std::move(event));
    if (sink_ && sink_->wanted()) {
      const char* room = kept.id.starts_with(workflow_id_prefix) ? "workflow." : "agent.";
      sink_->publish(room + kept.id, encode(kept));
    }
    auto [first, last] = waiting_of_.equal_range(kept.id);
    std::vector<std::uint64_t> tickets;
    for (; first != last; ++first)
      tickets.push_back(first->second);
    for (std::uint64_t ticket : tickets)
      if (log_.has_news(readers_.at(ticket).request))
        on_timeout(ticket);
  }

  caf::result<progress_page> on_read(const read_progress& request) {
    bool waits = request.wait_ms > 0 && !log_.has_news(request);
    if (!waits && !log_.knows(request.id))
      return fail(ec::not_found, "id: nothing is known of " + request.id);
    if (!waits)
      return page_of(request);
    if (readers_.size() >= limits::progress_readers_max)
      return caf::make_error(ec::no_capacity, "too many readers wait for progress",
                             static_cast<std::uint32_t>(limits::retry_after.count()));
    std::uint64_t ticket = ++next_ticket_;
    auto promise = self_->make_response_promise<progress_page>();
    readers_.emplace(ticket, reader{request, promise});
    waiting_of_.emplace(request.id, ticket);
    auto wait = std::min<std::chrono::milliseconds>(std::chrono::milliseconds{request.wait_ms},
                                                    limits::read_wait_max);
    self_->delayed_send(self_, wait, caf::timeout_atom_v, ticket);
    return promise;
  }

  progress_page page_of(const read_progress& request) const {
    std::size_t most = request.events_max == 0 ? limits::progress_page_max : request.events_max;
    return log_.page(request, std::min<std::size_t>(most, limits::progress_page_max));
  }

  /// Answers a reader that waits, with what there is.
  void on_timeout(std::uint64_t ticket) {
    auto node = readers_.extract(ticket);
    if (node.empty())
      return;
    reader& late = node.mapped();
    auto [first, last] = waiting_of_.equal_range(late.request.id);
    waiting_of_.erase(
        std::find_if(first, last, [ticket](const auto& each) { return each.second == ticket; }));
    late.promise.deliver(page_of(late.request));
  }

  progress_actor::pointer self_ = nullptr;
  std::shared_ptr<event_sink> sink_;
  progress_log log_{limits::progress_events_max, limits::progress_bytes_max};
  std::map<std::uint64_t, reader> readers_;
  std::multimap<std::string, std::uint64_t> waiting_of_;
  std::uint64_t next_ticket_ = 0;
};

progress_actor::behavior_type
progress_behavior(progress_actor::stateful_pointer<progress_state> self,
                  std::shared_ptr<event_sink> sink) {
  return state_of(self).make_behavior(self, std::move(sink));
}

} // namespace

progress_actor spawn_progress(caf::actor_system& system, std::shared_ptr<event_sink> sink) {
  return system.spawn(progress_behavior, std::move(sink));
}

} // namespace berth
