// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/network.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What may be reached. Plain: nothing here touches the network.
namespace berth::machines::egress {

/// Where a request wants to go: a name, or an address.
struct destination {
  std::string name;
  std::optional<ip_address> address;
  std::uint16_t port = 0;

  /// Host and port, as an HTTP message has them.
  std::string text() const;
  bool operator==(const destination&) const = default;
};

/// Reads `host:port`, `[v6]:port`; without a port only where there is a usual one.
std::optional<destination> parse_destination(std::string_view text, std::uint16_t usual_port = 0);

/// An address that a name leads to.
struct resolved {
  ip_address address;
  /// It is one of this host's own.
  bool own = false;
};

/// What the address is that is not of the public network: "loopback", "a private network"; null
/// when it is public.
const char* kind_of_reserved(const ip_address& address);

/// Whether the list has the place: a name by one of its names, an address by one of its addresses.
bool lists(const std::vector<network_rule>& rules, const destination& to);

/// Why a name that the list has may not lead to this address: only public ones follow from a name,
/// lest whoever owns the name says what of the host's own network is reached. Any other has to be
/// in the list itself, with its port. Empty: it may.
std::string why_not_to(const std::vector<network_rule>& rules, const resolved& found,
                       std::uint16_t port);

} // namespace berth::machines::egress
