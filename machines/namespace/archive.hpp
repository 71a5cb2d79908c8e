// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/namespace/layer_walk.hpp"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

/// What changed in a machine's files, as bytes: docs/files-archive.md describes the format.
namespace berth::machines::archive {

inline constexpr std::string_view magic = "BERTHFIL";
inline constexpr std::uint32_t version = 1;
/// Kinds of records.
enum class record : std::uint8_t {
  directory = 'd',
  leave = 'e',
  file = 'f',
  hard_link = 'h',
  symbolic_link = 'l',
  pipe = 'p',
  whiteout = 'w',
  attribute = 'x',
  end = 'z'
};
inline constexpr std::size_t name_bytes_max = 255;
inline constexpr std::size_t target_bytes_max = 4'095;
inline constexpr std::size_t value_bytes_max = 65'536;
inline constexpr std::size_t depth_max = 1'002;
/// Records of one archive; a disk holds fewer files.
inline constexpr std::uint64_t records_max = 64'000'000;

/// Whose a file is, whatever uid the machine has on its host.
enum class owner : std::uint8_t { root, agent };

struct attributes {
  std::uint16_t mode = 0; ///< permission bits, 07777
  owner whose = owner::root;
  std::int64_t mtime_s = 0;
  std::uint32_t mtime_ns = 0;

  bool operator==(const attributes&) const = default;
};

/// Told what an archive holds, in its order; names are single, neither "." nor "..", without '/'.
/// Each returns 0, or errno to stop.
class sink {
public:
  virtual ~sink() = default;
  /// A directory begins, the root with an empty name; what follows is in it until it ends.
  virtual int enter(std::string_view name, const attributes& what, bool opaque) = 0;
  virtual int leave(const attributes& what) = 0;
  /// A file of that size, all holes; then its data, in ascending order; then its end.
  virtual int file(std::string_view name, const attributes& what, std::uint64_t size) = 0;
  virtual int data(std::uint64_t offset, std::span<const char> bytes) = 0;
  virtual int file_end(const attributes& what) = 0;
  /// Another name for a file before it, whose path from the root is `target`.
  virtual int hard_link(std::string_view name, std::string_view target) = 0;
  virtual int symbolic_link(std::string_view name, const attributes& what,
                            std::string_view target) = 0;
  virtual int pipe(std::string_view name, const attributes& what) = 0;
  virtual int whiteout(std::string_view name) = 0;
  /// A program's own attribute of the directory that just began, or of the file that just ended.
  virtual int attribute(std::string_view name, std::span<const char> value) = 0;
};

/// Fills the buffer as far as it can: bytes read, 0 at the end, -1 with errno.
using source = std::function<ssize_t(std::span<char>)>;

/// Reads an archive to its end. Empty when it was whole and the sink took all, else what was wrong
/// and where. Takes no more memory than one record needs.
std::string read(const source& from, sink& to);

/// What one archive came to.
struct written {
  std::uint64_t bytes = 0;
  std::uint64_t skipped = 0;
  /// errno; EFBIG: more than was allowed, ELOOP: nested too deep.
  int error = 0;
};

/// Writes what the layers hold. Files that are not root's are the agent's; where an ordinary user
/// runs the server and both have one uid, all are.
written write(const walked_layers& layers, int to, std::uint64_t bytes_max);

} // namespace berth::machines::archive
