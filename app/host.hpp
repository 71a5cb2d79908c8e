// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/serve.hpp"
#include "config/settings.hpp"

/// What `berth serve` does to the process and the host before it serves.
namespace berth {

/// The settings: defaults, the file, the command line, in this order; checked whole.
expected<settings> read_settings(const serve_options& options);

/// Makes the directories of the server. What is made as root belongs to the user that the server
/// becomes; the runtime directory stays root's, and sticky, for the spawner keeps its own in it.
error prepare_directories(const settings& values);

/// Gives up every privilege for good: user, groups, capabilities. The spawner, started before, is
/// the one process that keeps them. Does nothing for an ordinary user.
error drop_privileges(const settings& values);

/// In a rush of requests the server's threads take what waits in batches: one that is woken does
/// not push the one that woke it off its core. Otherwise each is woken at once, before what
/// machines do. For all threads there are.
void share_cores_in_batches(bool rush);

} // namespace berth
