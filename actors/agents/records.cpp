// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/records.hpp"

#include "config/limits.hpp"
#include "config/log.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace berth {

namespace {

/// What RECORDS says to itself: write what waits.
using writer_actor = records_actor::extend<caf::reacts_to<caf::flush_atom>>;

/// RECORDS: what comes while it syncs is written together, with one sync.
class records_state {
public:
  static constexpr const char* name = "berth.records";

  writer_actor::behavior_type make_behavior(writer_actor::pointer self,
                                            std::shared_ptr<records> store) {
    self_ = self;
    store_ = std::move(store);
    self_->set_exit_handler([this](const caf::exit_msg& end) {
      write();
      self_->quit(end.reason);
    });
    return {
        [this](put_record& x) { return on_put(x); },
        [this](const get_records& x) -> caf::result<record_page> {
          write();
          auto page = store_->get(x);
          if (!page)
            return page.error();
          return std::move(*page);
        },
        [this](const drop_records& x) {
          write();
          if (error why = store_->drop(x))
            log::warn("records", "cannot forget", {{"id", x.id}, {"why", describe_error(why)}});
        },
        [this](caf::flush_atom) { write(); },
    };
  }

private:
  caf::result<recorded> on_put(put_record& record) {
    auto promise = self_->make_response_promise<recorded>();
    if (waiting_.empty())
      self_->send(self_, caf::flush_atom::value);
    promises_.push_back(promise);
    waiting_.push_back(std::move(record));
    if (waiting_.size() >= limits::history_batch_max)
      write();
    return promise;
  }

  void write() {
    if (waiting_.empty())
      return;
    error why = store_->put_all(waiting_);
    for (std::size_t i = 0; i < waiting_.size(); ++i)
      if (why)
        promises_[i].deliver(why);
      else
        promises_[i].deliver(recorded{.number = waiting_[i].seq});
    waiting_.clear();
    promises_.clear();
  }

  writer_actor::pointer self_ = nullptr;
  std::shared_ptr<records> store_;
  std::vector<put_record> waiting_;
  std::vector<caf::typed_response_promise<recorded>> promises_;
};

writer_actor::behavior_type records_behavior(writer_actor::stateful_pointer<records_state> self,
                                             std::shared_ptr<records> store) {
  return state_of(self).make_behavior(self, std::move(store));
}

} // namespace

records_actor spawn_records(caf::actor_system& system, records opened) {
  return caf::actor_cast<records_actor>(
      system.spawn<caf::detached>(records_behavior, std::make_shared<records>(std::move(opened))));
}

} // namespace berth
