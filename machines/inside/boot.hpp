// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <cstdint>
#include <string>
#include <string_view>

/// What process 1 of a virtual machine does before it can keep a machine: the kernel's modules, the
/// image's root, the file systems that the kernel makes.
namespace berth::machines::inside {

/// What the kernel's command line says to us, words that begin with `berth.`.
struct boot_options {
  /// Disk of the machine in MiB, which is memory of the virtual machine; 0: a quarter of that.
  std::uint64_t disk_mib = 0;
  /// Memory of the machine in MiB; 0: what the virtual machine can spare.
  std::uint64_t memory_mib = 0;
  /// Processes of the machine; 0: the default.
  std::uint64_t processes = 0;
  /// Where to listen on a vsock, which is then the channel; 0: the channel is a virtio-serial port.
  std::uint32_t vsock_port = 0;
  /// Where the host's way out is, a port of what it calls itself on our network; 0: there is none.
  std::uint16_t way_out = 0;
  /// The machine's first host name.
  std::string hostname = "berth";
};

boot_options parse_boot_options(std::string_view command_line);

/// Where Berth's run-time files are after the boot, and where it may make files.
inline constexpr const char* lib_dir = "/mnt";
inline constexpr const char* runtime_dir = "/run";

/// Makes the image's root the root of this process and mounts what belongs there. Returns why not,
/// or an empty text.
std::string boot(boot_options& options);

/// Frees the memory of the initial file system, when all has been taken out of it.
void drop_initial_files();

/// Ends the virtual machine, with a line on its console.
[[noreturn]] void end_machine(const std::string& why);

} // namespace berth::machines::inside
