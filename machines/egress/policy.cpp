// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/policy.hpp"

#include <algorithm>

namespace berth::machines::egress {

namespace {

struct reserved_range {
  const char* address;
  unsigned bits;
  const char* what;
};

/// Of IANA's registries of special-purpose addresses, those that are not of the public network.
constexpr reserved_range reserved_v4[] = {
    {"127.0.0.0", 8, "loopback"},
    {"0.0.0.0", 8, "this host"},
    {"169.254.0.0", 16, "link-local"},
    {"10.0.0.0", 8, "a private network"},
    {"172.16.0.0", 12, "a private network"},
    {"192.168.0.0", 16, "a private network"},
    {"100.64.0.0", 10, "a carrier's own network"},
    {"192.0.0.0", 24, "reserved"},
    {"192.0.2.0", 24, "reserved"},
    {"192.88.99.0", 24, "reserved"},
    {"198.18.0.0", 15, "reserved"},
    {"198.51.100.0", 24, "reserved"},
    {"203.0.113.0", 24, "reserved"},
    {"224.0.0.0", 4, "multicast"},
    {"240.0.0.0", 4, "reserved"},
};

/// Only 2000::/3 is public, and of that not these.
constexpr reserved_range reserved_v6[] = {
    {"::1", 128, "loopback"},   {"fe80::", 10, "link-local"}, {"fc00::", 7, "a private network"},
    {"ff00::", 8, "multicast"}, {"2001::", 23, "reserved"},   {"2001:db8::", 32, "reserved"},
    {"2002::", 16, "a tunnel"}, {"3fff::", 20, "reserved"},
};
constexpr reserved_range public_v6{"2000::", 3, ""};
/// An address of IPv4 is in its last bytes.
constexpr reserved_range translated_v6{"64:ff9b::", 96, ""};

bool is_in(const ip_address& address, const reserved_range& range, unsigned before) {
  const network_rule rule{.text = {},
                          .name = {},
                          .address = parse_ip(range.address),
                          .bits = range.bits + before,
                          .port = 1};
  return names_address(rule, address, 1);
}

} // namespace

std::string destination::text() const {
  std::string host = name;
  if (address)
    host = address->is_v4() ? address->text() : "[" + address->text() + "]";
  return host + ":" + std::to_string(port);
}

std::optional<destination> parse_destination(std::string_view text, std::uint16_t usual_port) {
  destination to{.name = {}, .address = {}, .port = usual_port};
  std::string_view host = text;
  std::size_t end = text.starts_with('[') ? text.find(']') : 0;
  if (end == std::string_view::npos)
    return std::nullopt;
  if (auto colon = text.find(':', end); colon != std::string_view::npos) {
    auto port = parse_port(text.substr(colon + 1));
    if (!port)
      return std::nullopt;
    to.port = *port;
    host = text.substr(0, colon);
  }
  if (to.port == 0)
    return std::nullopt;
  if (end != 0) {
    if (host.size() != end + 1)
      return std::nullopt;
    to.address = parse_ip(host.substr(1, end - 1));
    return to.address ? std::optional{to} : std::nullopt;
  }
  to.address = parse_ip(host);
  if (to.address)
    return to;
  auto name = canonical_name(host);
  if (!name)
    return std::nullopt;
  to.name = std::move(*name);
  return to;
}

const char* kind_of_reserved(const ip_address& address) {
  constexpr unsigned v4 = 96;
  if (address.is_v4()) {
    for (const auto& range : reserved_v4)
      if (is_in(address, range, v4))
        return range.what;
    return nullptr;
  }
  if (is_in(address, translated_v6, 0)) {
    ip_address inner = *parse_ip("0.0.0.0");
    std::copy_n(address.bytes.begin() + 12, 4, inner.bytes.begin() + 12);
    return kind_of_reserved(inner);
  }
  for (const auto& range : reserved_v6)
    if (is_in(address, range, 0))
      return range.what;
  return is_in(address, public_v6, 0) ? nullptr : "reserved";
}

bool lists(const std::vector<network_rule>& rules, const destination& to) {
  return std::ranges::any_of(rules, [&](const network_rule& rule) {
    return to.address ? names_address(rule, *to.address, to.port)
                      : names_host(rule, to.name, to.port);
  });
}

std::string why_not_to(const std::vector<network_rule>& rules, const resolved& found,
                       std::uint16_t port) {
  const char* what = found.own ? "this host" : kind_of_reserved(found.address);
  if (what == nullptr || std::ranges::any_of(rules, [&](const network_rule& rule) {
        return names_address(rule, found.address, port);
      }))
    return {};
  return found.address.text() + " is " + what
         + ", which a name may lead to only where the list has the address too";
}

} // namespace berth::machines::egress
