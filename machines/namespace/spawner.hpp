// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/namespace_settings.hpp"
#include "machines/namespace/privileged_process.hpp"

#include <string>

namespace berth::machines {

/// Forks the small privileged process that makes, warms and ends namespace machines.
///
/// To be called before the process has a second thread and before it drops privileges. Returns when
/// the spawner has swept what dead instances left, built its house and tried one machine; at most
/// half a minute. On failure, or when settings.require asks for more than this host has, the handle
/// is empty and `why` names the missing thing.
spawner_handle start_spawner(const namespace_settings& settings, std::string& why);

} // namespace berth::machines
