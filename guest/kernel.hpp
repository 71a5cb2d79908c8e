// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/interpreters.hpp"
#include "guest/job.hpp"
#include "guest/kernel_link.hpp"
#include "guest/kernel_words.hpp"

#include <list>
#include <memory>

namespace berth::guest {

/// Where a live interpreter is.
enum class kernel_phase : std::uint8_t {
  /// It is not up yet.
  starting,
  idle,
  /// A cell runs in it.
  busy,
  /// It was told to rest, and has not said that it does.
  going_to_rest,
  resting,
  /// It was told to go on, and has not said that it does.
  waking,
  /// Its process is dead; what it started is being killed.
  ending,
};

/// A cell: its streams and what it showed.
struct cell {
  cell(event_loop& loop, channel& out, const run_cell& request);

  job streams;
  std::string code;
  bool stdin_open;
  cell_report report;
  std::size_t result_bytes = 0;
  std::uint64_t results_lost = 0;
  std::uint64_t results_lost_bytes = 0;
  bool over = false;

  /// Keeps a result, within bounds.
  void show(rich_result result, std::size_t size);
};

/// A live interpreter: its process, the cell in it, and the pipes that earlier cells' children
/// hold.
class kernel {
public:
  /// What one cell may show.
  static constexpr std::size_t results_max = 100;
  static constexpr std::size_t result_bytes_max = 3 * limits::mib;
  /// Pipes of earlier cells that are still read from; beyond that the oldest are closed.
  static constexpr std::size_t strays_max = 32;

  /// Who is told of what an interpreter says.
  struct events {
    std::function<void(kernel&, kernel_words::word&)> on_word;
    std::function<void(kernel&, const char* reason)> on_end;
  };

  kernel(event_loop& loop, channel& out, open_kernel request, const events& told);
  ~kernel();
  kernel(const kernel&) = delete;
  kernel& operator=(const kernel&) = delete;

  const std::string& context() const { return request_.context; }
  const std::string& language() const { return request_.language; }
  const open_kernel& request() const { return request_; }
  bool dead() const { return phase == kernel_phase::ending; }

  /// Gives it its cell; started at once when it is idle, else as soon as it is up.
  void take_cell(const run_cell& request);
  /// Starts the cell that waits. False when the interpreter does not take it.
  bool begin_cell();
  /// The cell said that it ended.
  void end_cell(const kernel_words::ended& said);
  /// The process died: so did the cell.
  void kill_cell(int wait_status, const rusage& usage);
  /// Sends the end of a cell that is over, once its output was. Returns whether it was sent.
  bool finish_cell();
  void on_room();

  /// Signals: to the process and what has its terminal group; to the process.
  void interrupt();
  void kill_process() const;

  kernel_phase phase = kernel_phase::starting;
  run_path path = run_path::cold;
  pid_t pid = -1;
  /// Cells it ran.
  std::uint32_t cells = 0;
  kernel_link link;
  std::unique_ptr<cell> current;
  /// How it ended; meaningful when it is dead.
  int wait_status = 0;
  /// Why the guest ended it; empty: it ended by itself.
  std::string reason;
  /// Whether it said that it is ready, ever.
  bool was_up = false;
  /// Whether what it had started is dead, too.
  bool is_swept = false;
  /// Whether nobody is to be told of its end: another goes on under its name.
  bool silent_end = false;
  /// Why it did not come to rest when it was told to.
  std::string no_rest;

private:
  void keep_strays();
  void drain_stray(std::list<owned_fd>::iterator it);
  void send_interrupt();

  event_loop& loop_;
  channel& channel_;
  open_kernel request_;
  /// Pipes for the next cell, made while nobody waits.
  output_streams next_streams_;
  /// Pipes of earlier cells.
  std::list<owned_fd> strays_;
  owned_fd repeat_timer_;
  std::uint32_t interrupted_ = 0;
  std::uint64_t late_bytes_ = 0;
};

} // namespace berth::guest
