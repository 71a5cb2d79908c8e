// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Who brings a Firecracker its memory, page by page as it is touched, by userfaultfd: a process of
/// its own for each machine, with the machine's identity and no privileges.
namespace berth::machines {

/// A part of a guest's memory as Firecracker has it mapped.
struct memory_region {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0; ///< in the file of memory
};

/// Reads what Firecracker says of its memory first. Nothing when it is not sound for a file of that
/// size.
std::optional<std::vector<memory_region>> read_regions(std::string_view text,
                                                       std::uint64_t memory_bytes);

/// Such a process, as its launcher holds it; ended with this object.
class fault_handler {
public:
  fault_handler() = default;
  fault_handler(fault_handler&&) noexcept = default;
  fault_handler& operator=(fault_handler&&) = delete;
  ~fault_handler();

  /// Listens at the path and forks. The caller must have one thread. On failure the result is
  /// empty and `why` says so.
  static fault_handler start(const std::string& socket_path, const std::string& memory_path,
                             uid_t owner, std::string& why);

  explicit operator bool() const { return static_cast<bool>(pidfd_); }
  /// Readable when it has ended.
  int fd() const { return pidfd_.get(); }

private:
  owned_fd pidfd_;
};

} // namespace berth::machines
