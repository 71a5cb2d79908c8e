// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace berth::guest {

/// What a Go source says before its first declaration.
struct go_header {
  std::string package;
  std::vector<std::string> imports;
};

/// Reads package clause and imports; nothing when they are not well-formed, in which case the
/// compiler has something to say.
std::optional<go_header> read_go_header(std::string_view source);

} // namespace berth::guest
