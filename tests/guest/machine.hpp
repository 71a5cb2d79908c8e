// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <sys/types.h>

#include <deque>
#include <optional>
#include <string>

namespace berth::test {

/// Why the tests cannot make a machine here; empty when they can.
std::string no_machine_reason();

/// What became of a job.
struct job_result {
  std::optional<guest::job_started> started;
  std::optional<guest::job_ended> ended;
  std::optional<guest::job_refused> refused;
  std::string out;
  std::string err;
  std::string compiled;
  std::uint64_t input_taken = 0;

  int exit_code() const { return ended && ended->exit_code ? *ended->exit_code : -1; }
  int signal() const { return ended && ended->signal ? static_cast<int>(*ended->signal) : -1; }
};

/// What became of a cell.
struct cell_result {
  std::optional<guest::cell_ended> ended;
  std::optional<guest::job_refused> refused;
  std::string out;
  std::string err;

  int exit_code() const { return ended && ended->ended.exit_code ? *ended->ended.exit_code : -1; }
  int signal() const {
    return ended && ended->ended.signal ? static_cast<int>(*ended->ended.signal) : -1;
  }
  bool alive() const { return ended && ended->report.kernel_alive; }
  /// The text of the cell's value; empty when it had none.
  std::string value() const;
  std::string error() const {
    return ended && ended->report.error ? ended->report.error->name : std::string{};
  }
};

/// The real berth-guest as PID 1 of fresh pid, mount and network namespaces, as uid 1000, with the
/// host's /usr and empty /tmp and /work. Ends with the object.
class machine {
public:
  machine();
  ~machine();
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;

  template <described T>
  void send(const T& message) {
    send_bytes(guest::encode_frame(message));
  }
  void send_bytes(const bytes& data);

  /// The next frame; nothing when the guest is gone. Throws after a minute of silence.
  std::optional<guest::from_guest> next();
  /// The same, and throws when the guest is gone.
  guest::from_guest must_next();
  /// The next frame, which must be a T.
  template <class T>
  T expect();

  /// A job of this language, with the default limits.
  guest::start_job job(std::string language, std::string code);
  /// Starts a job and gathers all that is said about it until it ended or was refused.
  job_result run(const guest::start_job& start);
  job_result gather(std::uint32_t number);

  /// Opens a live interpreter and waits until it is ready; its error text, or empty.
  std::string open(const std::string& context, const std::string& language,
                   const std::string& cwd = "/mnt");
  /// A cell with the default limits.
  guest::run_cell cell(const std::string& context, std::string code);
  /// Runs a cell to its end.
  cell_result run(const guest::run_cell& request);
  cell_result run(const std::string& context, std::string code) {
    return run(cell(context, std::move(code)));
  }
  cell_result gather_cell(std::uint32_t number);
  /// Waits for output of a cell that holds this text; gives all that came until then.
  std::string output_until(std::uint32_t number, std::string_view text);
  /// What the interpreter of a context came to.
  guest::kernel_ended end_of(const std::string& context);

  /// Processes in the machine, the guest included.
  std::size_t processes() const;
  /// Stops the guest until a job that runs has died beside it; the guest goes on then.
  void sleep_through_a_job();
  /// Resident memory of the guest.
  std::size_t guest_memory_kib() const;
  /// Waits for the guest's end; its exit code, or -1 for a signal.
  int wait();
  int channel() const { return channel_; }

private:
  pid_t pid_ = -1;
  int channel_ = -1;
  std::uint32_t jobs_ = 0;
  guest::frame_cutter cutter_;
};

template <class T>
T machine::expect() {
  auto frame = must_next();
  if (!std::holds_alternative<T>(frame))
    throw std::runtime_error("another frame came: number " + std::to_string(frame.index())
                             + (std::holds_alternative<guest::output>(frame)
                                    ? " "
                                          + std::string(std::get<guest::output>(frame).data.begin(),
                                                        std::get<guest::output>(frame).data.end())
                                    : ""));
  return std::get<T>(std::move(frame));
}

} // namespace berth::test
