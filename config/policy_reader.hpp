// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/policy.hpp"
#include "config/reader.hpp"

namespace berth::config {

/// Which members of a policy were in the file, where that decides over other settings.
struct policy_given {
  bool execution_timeout_ms = false;
  bool vm_pool_size = false;
};

/// Reads a `vm_execution` value: an object, whose unknown members are ignored, or true or false for
/// all defaults, on or off.
policy_given read_policy(const json& from, const std::string& path, vm_execution_policy& to,
                         std::string& fault);

} // namespace berth::config
