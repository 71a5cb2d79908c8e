// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/channel.hpp"
#include "guest/languages/language.hpp"
#include "guest/launch.hpp"

#include <sys/resource.h>

#include <array>
#include <chrono>

namespace berth::guest {

/// Where a job is.
enum class job_phase : std::uint8_t {
  /// Waits for a warm interpreter.
  waiting,
  /// Its current stage's process runs.
  running,
  /// That process is dead; what it left is being killed.
  sweeping,
  /// All processes are dead; what is in the pipes goes out.
  draining,
};

/// What a program without input reads from and writes to.
struct output_streams {
  owned_fd no_input;
  pipe_pair out;
  pipe_pair err;

  explicit operator bool() const { return no_input && out.theirs && err.theirs; }
};
/// Makes them; false when there are none to be had (errno tells).
output_streams make_output_streams();

/// One job: its streams, its account, its outcome. Processes are the job_table's business.
class job {
public:
  /// So much input is kept for a program that does not read; a server must not send more than was
  /// taken plus this.
  static constexpr std::size_t input_bytes_max = limits::frame_bytes_max;

  job(event_loop& loop, channel& out, const start_job& start);
  ~job();
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  std::uint32_t number() const { return number_; }
  bool exclusive() const { return exclusive_; }
  bool wants_binary() const { return want_binary_; }

  // --- streams -----------------------------------------------------------------------------------

  /// Takes these pipes, and makes what is missing. False when there are none to be had (errno
  /// tells).
  bool open_streams(output_streams ready = {});
  /// Uses pipes that a waiting process has already.
  void adopt_streams(owned_fd in, owned_fd out, owned_fd err);
  /// The program's ends; -1 once dropped.
  int program_stdin() const { return theirs_[0].get(); }
  int program_stdout() const { return theirs_[1].get(); }
  int program_stderr() const { return theirs_[2].get(); }
  /// Closes them: the last process has its own copies.
  void drop_program_ends();
  /// From now on output is read.
  void watch_output();
  /// From now on input goes to the program; before anything else, `preface`.
  void open_input(std::string_view preface);
  /// Takes input. False when there is more than input_bytes_max of it.
  bool feed(const stdin_data& input);
  /// The channel has room again.
  void on_room();
  /// Reads what the dead wrote. Returns whether all of it was sent.
  bool drain();
  /// The pipes that somebody still holds the other ends of, after drain().
  std::vector<owned_fd> take_open_pipes();

  // --- account -----------------------------------------------------------------------------------

  void add_usage(const rusage& usage);
  /// The same for a process that lives on.
  void add_account(std::uint64_t cpu_us, std::uint64_t memory_peak_bytes);
  void set_status(int wait_status);
  /// Says something on the job's standard error, as if the program had.
  void complain(std::string_view text);
  /// The last words.
  job_ended outcome() const;

  // --- for the job_table -------------------------------------------------------------------------

  job_phase phase = job_phase::waiting;
  plan steps;
  std::size_t stage = 0;
  pid_t main = -1;
  bool announced = false;
  /// The server wants it ended: no stage follows.
  bool ending = false;
  /// Processor time of a warm interpreter before it became the job, of a live one before the cell.
  std::uint64_t cpu_before_us = 0;

private:
  struct source {
    std::uint32_t stream = 0;
    owned_fd pipe;
    std::uint64_t room = 0;
    std::uint64_t lost = 0;
    /// Bytes still to be read when all writers are dead.
    std::size_t last = 0;
  };
  enum class pump_result : std::uint8_t { ended, empty, held };

  pump_result pump(source& from, std::size_t bytes_max);
  void watch(source& from);
  void deliver(source& from, const char* data, std::size_t size);
  void write_input();
  void close_input();

  event_loop& loop_;
  channel& channel_;
  std::uint32_t number_;
  bool exclusive_;
  bool want_binary_;
  std::array<owned_fd, 3> theirs_;
  std::array<source, 2> sources_;
  bool reading_ = false;
  bool draining_ = false;

  owned_fd input_;
  bytes input_queue_;
  std::size_t preface_left_ = 0;
  bool input_ready_ = false;
  bool input_eof_;

  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::uint64_t wall_us_ = 0;
  std::uint64_t cpu_us_ = 0;
  std::uint64_t memory_peak_bytes_ = 0;
  int status_ = 0;
};

} // namespace berth::guest
