// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace berth::machines {

/// What an image is made of.
struct image_recipe {
  std::string name;
  /// The recipe that this one adds to, `minimal` or `full`; those have none.
  std::string base;
  /// Release of Debian.
  std::string suite;
  std::vector<std::string> packages;
  std::vector<std::string> languages;
  /// Files and directories of this host that go in, by their place in the machine: below /usr,
  /// where they are read-only, or below /home/agent or /work, where each machine gets a copy.
  std::map<std::string, std::string> files;
  /// A Bash program that each template of the image runs once before it is frozen.
  std::string start;
  std::uint64_t memory_mib = 0;

  bool operator==(const image_recipe&) const = default;
};

/// Reads a recipe; the error names the member at fault. `directory` is what relative paths of files
/// are relative to.
expected<image_recipe> parse_recipe(std::string_view text, const std::string& directory);

/// Reads a recipe from a file.
expected<image_recipe> load_recipe(const std::string& path);

/// A recipe with all that its base has.
image_recipe combine(const image_recipe& base, const image_recipe& recipe);

/// Where files for writable places wait in the image's root.
inline constexpr const char* waiting_files = "/usr/share/berth/files";

/// What a template runs at its start: copies waiting files to their places, then the recipe's own.
std::string start_program(const image_recipe& recipe);

} // namespace berth::machines
