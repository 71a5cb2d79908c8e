// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/machine.hpp"

namespace berth::machines {

/// Machines that are not there: a "guest" in this process that runs nothing and answers every job
/// at once with its own code as output and exit code 0. No isolation whatever, because no code is
/// run. For measuring Berth's own path and for tests of what stands above machines. There is no
/// channel to wait for and so no reactor: listeners are called from within the machine's functions.
class instant_source : public machine_source {
public:
  std::string_view kind() const override { return "instant"; }
  std::shared_ptr<machine> start(const machine_spec& spec,
                                 std::shared_ptr<machine_listener> listener) override;
  std::vector<std::string> isolation() const override {
    return {"none: programs are not run, their text is their output"};
  }
};

} // namespace berth::machines
