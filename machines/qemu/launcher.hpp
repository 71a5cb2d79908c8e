// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/privileged_process.hpp"
#include "machines/qemu/qemu_settings.hpp"

#include <string>

namespace berth::machines {

/// Forks the launcher of QEMU processes; see vm/vm_launcher.hpp.
///
/// To be called before the process has a second thread and before it drops privileges. Returns when
/// the launcher has swept what dead instances left and built its house. On failure the handle is
/// empty and `why` names the missing thing. Closing its socket ends it, and with it every QEMU; it
/// is waited for as a spawner is.
spawner_handle start_launcher(const qemu_settings& settings, std::string& why);

} // namespace berth::machines
