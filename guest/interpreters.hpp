// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/event_loop.hpp"

#include <sys/types.h>

#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace berth::guest {

/// Processor time a process has used; 0 when it is gone.
std::uint64_t cpu_time_us(pid_t pid);

/// A warm interpreter that was taken for a job.
struct taken_interpreter {
  pid_t pid = -1;
  owned_fd control;
  /// Processor time it had used before, which is not the job's.
  std::uint64_t cpu_us = 0;

  /// Makes it the job. False when it is gone; nothing of the job runs then.
  bool run(int stdin_fd, int stdout_fd, int stderr_fd, int job_fd) const;
};

/// The warm interpreters in this machine: origins, which came from the templates outside, and
/// spares, which origins forked. The protocol is in machines/namespace/templates.
class interpreters {
public:
  using ready_handler = std::function<void(const std::string& language)>;
  using taker = std::function<void(std::optional<taken_interpreter>)>;

  interpreters(event_loop& loop, ready_handler on_origin_ready)
    : loop_(loop)
    , on_origin_ready_(std::move(on_origin_ready)) {}

  /// Listens on the socket through which origins arrive.
  void serve(owned_fd side_socket);

  /// Whether `take` would give one.
  bool available(std::string_view language) const;
  /// Gives one for a job, at once or as soon as one is forked; nothing when none is to be had.
  /// `last`: the origin itself may be taken, since nothing will come after.
  void take(std::string_view language, bool last, taker call);
  /// Has a spare made for each language that has none, from its origin.
  void refill(std::string_view language);

  /// Ends the one of a language that only waits to be forked, if there is one.
  void dismiss(std::string_view language);

  /// A process died: forgets it when it is one of these.
  void gone(pid_t pid);
  /// All of these that have said who they are.
  void append_pids(std::vector<pid_t>& to) const;

private:
  struct interpreter {
    std::string language;
    owned_fd control;
    pid_t pid = -1;
    bool origin = false;
    /// Who waits for this spare.
    taker waiting;
  };
  using iterator = std::list<interpreter>::iterator;

  void accept();
  void add(std::string language, owned_fd control, bool origin, taker waiting);
  void on_message(iterator it);
  void drop(iterator it);
  taken_interpreter release(iterator it);
  bool ask_for_spare(interpreter& origin, taker waiting);

  event_loop& loop_;
  ready_handler on_origin_ready_;
  owned_fd side_socket_;
  std::list<interpreter> all_;
};

} // namespace berth::guest
