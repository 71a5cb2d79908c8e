// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/http/facade.hpp"

namespace berth::http {

/// `GET /health`, which every contract has and clients look at first. One answer serves them all:
/// what fcctl-web's clients read, with the version and capabilities that the Terraphim server's
/// clients look for. On the Terraphim port its `status` is "ok", and who does not ask for JSON is
/// told `OK`.
void add_health_route(router& routes, const desk& gateway);

} // namespace berth::http
