// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

namespace berth::guest {

/// Sends data whole, with descriptors beside it if there are any, four at most. False when it does
/// not fit now or the other end is gone.
bool send_with_fds(int socket, std::span<const char> data, std::span<const int> fds);

} // namespace berth::guest
