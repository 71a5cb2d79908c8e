// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/reader.hpp"
#include "config/settings.hpp"
#include "messages/roles.hpp"

namespace berth::config {

/// What a role means, every default filled in from the settings. A role can only narrow what the
/// settings allow. `role` has passed check_shape(). A setting may stand in the role itself, in its
/// `extra`, or in the `extra` of that; the outermost wins.
role_info read_role(const std::string& name, const ordered& role, const settings& values);

} // namespace berth::config
