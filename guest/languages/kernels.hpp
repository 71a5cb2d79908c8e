// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/guest.hpp"

#include <string>
#include <vector>

namespace berth::guest {

/// How a live interpreter is started. Its descriptor 0 is the control socket.
struct kernel_plan {
  std::string program;
  std::vector<std::string> argv;
  /// The whole environment, name=value.
  std::vector<std::string> env;
  /// The warm interpreter that can become it, with this job file; empty: none.
  std::string warm;
  /// Becomes descriptor 3 of a cold one.
  std::string job_file;
  /// For people, why there is none.
  std::string error;
};

/// Plans an interpreter of request.language that starts in request.cwd, which is absolute.
kernel_plan plan_kernel(const open_kernel& request);

} // namespace berth::guest
