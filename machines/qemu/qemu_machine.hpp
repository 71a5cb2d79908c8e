// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/spawner.hpp"
#include "machines/qemu/qemu_settings.hpp"
#include "machines/vm/vm_source.hpp"
#include "machines/way_out.hpp"

namespace berth::machines {

/// Virtual machines by QEMU.
class qemu_source : public vm_source {
public:
  /// Takes over a running launcher. The reactor must outlive the source and its machines. With a
  /// way out machines have a network device that leads there.
  qemu_source(const qemu_settings& settings, const image& from, spawner_handle launcher,
              reactor& loop, std::shared_ptr<way_out> out = nullptr);
};

} // namespace berth::machines
