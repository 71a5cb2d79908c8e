// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/interpreters.hpp"
#include "guest/kernel.hpp"

#include <list>
#include <string>
#include <utility>

namespace berth::guest {

/// All live interpreters of the machine, by the names of their contexts. An interpreter is removed
/// when its process was waited for and all that it had started is dead, and not before.
class kernel_table {
public:
  /// Interpreters that may live in one machine at once.
  static constexpr std::size_t kernels_max = 16;

  kernel_table(event_loop& loop, channel& out, interpreters& warm);

  void open(open_kernel request);
  void run(const run_cell& request);
  void interrupt(const std::string& context);
  void close(const std::string& context);

  /// Hands input to a cell; nothing when no cell has this number, false when the server sent more
  /// than it was given room for.
  std::optional<bool> feed(const stdin_data& input);
  /// Ends the interpreter whose cell has this number. False when there is none.
  bool end(std::uint32_t number);

  /// A process died and was waited for. Returns whether it was one of these.
  bool gone(pid_t pid, int status, const rusage& usage);
  /// All of these whose processes are known.
  void append_pids(std::vector<pid_t>& to) const;
  /// Whether one is dead and what it started has to be killed.
  bool sweeping() const;
  /// It was.
  void swept();
  void on_room();

  // --- for the checkpoints -----------------------------------------------------------------------

  std::list<kernel>& all() { return all_; }
  /// What keeps an interpreter from resting now; empty: nothing.
  std::string why_no_rest() const;
  /// One that wakes from a copy, and whose process is not known before it says so.
  kernel& add_woken(const open_kernel& request, std::uint32_t cells);
  /// Ends an interpreter, whatever it does; it is removed when it is dead.
  void give_up(kernel& each, const char* reason) { on_end(each, reason); }

private:
  kernel* find(const std::string& context);
  kernel* of_cell(std::uint32_t number);
  struct start_kit;
  void start(kernel& each);
  bool start_warm(kernel& each, const start_kit& kit);
  void start_cold(kernel& each, const start_kit& kit);
  void start_failed(kernel& each, std::string why);
  void on_word(kernel& each, kernel_words::word& word);
  void on_ready(kernel& each, pid_t pid);
  void become_idle(kernel& each);
  void on_end(kernel& each, const char* reason);
  void begin_cell(kernel& each);
  void finish(kernel& each);

  event_loop& loop_;
  channel& channel_;
  interpreters& interpreters_;
  kernel::events told_;
  std::list<kernel> all_;
  /// The context whose interpreter could not be started last, and why: its cell may be on its way.
  std::pair<std::string, std::string> failed_;
};

} // namespace berth::guest
