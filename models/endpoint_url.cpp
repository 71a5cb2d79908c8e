// SPDX-License-Identifier: Apache-2.0
#include "models/endpoint_url.hpp"

#include <algorithm>

namespace berth::models {

namespace {

std::string small_letters(std::string_view text) {
  std::string all{text};
  std::ranges::transform(all, all.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return all;
}

/// Removes what an endpoint's dialects add to its base.
std::string_view without_tail(std::string_view path) {
  auto strip = [&](std::string_view tail) {
    bool there = path.ends_with(tail);
    if (there)
      path.remove_suffix(tail.size());
    return there;
  };
  while (strip("/"))
    continue;
  if (strip("/v1") || strip("/api"))
    while (strip("/"))
      continue;
  return path;
}

bool is_port(std::string_view text) {
  return !text.empty() && text.size() <= 5
         && text.find_first_not_of("0123456789") == std::string_view::npos;
}

} // namespace

std::string normal_url(std::string_view base_url) {
  bool bad = std::ranges::any_of(
      base_url, [](unsigned char c) { return c <= ' ' || c >= 0x7F || c == '@' || c == '\\'; });
  std::size_t mark = base_url.find("://");
  if (bad || mark == std::string_view::npos
      || base_url.find_first_of("?#") != std::string_view::npos)
    return {};
  std::string scheme = small_letters(base_url.substr(0, mark));
  if (scheme != "http" && scheme != "https")
    return {};
  std::string_view rest = base_url.substr(mark + 3);
  std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string host = small_letters(rest.substr(0, slash));
  std::string port;
  // An IPv6 address has colons of its own, inside its brackets.
  std::size_t bracket = host.rfind(']');
  std::size_t colon = host.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) {
    port = host.substr(colon + 1);
    host.resize(colon);
    if (!is_port(port))
      return {};
  }
  if (host.empty())
    return {};
  if (host == "localhost")
    host = "127.0.0.1";
  std::string normal = scheme + "://" + host;
  if (!port.empty() && port != (scheme == "http" ? "80" : "443"))
    normal += ":" + port;
  normal += without_tail(rest.substr(slash));
  return normal;
}

std::string plain_url(std::string_view base_url) {
  return std::string{without_tail(base_url)};
}

std::string openai_base(std::string_view base_url) {
  while (base_url.ends_with('/'))
    base_url.remove_suffix(1);
  std::size_t host = base_url.find("://");
  host = host == std::string_view::npos ? 0 : host + 3;
  bool has_path = base_url.find('/', host) != std::string_view::npos;
  return std::string{base_url} + (has_path ? "" : "/v1");
}

const model_endpoint* find_endpoint(const std::vector<model_endpoint>& all,
                                    const model_choice& choice) {
  std::string wanted = normal_url(choice.base_url);
  if (!choice.base_url.empty() && wanted.empty())
    return nullptr;
  auto fits = [&](const model_endpoint& each) {
    return (choice.provider.empty() || each.provider == choice.provider)
           && (wanted.empty() || normal_url(each.base_url) == wanted);
  };
  auto found = std::ranges::find_if(all, fits);
  return found == all.end() ? nullptr : &*found;
}

} // namespace berth::models
