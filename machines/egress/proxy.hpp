// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/egress/limits.hpp"
#include "machines/egress/policy.hpp"
#include "machines/egress/resolver.hpp"
#include "machines/reactor.hpp"
#include "machines/way_out.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace berth::machines::egress {

/// What went through.
struct proxy_counts {
  std::uint64_t connected = 0; ///< connections that were let out
  std::uint64_t refused = 0;   ///< that were not, by the list
  std::uint64_t failed = 0;    ///< that came to nothing otherwise
  std::uint64_t open = 0;      ///< that are there now, of any state
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_bytes = 0;
};

/// The one way out of machines with a network: a proxy of HTTP (CONNECT, and requests for http
/// URLs) that connects to what a list has, and to nothing else. It runs outside the machines, and
/// takes all that comes from them for hostile.
///
/// Names are compared, then looked up here, and what is connected to is the very address that was
/// checked; see policy.hpp for which a name may lead to. The reactor must outlive it, and all that
/// serve() returned.
class proxy final : public way_out {
public:
  /// `about` names the list where a refusal tells of it: vm_types.NAME.network.
  proxy(reactor& loop, std::vector<network_rule> rules, std::string about,
        std::shared_ptr<resolver> by = std::make_shared<resolver>(), const bounds& within = {});
  ~proxy() override;

  std::shared_ptr<void> serve(const std::string& machine, owned_fd listener) override;
  std::vector<std::string> facts() const override;
  proxy_counts counts() const;

private:
  class shared;
  class door;
  class connection;
  const std::shared_ptr<shared> shared_;
};

} // namespace berth::machines::egress
