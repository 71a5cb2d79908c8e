// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <sys/types.h>

#include <cstdint>
#include <string>

/// The launcher's directory of states: pairs of files in a file system in memory that only the
/// launcher sees. What a machine writes comes in by its own directory there; what is kept has a
/// number, and never changes.
namespace berth::machines {

class kept_states {
public:
  /// Makes the directory; the caller must have a mount namespace of its own. Empty, or why not.
  std::string open(const std::string& path);
  /// Forgets them all. Files in use stay with their users.
  void close();
  const std::string& path() const { return path_; }

  /// Where the process of that number writes; its own user's.
  std::string make_inbox(std::uint64_t number, uid_t owner) const;
  std::string inbox(std::uint64_t number) const;
  void remove_inbox(std::uint64_t number) const;

  /// Takes the pair of files that it wrote. The writer is not trusted: what is not a plain file of
  /// its own of the right size is refused. 0 and `why`: there is none.
  std::uint64_t take(std::uint64_t from, uid_t owner, std::uint64_t memory_bytes, std::string& why);
  /// Makes an empty pair.
  std::uint64_t make(std::string& why);
  void drop(std::uint64_t state) const;
  bool has(std::uint64_t state) const;

  std::string memory(std::uint64_t state) const { return place(state) + "/memory"; }
  std::string devices(std::uint64_t state) const { return place(state) + "/devices"; }

private:
  std::string place(std::uint64_t state) const;
  std::string take_file(const std::string& path, uid_t owner, std::uint64_t least,
                        std::uint64_t most) const;

  std::string path_;
  std::uint64_t last_ = 0;
};

/// Gives back what of a file holds nothing but zeros. 0 or errno.
int dig_holes(int file);

} // namespace berth::machines
