// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"
#include "config/settings.hpp"

namespace berth::http::terraphim {

/// The contract of the Terraphim server: chat, roles and workflows, as its web applications and
/// scripts ask for them.
class terraphim_facade : public facade {
public:
  /// The settings outlive the facade.
  explicit terraphim_facade(const settings& values);
  ~terraphim_facade() override;

  void add_routes(router& routes, const desk& gateway) override;

private:
  const settings& settings_;
};

} // namespace berth::http::terraphim
