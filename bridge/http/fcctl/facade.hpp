// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"
#include "config/settings.hpp"

namespace berth::http::fcctl {

/// The contract of fcctl-web: what clients of the Terraphim agent's VM execution send and expect.
class fcctl_facade : public facade {
public:
  /// The settings outlive the facade.
  explicit fcctl_facade(const settings& values);
  ~fcctl_facade() override;

  void add_routes(router& routes, const desk& gateway) override;

private:
  const settings& settings_;
};

} // namespace berth::http::fcctl
