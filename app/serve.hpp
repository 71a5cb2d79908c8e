// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

namespace berth {

/// What `berth serve` was told.
struct serve_options {
  /// Settings file; empty: defaults.
  std::string config;
  /// Settings given on the command line, by the name of the member and as JSON text or plain text;
  /// they win over the file.
  std::map<std::string, std::string> overrides;
  /// Says nothing on standard output once it serves.
  bool quiet = false;
};

/// Runs the server until a signal ends it. Returns the exit code of the process.
int serve(const serve_options& options);

} // namespace berth
