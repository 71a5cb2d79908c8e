// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace berth {

/// The languages that a machine can run, by canonical name.
inline constexpr std::array<std::string_view, 5> languages{"python", "javascript", "bash", "rust",
                                                           "go"};

/// The canonical name of a language or one of its aliases (py, python3, js, node, nodejs, sh,
/// shell, rs, golang), whatever its case and the blanks around it; nothing when it is unknown.
std::optional<std::string> canonical_language(std::string_view text);

/// The language of a file by its ending, for example "python" for `x.py`; nothing when unknown.
std::optional<std::string> language_of_file(std::string_view path);

} // namespace berth
