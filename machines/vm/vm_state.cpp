// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_state.hpp"

#include <sys/mman.h>

#include <fcntl.h>
#include <string>
#include <unistd.h>

namespace berth::machines {

owned_fd make_memory_file(const char* name, std::uint64_t bytes) {
  owned_fd made{::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (made && ::ftruncate(made.get(), static_cast<off_t>(bytes)) != 0)
    made.reset();
  return made;
}

owned_fd reopen(int fd, int flags) {
  std::string path = "/proc/self/fd/" + std::to_string(fd);
  return owned_fd{::open(path.c_str(), flags | O_CLOEXEC)};
}

bool seal(int fd) {
  return ::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0;
}

} // namespace berth::machines
