// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/vm/vm_shape.hpp"
#include "messages/fd.hpp"
#include "messages/guest.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace berth::machines {

/// A file in memory, nowhere else. Invalid when there is none to be had.
owned_fd make_memory_file(const char* name, std::uint64_t bytes);
/// Another descriptor of the same file, with a position and rights of its own.
owned_fd reopen(int fd, int flags);
/// Nobody writes it any more, nor changes its size. False while somebody has it mapped for writing.
bool seal(int fd);

/// What a hypervisor keeps of a state outside of its descriptors, as long as anybody has the state.
/// On the reactor's thread.
struct vm_keeping {
  std::shared_ptr<void> place;
};

/// Where a machine was when it was frozen. Never changes.
struct vm_state {
  /// Its processor's and its devices' state, as the hypervisor saves it.
  std::shared_ptr<const owned_fd> devices;
  /// The pages of its memory that differ from the template's; see vm_memory.hpp. None: it is the
  /// template's own state.
  std::shared_ptr<const owned_fd> pages;
  std::uint64_t pages_bytes = 0;
  /// All of its memory instead, by hypervisors that save it whole.
  std::shared_ptr<const owned_fd> whole;
  std::shared_ptr<vm_keeping> keeping = std::make_shared<vm_keeping>();
};

/// A machine that was booted once, with its interpreters up, and frozen: what machines begin from.
struct vm_template {
  vm_shape shape;
  std::string key;
  /// By which saved states name it; empty as long as it is in memory only.
  std::string id;
  /// What its memory holds, sealed.
  std::shared_ptr<const owned_fd> memory;
  vm_state state;
  guest::hello hello;
  /// Languages whose interpreters wait in it.
  std::vector<std::string> warm;
  /// Bytes of its memory that hold anything.
  std::uint64_t resident_bytes = 0;
  /// How long it took to boot to the guest's hello, and until it was frozen.
  std::uint64_t boot_us = 0;
  /// And to the first output of a Python program, if it has Python.
  std::uint64_t first_output_us = 0;
  std::uint64_t made_us = 0;
};

} // namespace berth::machines
