// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

namespace berth::guest {

/// Where a relative path begins when nothing else is said.
inline constexpr const char* default_directory = "/work";

/// Writes one chunk of a regular file. Other kinds (links, pipes, devices, what the kernel shows
/// under /proc) are refused, and never waited for.
file_put put(const put_file& request);

/// Reads one chunk of a regular file.
file_data get(const get_file& request);

} // namespace berth::guest
