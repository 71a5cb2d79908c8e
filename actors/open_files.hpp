// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fd.hpp"

#include <caf/allowed_unsafe_message_type.hpp>

#include <memory>
#include <vector>

namespace berth {

/// Open files on their way from one actor to another of this process. They close when nobody holds
/// them any more, wherever that is.
struct open_files {
  std::vector<std::shared_ptr<const owned_fd>> files;
};

} // namespace berth

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(berth::open_files)
