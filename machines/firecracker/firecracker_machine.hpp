// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/firecracker/firecracker_settings.hpp"
#include "machines/namespace/privileged_process.hpp"
#include "machines/vm/vm_source.hpp"

namespace berth::machines {

/// Virtual machines by Firecracker.
class firecracker_source : public vm_source {
public:
  /// Takes over a running launcher. The reactor must outlive the source and its machines.
  firecracker_source(const firecracker_settings& settings, const image& from,
                     spawner_handle launcher, reactor& loop);
};

/// What a kernel is told that Firecracker boots.
std::string firecracker_kernel_words(const vm_boot& boot);

} // namespace berth::machines
