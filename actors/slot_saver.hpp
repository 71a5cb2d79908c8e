// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/interfaces.hpp"
#include "machines/machine.hpp"

#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <map>
#include <string>

namespace berth {

/// How long a machine may take to save its state, or to go back to one, before it is given up.
inline constexpr std::chrono::milliseconds state_step_timeout{20'000};

/// How a SLOT saves its machine's state and takes it back: live interpreters come to rest (the
/// guest's part), the tree of files is switched (the machine's), interpreters go on. One such
/// sequence at a time; writing an archive goes on beside it.
///
/// Whatever fails, the machine is as it was before; one that does not answer in time is given up.
class slot_saver {
public:
  [[nodiscard]] bool busy() const { return stage_ != stage::none; }

  void freeze(machines::machine& on, const freeze_slot& request,
              caf::typed_response_promise<slot_frozen> promise);
  void roll(machines::machine& on, const roll_slot& request,
            caf::typed_response_promise<slot_rolled> promise);
  void save(machines::machine& on, const save_slot& request, const open_files& to,
            caf::typed_response_promise<slot_saved> promise);
  static void drop(machines::machine& on, const drop_slot_state& request);

  void on_frozen(machines::machine& on, const guest::frozen& message);
  void on_thawed(machines::machine& on, const guest::thawed& message);
  void on_files(machines::machine& on, const files_ended& message);
  /// The time of the sequence with this number is over: why the machine has to be given up, or
  /// empty when that sequence is over, too.
  [[nodiscard]] std::string on_timeout(std::uint32_t sequence) const;
  /// The state that is being saved, or gone back to.
  std::uint64_t checkpoint() const { return checkpoint_; }
  /// Whether the files went back and interpreters are being woken.
  bool is_back() const { return stage_ == stage::thawing_guest && rolls_ && !failed_; }
  bool is_saving() const { return stage_ != stage::none && !rolls_; }
  /// The number of the sequence under way.
  std::uint32_t sequence() const { return sequence_; }

  /// The machine is gone: everybody who waits is told.
  void fail_all(const std::string& why);

private:
  enum class stage : std::uint8_t { none, freezing_guest, switching_files, thawing_guest };

  void begin(machines::machine& on, bool force, std::uint64_t parked);
  void thaw(machines::machine& on, std::uint64_t checkpoint);
  void end(error failed);

  stage stage_ = stage::none;
  std::uint32_t sequence_ = 0;
  std::uint64_t checkpoint_ = 0;
  bool parked_ = false;
  bool rolls_ = false;
  error failed_;
  std::vector<std::string> contexts_;
  std::string detail_;
  caf::typed_response_promise<slot_frozen> frozen_;
  caf::typed_response_promise<slot_rolled> rolled_;
  std::map<std::uint64_t, caf::typed_response_promise<slot_saved>> saves_;
};

} // namespace berth
