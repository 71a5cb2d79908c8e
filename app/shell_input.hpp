// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace berth {

/// Whether a cell that is being typed wants another line. A guess by the text alone: brackets and
/// quotes that are open, a block that was begun, a line that says it goes on. An empty line ends a
/// block of Python. Plain logic.
bool wants_more(std::string_view language, std::string_view text);

} // namespace berth
