// SPDX-License-Identifier: Apache-2.0
#include "config/network.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <cstring>

namespace berth {

namespace {

/// RFC 1035.
constexpr std::size_t name_length_max = 253;
constexpr std::size_t label_length_max = 63;
constexpr std::size_t rule_length_max = 300;
constexpr std::array<std::uint8_t, 12> v4_prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr unsigned v4_bits = 96;

bool is_label_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool is_label(std::string_view label) {
  return !label.empty() && label.size() <= label_length_max && label.front() != '-'
         && label.back() != '-' && std::ranges::all_of(label, is_label_char);
}

error wrong(const std::string& why) {
  return fail(ec::malformed, why);
}

expected<network_rule> address_rule(network_rule rule, std::string_view host) {
  auto slash = host.find('/');
  rule.address = parse_ip(host.substr(0, slash));
  if (!rule.address)
    return wrong("must have an address, or a range such as 10.1.0.0/16, before its port");
  const unsigned before = rule.address->is_v4() ? v4_bits : 0;
  if (slash != std::string_view::npos) {
    std::string_view length = host.substr(slash + 1);
    unsigned bits = 0;
    auto [end, failed] = std::from_chars(length.data(), length.data() + length.size(), bits);
    if (failed != std::errc{} || end != length.data() + length.size() || bits + before > 128)
      return wrong("has a range whose length is not 0 to " + std::to_string(128 - before));
    rule.bits = bits + before;
  }
  // Bits beyond the range would be read as more than they say.
  for (unsigned bit = rule.bits; bit < 128; ++bit)
    if ((rule.address->bytes[bit / 8] >> (7 - bit % 8) & 1) != 0)
      return wrong("has a range whose address has bits beyond its length");
  return rule;
}

} // namespace

bool ip_address::is_v4() const {
  return std::equal(v4_prefix.begin(), v4_prefix.end(), bytes.begin());
}

std::string ip_address::text() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4())
    ::inet_ntop(AF_INET, bytes.data() + v4_prefix.size(), text, sizeof text);
  else
    ::inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
  return text;
}

std::optional<ip_address> parse_ip(std::string_view text) {
  if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos)
    return std::nullopt;
  const std::string whole{text};
  ip_address made;
  if (::inet_pton(AF_INET6, whole.c_str(), made.bytes.data()) == 1)
    return made;
  std::ranges::copy(v4_prefix, made.bytes.begin());
  if (::inet_pton(AF_INET, whole.c_str(), made.bytes.data() + v4_prefix.size()) == 1)
    return made;
  return std::nullopt;
}

std::optional<std::string> canonical_name(std::string_view text) {
  if (text.ends_with('.'))
    text.remove_suffix(1);
  if (text.empty() || text.size() > name_length_max)
    return std::nullopt;
  std::string name{text};
  for (char& c : name)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  std::string_view last;
  for (std::string_view rest = name;;) {
    auto dot = rest.find('.');
    last = rest.substr(0, dot);
    if (!is_label(last))
      return std::nullopt;
    if (dot == std::string_view::npos)
      break;
    rest.remove_prefix(dot + 1);
  }
  // 127.1, 2130706433 and 0x7f.1 are addresses to a resolver.
  if (last.front() >= '0' && last.front() <= '9')
    return std::nullopt;
  return name;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failed != std::errc{} || end != text.data() + text.size() || port == 0)
    return std::nullopt;
  return port;
}

expected<network_rule> parse_network_rule(std::string_view text) {
  if (text.size() > rule_length_max)
    return wrong("is longer than " + std::to_string(rule_length_max) + " bytes");
  auto colon = text.rfind(':');
  auto port = colon == std::string_view::npos ? std::nullopt : parse_port(text.substr(colon + 1));
  if (!port)
    return wrong("must end with a port, as in packages.example:443");
  network_rule rule{.text = std::string{text}, .name = {}, .address = {}, .port = *port};
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']'))
    return address_rule(std::move(rule), host.substr(1, host.size() - 2));
  if (host.find("://") != std::string_view::npos)
    return wrong("must be a host and a port, without a scheme");
  if (host.find(':') != std::string_view::npos)
    return wrong("must have an address of IPv6 in brackets");
  if (host.find('/') != std::string_view::npos || parse_ip(host))
    return address_rule(std::move(rule), host);
  rule.below = host == "*" || host.starts_with("*.");
  if (host == "*")
    return rule;
  auto name = canonical_name(rule.below ? host.substr(2) : host);
  if (!name)
    return wrong("must be a name, *.name or an address, and a port");
  rule.name = std::move(*name);
  return rule;
}

bool names_host(const network_rule& rule, std::string_view canonical, std::uint16_t port) {
  if (rule.address || rule.port != port)
    return false;
  if (!rule.below)
    return canonical == rule.name;
  return rule.name.empty()
         || (canonical.size() > rule.name.size() + 1 && canonical.ends_with(rule.name)
             && canonical[canonical.size() - rule.name.size() - 1] == '.');
}

bool names_address(const network_rule& rule, const ip_address& address, std::uint16_t port) {
  if (!rule.address || rule.port != port)
    return false;
  unsigned whole = rule.bits / 8;
  if (std::memcmp(rule.address->bytes.data(), address.bytes.data(), whole) != 0)
    return false;
  unsigned rest = rule.bits % 8;
  return rest == 0 || (rule.address->bytes[whole] ^ address.bytes[whole]) >> (8 - rest) == 0;
}

} // namespace berth
