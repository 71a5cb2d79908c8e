// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace berth::test {

/// Says that the rest of the running test case cannot be tried on this host, and why. The line is
/// counted by the test command's summary. Return from the test case right after it.
void skip(const std::string& reason);

} // namespace berth::test
