// SPDX-License-Identifier: Apache-2.0
#include "actors/slot_saver.hpp"

#include <utility>

namespace berth {

using machines::files_step;

void slot_saver::begin(machines::machine& on, bool force, std::uint64_t parked) {
  stage_ = stage::freezing_guest;
  ++sequence_;
  failed_ = {};
  contexts_.clear();
  detail_.clear();
  parked_ = parked != 0;
  on.send(guest::freeze{.request = sequence_, .checkpoint = parked, .force = force});
}

void slot_saver::freeze(machines::machine& on, const freeze_slot& request,
                        caf::typed_response_promise<slot_frozen> promise) {
  frozen_ = std::move(promise);
  rolls_ = false;
  checkpoint_ = request.checkpoint;
  begin(on, false, request.memory ? request.checkpoint : 0);
}

void slot_saver::roll(machines::machine& on, const roll_slot& request,
                      caf::typed_response_promise<slot_rolled> promise) {
  rolled_ = std::move(promise);
  rolls_ = true;
  checkpoint_ = request.checkpoint;
  begin(on, true, 0); // what runs in the background ends with its interpreter
}

void slot_saver::on_frozen(machines::machine& on, const guest::frozen& message) {
  if (stage_ != stage::freezing_guest || message.request != sequence_)
    return;
  if (!message.error.empty()) { // the guest goes on as if nothing had been asked
    end(fail(ec::conflict, "the session cannot rest now: " + message.error));
    return;
  }
  contexts_ = message.contexts;
  stage_ = stage::switching_files;
  if (rolls_)
    on.roll_back_files(checkpoint_);
  else
    on.freeze_files(checkpoint_);
}

void slot_saver::on_files(machines::machine& on, const files_ended& message) {
  auto step = static_cast<files_step>(message.step);
  if (step == files_step::save) {
    auto node = saves_.extract(message.checkpoint);
    if (node.empty())
      return;
    if (message.error.empty())
      node.mapped().deliver(
          slot_saved{.bytes_written = message.bytes_written, .skipped = message.skipped});
    else
      node.mapped().deliver(fail(ec::store_failed, "the archive: " + message.error));
    return;
  }
  bool awaited = step == (rolls_ ? files_step::roll_back : files_step::freeze);
  if (stage_ != stage::switching_files || !awaited || message.checkpoint != checkpoint_)
    return;
  bool done = message.error.empty();
  if (!done) {
    failed_ = fail(ec::conflict, "the session's files cannot be switched now: " + message.error);
    if (parked_)
      on.send(guest::drop_checkpoint{.checkpoint = checkpoint_});
  }
  thaw(on, done && rolls_ ? checkpoint_ : 0);
}

void slot_saver::thaw(machines::machine& on, std::uint64_t checkpoint) {
  stage_ = stage::thawing_guest;
  on.send(guest::thaw{.request = sequence_, .checkpoint = checkpoint});
}

void slot_saver::on_thawed(machines::machine& on, const guest::thawed& message) {
  if (stage_ != stage::thawing_guest || message.request != sequence_)
    return;
  detail_ = message.error;
  if (rolls_)
    contexts_ = message.contexts;
  else if (parked_ && !failed_ && !message.error.empty()) {
    // A copy that was promised is none: what was saved are files.
    contexts_.clear();
    on.send(guest::drop_checkpoint{.checkpoint = checkpoint_});
  }
  end(std::exchange(failed_, {}));
}

std::string slot_saver::on_timeout(std::uint32_t sequence) const {
  if (stage_ == stage::none || sequence != sequence_)
    return {};
  return "the machine did not save or restore its state in time";
}

void slot_saver::end(error failed) {
  stage_ = stage::none;
  if (rolls_) {
    auto promise = std::exchange(rolled_, {});
    if (failed)
      promise.deliver(std::move(failed));
    else
      promise.deliver(slot_rolled{.contexts = std::move(contexts_), .detail = std::move(detail_)});
    return;
  }
  auto promise = std::exchange(frozen_, {});
  if (failed)
    promise.deliver(std::move(failed));
  else
    promise.deliver(slot_frozen{.contexts = std::move(contexts_)});
}

void slot_saver::save(machines::machine& on, const save_slot& request, const open_files& to,
                      caf::typed_response_promise<slot_saved> promise) {
  if (to.files.size() != 1 || !to.files.front() || saves_.contains(request.checkpoint)) {
    promise.deliver(fail(ec::internal, "an archive needs one file, and one writer"));
    return;
  }
  saves_.emplace(request.checkpoint, std::move(promise));
  on.save_files(request.checkpoint, request.since, to.files.front(), request.bytes_max);
}

void slot_saver::drop(machines::machine& on, const drop_slot_state& request) {
  if (request.memory)
    on.send(guest::drop_checkpoint{.checkpoint = request.checkpoint});
  if (request.files)
    on.drop_files(request.checkpoint);
}

void slot_saver::fail_all(const std::string& why) {
  auto saves = std::exchange(saves_, {});
  for (auto& [checkpoint, promise] : saves)
    promise.deliver(fail(ec::machine_failed, why));
  if (stage_ != stage::none)
    end(fail(ec::machine_failed, why));
}

} // namespace berth
