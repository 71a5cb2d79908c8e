// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/codec.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace berth::http {

/// One part of a multipart/form-data body.
struct form_part {
  std::string name;
  std::string filename;
  std::string data;
};

/// The parts of a body by the boundary that its content type names (RFC 7578).
decoded<std::vector<form_part>> read_form(std::string_view content_type, std::string_view body,
                                          std::size_t parts_max = 1024);

} // namespace berth::http
