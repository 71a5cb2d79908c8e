// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"
#include "messages/history.hpp"
#include "messages/saved.hpp"

#include <string>
#include <vector>

/// Which snapshot a rollback means. Plain logic over a session's snapshots (oldest first) and its
/// entries of history (newest first).
namespace berth {

/// A snapshot by its id, else the newest of that name.
expected<std::string> find_snapshot(const std::vector<const saved_state*>& snapshots,
                                    const std::string& wanted);

/// The newest snapshot whose job exited with 0.
expected<std::string> find_last_success(const std::vector<const saved_state*>& snapshots);

/// The snapshot that holds the state before the first of the entries. The others are those before
/// it.
expected<std::string> find_before(const std::vector<const saved_state*>& snapshots,
                                  const std::vector<entry>& entries);

/// The snapshot that holds the state after the first of the entries.
expected<std::string> find_after(const std::vector<const saved_state*>& snapshots,
                                 const std::vector<entry>& entries);

} // namespace berth
