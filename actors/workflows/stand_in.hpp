// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/roles.hpp"

#include <string>
#include <string_view>

/// Who steps in for a role that is not configured. Plain logic.
namespace berth {

struct found_role {
  std::string name;
  /// Whether it is the one that was wanted.
  bool itself = true;
};

/// The role of a name or shortname, in any case; else the one that is nearest to it: for names of
/// the contract by what they do, for others by the words in them, else `instead` in the same way,
/// else the default role. Where no role is known at all the name is taken at its word.
found_role find_or_stand_in(const role_list& roles, std::string_view wanted,
                            std::string_view instead = {});

} // namespace berth
