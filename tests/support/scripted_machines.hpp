// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace berth::test {

/// A step on its files that a machine was asked for.
struct files_request {
  machines::files_step step{};
  machines::checkpoint_number checkpoint = 0;
  machines::checkpoint_number since = 0;
  std::shared_ptr<const owned_fd> to{};
  std::uint64_t bytes_max = 0;
};

/// A machine whose guest the test plays. Everything happens on the test's thread.
class scripted_machine : public machines::machine {
public:
  scripted_machine(machines::machine_spec asked, std::shared_ptr<machines::machine_listener> hears)
    : spec(std::move(asked))
    , listener(std::move(hears)) {}

  void send(const guest::to_guest& message) override { sent.push_back(message); }
  void set_limits(const machines::machine_limits& wanted) override { limits.push_back(wanted); }
  bool warm(std::string_view language) override {
    warm_asked.emplace_back(language);
    return warm_works;
  }
  void hold_output(bool is_held) override { held = is_held; }
  machines::machine_usage usage() const override { return used; }
  void freeze_files(machines::checkpoint_number checkpoint) override {
    files_asked.push_back({machines::files_step::freeze, checkpoint});
  }
  void roll_back_files(machines::checkpoint_number checkpoint) override {
    files_asked.push_back({machines::files_step::roll_back, checkpoint});
  }
  void drop_files(machines::checkpoint_number checkpoint) override {
    files_asked.push_back({machines::files_step::drop, checkpoint});
  }
  void save_files(machines::checkpoint_number checkpoint, machines::checkpoint_number since,
                  std::shared_ptr<const owned_fd> to, std::uint64_t bytes_max) override {
    files_asked.push_back(
        {machines::files_step::save, checkpoint, since, std::move(to), bytes_max});
  }
  void destroy() override { destroyed = true; }

  /// The guest says hello.
  void hello() { listener->on_frame(guest::hello{}); }
  /// The machine is gone for good.
  void gone() { listener->on_gone(); }
  /// A step on its files ended; an empty error: well.
  void files(machines::files_step step, machines::checkpoint_number checkpoint,
             std::string error = {}) {
    listener->on_files({.step = step, .checkpoint = checkpoint, .error = std::move(error)});
  }
  /// Does the next thing that was asked for about the machine's states, as a guest and a machine
  /// that work do it; what `fails` names, fails. False: nothing was left to do.
  bool play_state() {
    while (played_frames < sent.size()) {
      const guest::to_guest& message = sent[played_frames++];
      if (const auto* freeze = std::get_if<guest::freeze>(&message)) {
        guest::frozen answer{.request = freeze->request, .contexts = {}, .error = fails["freeze"]};
        if (freeze->checkpoint != 0 && answer.error.empty())
          parked[freeze->checkpoint] = contexts;
        if (freeze->checkpoint != 0 && answer.error.empty())
          answer.contexts = contexts;
        listener->on_frame(answer);
        return true;
      }
      if (const auto* thaw = std::get_if<guest::thaw>(&message)) {
        if (thaw->checkpoint != 0)
          contexts = parked[thaw->checkpoint];
        listener->on_frame(
            guest::thawed{.request = thaw->request, .contexts = contexts, .error = fails["thaw"]});
        return true;
      }
      if (const auto* drop = std::get_if<guest::drop_checkpoint>(&message))
        parked.erase(drop->checkpoint);
    }
    while (played_files < files_asked.size()) {
      const files_request& asked = files_asked[played_files++];
      static constexpr const char* names[] = {"freeze files", "roll back files", "drop files",
                                              "save files"};
      files(asked.step, asked.checkpoint, fails[names[static_cast<int>(asked.step)]]);
      return true;
    }
    return false;
  }

  /// The last message of a type that was sent; null when there is none.
  template <class T>
  const T* last() const {
    for (auto place = sent.rbegin(); place != sent.rend(); ++place)
      if (const T* message = std::get_if<T>(&*place))
        return message;
    return nullptr;
  }

  machines::machine_spec spec;
  std::shared_ptr<machines::machine_listener> listener;
  std::vector<guest::to_guest> sent;
  std::vector<machines::machine_limits> limits;
  std::vector<std::string> warm_asked;
  std::vector<files_request> files_asked;
  std::map<std::string, std::string> fails;                 // by step, with the reason
  std::vector<std::string> contexts;                        // interpreters that live
  std::map<std::uint64_t, std::vector<std::string>> parked; // by checkpoint
  std::size_t played_frames = 0;
  std::size_t played_files = 0;
  machines::machine_usage used;
  bool warm_works = false;
  bool held = false;
  bool destroyed = false;
};

/// Where scripted machines come from; keeps every one it made.
class scripted_source : public machines::machine_source {
public:
  explicit scripted_source(std::string kind = "namespace")
    : kind_(std::move(kind)) {}
  std::string_view kind() const override { return kind_; }
  std::shared_ptr<machines::machine>
  start(const machines::machine_spec& spec,
        std::shared_ptr<machines::machine_listener> listener) override {
    made.push_back(std::make_shared<scripted_machine>(spec, std::move(listener)));
    return made.back();
  }
  std::chrono::milliseconds start_within() const override { return within; }
  std::vector<std::string> isolation() const override { return {"none: scripted by a test"}; }

  /// Machines that were not told to go.
  std::vector<std::shared_ptr<scripted_machine>> alive() const {
    std::vector<std::shared_ptr<scripted_machine>> all;
    for (const auto& machine : made)
      if (!machine->destroyed)
        all.push_back(machine);
    return all;
  }

  std::vector<std::shared_ptr<scripted_machine>> made;
  std::chrono::milliseconds within{};

private:
  const std::string kind_;
};

} // namespace berth::test
