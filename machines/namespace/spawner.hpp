// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/namespace_settings.hpp"
#include "messages/fd.hpp"

#include <sys/types.h>

#include <string>
#include <vector>

namespace berth::machines {

/// A running spawner, as its server holds it. Closing the socket ends the spawner and with it every
/// machine; waiting for the pid then ends within some seconds.
struct spawner_handle {
  owned_fd socket;
  pid_t pid = -1;
  /// What holds the machines, a line each; `spawner.cpp` probes and writes it.
  std::vector<std::string> isolation;
  /// Id of the instance: part of the names of its cgroups and of its directory.
  std::string instance;

  explicit operator bool() const { return static_cast<bool>(socket); }
};

/// Forks the small privileged process that makes, warms and ends namespace machines.
///
/// To be called before the process has a second thread and before it drops privileges. Returns when
/// the spawner has swept what dead instances left, built its house and tried one machine; at most
/// half a minute. On failure, or when settings.require asks for more than this host has, the handle
/// is empty and `why` names the missing thing.
spawner_handle start_spawner(const namespace_settings& settings, std::string& why);

/// Waits for the first packet of a process that was forked: a report of that size, which begins
/// with its kind (report_kind::ready, or it is refused), and lines of text. For those who fork one.
spawner_handle hear_first_packet(owned_fd ours, pid_t pid, std::size_t report_bytes,
                                 std::string& why);

/// Waits for a spawner whose socket was closed; kills it when it takes longer than the limit.
/// Returns whether it ended by itself.
bool wait_for_spawner(pid_t pid, std::chrono::milliseconds limit);

} // namespace berth::machines
