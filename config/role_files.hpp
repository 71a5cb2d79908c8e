// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/reader.hpp"
#include "messages/caf.hpp"

#include <string>

namespace berth::config {

/// Reads the roles of a directory: `<dir>/*.json`, a role each, and beside it `<dir>.json` with the
/// configuration's other members and `order`, the roles' names in their order. Without that file
/// the order is that of the files, and the first role is the default. Returns the whole
/// configuration, checked; an error names the file, and line and column or the member at fault.
expected<ordered> read_role_files(const std::string& dir);

/// Reads a JSON text of roles within the bounds of the server. The error names `name`, and line and
/// column.
expected<ordered> parse_roles(std::string_view text, const std::string& name);

/// Checks a whole configuration: shapes, names, that default_role and selected_role exist. The
/// error names `name` and the member at fault.
error check_roles(const ordered& config, const std::string& name);

/// Text with the letters A to Z in lower case: how names of roles are compared.
std::string lower_case(std::string_view text);

} // namespace berth::config
