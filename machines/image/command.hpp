// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <string>
#include <vector>

namespace berth::machines {

/// A tool of the host to run, without a shell.
struct command {
  std::vector<std::string> words;
  /// Where it runs; empty: here.
  std::string directory;
  /// Its standard input is this file; empty: nothing.
  std::string input;
  /// Its standard output goes to this file; empty: it is returned.
  std::string output;
};

/// Runs a tool to its end. Returns what it wrote to its standard output; when it fails, the error
/// has its name and the last lines of what it said.
expected<std::string> run_command(const command& what);

/// Whether a tool is on the host's PATH, the sbin directories included.
bool has_command(const std::string& name);

} // namespace berth::machines
