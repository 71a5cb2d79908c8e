// SPDX-License-Identifier: Apache-2.0
#include "bridge/porter.hpp"

#include <caf/actor_companion.hpp>
#include <caf/actor_system.hpp>
#include <caf/mailbox_element.hpp>

#include <mutex>
#include <unordered_map>

namespace berth {

/// Who waits for which answer.
struct porter::desk {
  std::mutex mutex;
  std::uint64_t next = 0;
  std::unordered_map<std::uint64_t, receiver> waiting;

  std::uint64_t enter(receiver done) {
    std::lock_guard guard{mutex};
    waiting.emplace(++next, std::move(done));
    return next;
  }

  receiver leave(std::uint64_t number) {
    std::lock_guard guard{mutex};
    auto node = waiting.extract(number);
    return node.empty() ? receiver{} : std::move(node.mapped());
  }
};

porter::porter(caf::actor_system& system, gateway_actor gateway)
  : desk_(std::make_shared<desk>())
  , gateway_(caf::actor_cast<caf::strong_actor_ptr>(gateway))
  , companion_(system.spawn<caf::actor_companion>()) {
  auto* companion = caf::actor_cast<caf::actor_companion*>(companion_);
  companion->on_enqueue([desk = desk_](caf::mailbox_element_ptr answer) {
    if (!answer->mid.is_response())
      return;
    // A request's id is its number and the category that CAF gives it.
    if (receiver done = desk->leave(answer->mid.integer_value() & caf::message_id::request_id_mask))
      done(answer->move_content_to_message());
  });
}

porter::~porter() {
  auto* companion = caf::actor_cast<caf::actor_companion*>(companion_);
  companion->on_enqueue(nullptr);
  companion->cleanup(caf::error{caf::exit_reason::normal}, nullptr);
}

void porter::send(caf::message request, receiver done) {
  std::uint64_t number = desk_->enter(std::move(done));
  gateway_->enqueue(caf::actor_cast<caf::strong_actor_ptr>(companion_),
                    caf::make_message_id(number), std::move(request), nullptr);
}

} // namespace berth
