// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/app/support.hpp"

namespace berth::test {

/// A directory with a copy of another and what npm installs for it by its lock file; empty, with
/// the reason, where npm or its registry cannot be had.
class npm_home {
public:
  explicit npm_home(const std::string& from);

  /// Runs npm here. False, with a reason, when it did not work.
  bool install(std::vector<std::string> arguments);

  const std::string& reason() const { return reason_; }
  std::string file(const std::string& name) const { return home_.path() + "/" + name; }

private:
  server_home home_;
  std::string reason_;
};

} // namespace berth::test
