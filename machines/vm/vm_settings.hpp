// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"
#include "machines/vm/vm_shape.hpp"

#include <chrono>
#include <cstdint>
#include <string>

namespace berth::machines {

/// How virtual machines are made, whatever hypervisor makes them.
struct vm_settings {
  /// Where images of the server's own are; see image/image.hpp. Templates are kept there, too.
  std::string data_dir;
  /// Name of the image, with or without its version.
  std::string image = "full";
  /// Where the instance's directory is made.
  std::string runtime_dir;
  /// First host uid of the machines' processes; number n of those alive has uid_base + n. As root
  /// only.
  std::uint32_t uid_base = 300'000;
  /// Processes that may live at one time.
  std::uint32_t processes_max = 1'024;
  accelerator runs_by = accelerator::tcg;
  /// What the probe of KVM said.
  std::string probe;
  std::uint32_t vcpus = 1;
  /// Whether machines have a way out.
  bool network = false;
  /// Refuse to start without them.
  bool need_cgroups = false;
  bool need_landlock = false;
  /// What a machine gets when its spec says 0.
  machine_limits defaults{
      .memory_bytes = 512ULL << 20, .processes = 128, .disk_bytes = 256ULL << 20};
  /// How long a machine may take from its start to its guest's hello, and a template to its freeze.
  std::chrono::milliseconds hello_within{60'000};
  /// Bytes to a guest that may wait for it to read. One whole frame always fits.
  std::size_t send_queue_bytes = std::size_t{16} << 20;
};

} // namespace berth::machines
