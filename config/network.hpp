// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Which places of the network a machine type may reach: the words of `vm_types.NAME.network`.
namespace berth {

/// An address of IPv6; one of IPv4 as ::ffff:a.b.c.d, so that no other spelling is another address.
struct ip_address {
  std::array<std::uint8_t, 16> bytes{};

  bool is_v4() const;
  /// 192.0.2.1 or 2001:db8::1.
  std::string text() const;
  bool operator==(const ip_address&) const = default;
};

/// Reads 192.0.2.1 or 2001:db8::1, in full: no other form that a resolver would take.
std::optional<ip_address> parse_ip(std::string_view text);

/// A host's name in the one spelling that names are compared in: lower case, no dot at its end.
/// Nothing when it is none, or looks like an address in a form that is not its own.
std::optional<std::string> canonical_name(std::string_view text);

/// One place, or many: a name, all names below one, or a range of addresses, and a port.
struct network_rule {
  /// As it was written.
  std::string text;
  /// The name; of `*.name` and `*` what the name must end with.
  std::string name;
  bool below = false;
  /// Of a rule for addresses, and then it has no name.
  std::optional<ip_address> address;
  /// So many bits of the address count, of 128.
  unsigned bits = 128;
  std::uint16_t port = 0;

  bool operator==(const network_rule&) const = default;
};

/// Reads `packages.example:443`, `*.files.example:443`, `*:443`, `10.1.2.3:8080`,
/// `10.1.0.0/16:8080`,
/// `[fd00::/8]:443`. The error says what is wrong with it.
expected<network_rule> parse_network_rule(std::string_view text);

/// Whether a rule is for that name, or that address, at that port.
bool names_host(const network_rule& rule, std::string_view canonical, std::uint16_t port);
bool names_address(const network_rule& rule, const ip_address& address, std::uint16_t port);

/// Reads a number of a port, 1 to 65535.
std::optional<std::uint16_t> parse_port(std::string_view text);

} // namespace berth
