// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <map>
#include <string>

namespace berth::machines {

/// The initial file system of a virtual machine, a cpio archive that is the same for the same
/// files: Berth's process 1 as /init, the run-time files in /lib/berth, and the kernel's modules in
/// the order in which they are loaded.
class initrd {
public:
  void add_directory(const std::string& path);
  void add_file(const std::string& path, std::string content, bool executable);
  /// All plain files of a directory, by their names below `path`.
  error add_files_of(const std::string& directory, const std::string& path);

  /// The archive.
  std::string archive() const;

private:
  struct entry {
    unsigned mode = 0;
    std::string content;
  };
  std::map<std::string, entry> entries_;
};

} // namespace berth::machines
