// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace berth {

/// Version of Berth, as `berth version`, `health` and the HTTP Server header give it.
inline constexpr const char* version = "0.1.0";

} // namespace berth
