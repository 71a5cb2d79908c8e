// SPDX-License-Identifier: Apache-2.0
#include "fuzz/targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// libFuzzer's door to the target that BERTH_FUZZ_TARGET names.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  berth::fuzz::BERTH_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
