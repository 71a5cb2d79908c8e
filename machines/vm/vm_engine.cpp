// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/vm_engine.hpp"

#include <sys/stat.h>

#include <fstream>

namespace berth::machines {

std::string marks_of(const std::string& program) {
  struct stat info {};
  if (::stat(program.c_str(), &info) != 0)
    return {};
  return std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec);
}

std::string processor_model() {
  std::ifstream in{"/proc/cpuinfo"};
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name"))
      return line;
  return {};
}

} // namespace berth::machines
