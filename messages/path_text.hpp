// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

/// Paths as text. A path of Linux is bytes, a text member of a message is UTF-8. What is UTF-8
/// stays as it is; each byte that is not travels as one character, U+10FF00 plus the byte. Every
/// path has one such text, and every such text leads back to its path.
namespace berth {

/// The text of a path.
std::string path_to_text(std::string_view path);

/// The path of a text.
std::string text_to_path(std::string_view text);

} // namespace berth
