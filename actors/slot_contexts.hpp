// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/types.hpp"

#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace berth {

/// How long a new interpreter waits for a warm one before it is started cold: the template may have
/// to be started first.
inline constexpr std::chrono::milliseconds kernel_warm_wait{3'000};
/// How long an interpreter may take to be up before it is given up.
inline constexpr std::chrono::milliseconds kernel_start_timeout{30'000};
/// How long an interrupted cell may take to end before its interpreter is killed.
inline constexpr std::chrono::milliseconds cell_grace{2'000};

/// The warm interpreter that can become a live one of a language; empty: there is none.
std::string_view kernel_template_of(std::string_view language);

/// The contexts of one machine: which live interpreters there are, which are being started, ended
/// or replaced, and who waits for that. Owned by a SLOT, on whose thread everything happens.
class slot_contexts {
public:
  enum class warmth : std::uint8_t { here, coming, none };
  /// What the slot does for its contexts.
  struct hooks {
    std::function<void(const guest::to_guest&)> send;
    /// Takes a warm interpreter of this name that is in the machine, or has one brought.
    std::function<warmth(std::string_view)> take_warm;
    /// Calls on_wake with this number later.
    std::function<void(std::chrono::milliseconds, std::uint32_t)> wake_later;
    /// The guest knows of this context from now on: its cell may be sent.
    std::function<void(const std::string&)> on_known;
    /// Whether the machine rests, or is about to: it takes no interpreter.
    std::function<bool()> at_rest;
  };

  explicit slot_contexts(hooks call)
    : call_(std::move(call)) {}

  // What clients ask. The promises are answered when it is done.
  void open(const open_context& request, caf::typed_response_promise<context_info> promise);
  context_list list() const;
  void restart(const restart_context& request, caf::typed_response_promise<context_info> promise);
  void close(const close_context& request, caf::typed_response_promise<context_closed> promise);
  expected<interrupt_sent> interrupt_cell(const interrupt& request);

  // Cells, one at a time for each context.
  /// Sees to it that a cell's context is there, or on its way. An error names the member at fault.
  error prepare(const run& request);
  /// Whether the guest knows of the context, so that a cell may be sent.
  bool is_known(const std::string& name) const;
  void cell_sent(const std::string& name);
  /// The cell ended, or was refused. Gives what is to be said of it beside its result.
  struct cell_notes {
    run_path path = run_path::cold;
    std::string lost;
  };
  cell_notes cell_ended(const std::string& name, const cell_report* report);

  // What the machine says.
  void on_warmed(const std::string& warm);
  void on_opened(const guest::kernel_opened& message);
  void on_kernel_ended(const guest::kernel_ended& message);
  void on_wake(std::uint32_t number);
  /// A state of the machine was saved under this number, with copies of these interpreters.
  void saved(std::uint64_t checkpoint);
  /// The machine does not rest any more.
  void on_awake();
  /// The machine went back to it, and these live. What came later was never there.
  void went_back(std::uint64_t checkpoint, const std::vector<std::string>& alive);
  void drop_saved(std::uint64_t checkpoint) { saved_.erase(checkpoint); }
  /// The machine is gone with all of them.
  void clear(const std::string& why);

private:
  struct context {
    context_info info;
    /// Tell this start's wake-ups from those of earlier ones.
    std::uint32_t start_number = 0;
    std::uint32_t warm_number = 0;
    bool waits_for_warm = false;
    /// Whether it is to be opened as soon as the machine does not rest.
    bool waits_for_rest = false;
    /// Whether open_kernel was sent and its interpreter has not ended since.
    bool known = false;
    /// Whether close_kernel was sent.
    bool ending = false;
    bool restarts = false;
    bool closes = false;
    run_path path = run_path::cold;
    /// Whether a cell ran in this interpreter; whether one was sent before it was up.
    bool is_used = false;
    bool cell_ahead = false;
    /// Why the variables of an earlier one are gone, until it was told.
    std::string lost;
    std::vector<caf::typed_response_promise<context_info>> opening;
    std::vector<caf::typed_response_promise<context_closed>> closing;
  };

  context* find(const std::string& name);
  error add(const std::string& name, const std::string& language, const std::string& cwd);
  void start(context& each);
  void send_open(context& each);
  void end(context& each);
  void forget(const std::string& name);

  hooks call_;
  std::map<std::string, context> all_;
  /// Contexts as they were when a state of the machine was saved.
  std::map<std::uint64_t, std::vector<context_info>> saved_;
  std::uint32_t numbers_ = 0;
};

} // namespace berth
