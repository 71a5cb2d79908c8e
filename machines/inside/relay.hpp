// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/pump.hpp"
#include "machines/reactor.hpp"
#include "machines/way_out.hpp"

#include <memory>
#include <set>
#include <string>

namespace berth::machines::inside {

/// Gives the virtual machine's one network device its address. There is no route but to what is
/// beside it. Returns why not, or an empty text.
std::string raise_network();

/// The machine's way out, from in here: each connection to its socket becomes one to the host's.
/// Programs have no other: the device is in this process's network namespace, not in theirs.
class relay final : public way_out, public std::enable_shared_from_this<relay> {
public:
  relay(reactor& loop, std::uint16_t port)
    : loop_(loop)
    , port_(port) {}

  std::shared_ptr<void> serve(const std::string& machine, owned_fd listener) override;
  /// Ends all connections: after a renewal the host knows nothing of them. On the reactor's thread.
  void renew();

private:
  struct link;

  void accept();
  void on_connected(const std::shared_ptr<link>& one);
  void end(const std::shared_ptr<link>& one);

  reactor& loop_;
  const std::uint16_t port_;
  owned_fd listener_;
  reactor::token watch_ = 0;
  std::set<std::shared_ptr<link>> links_;
};

} // namespace berth::machines::inside
