// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/body.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace berth::http {

decoded<json> read_body(const request& what) {
  if (what.body.find_first_not_of(" \t\r\n") == std::string::npos)
    return json::object();
  auto body = parse_json(what.body);
  if (body && !body->is_object())
    return malformed{"", "the body must be a JSON object, is " + detail::kind_of(*body)};
  return body;
}

reply malformed_reply(const malformed& why) {
  bool large = why.field.empty() && why.reason.rfind("is larger than", 0) == 0;
  std::string text = why.field.empty() ? "body: " + why.reason : why.text();
  return error_reply(large ? ec::too_large : ec::malformed, text);
}

std::int64_t now_ms() {
  auto since = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
}

std::string to_rfc3339(std::int64_t unix_ms) {
  std::int64_t rest = ((unix_ms % 1000) + 1000) % 1000;
  auto seconds = static_cast<std::time_t>((unix_ms - rest) / 1000);
  std::tm parts{};
  if (gmtime_r(&seconds, &parts) == nullptr)
    return "1970-01-01T00:00:00.000Z";
  std::array<char, 96> text{};
  int size = std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                           parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                           parts.tm_min, parts.tm_sec, static_cast<int>(rest));
  return {text.data(), static_cast<std::size_t>(size)};
}

std::optional<std::int64_t> from_rfc3339(std::string_view text) {
  std::string held{text};
  std::tm parts{};
  int used = 0;
  if (std::sscanf(held.c_str(), "%4d-%2d-%2d%n", &parts.tm_year, &parts.tm_mon, &parts.tm_mday,
                  &used)
      != 3)
    return std::nullopt;
  std::string rest = held.substr(static_cast<std::size_t>(used));
  double seconds = 0;
  int offset_minutes = 0;
  if (!rest.empty()) {
    char mark = 0;
    if (std::sscanf(rest.c_str(), "%c%2d:%2d%n", &mark, &parts.tm_hour, &parts.tm_min, &used) != 3
        || (mark != 'T' && mark != 't' && mark != ' '))
      return std::nullopt;
    rest = rest.substr(static_cast<std::size_t>(used));
    if (!rest.empty() && rest.front() == ':') {
      if (std::sscanf(rest.c_str(), ":%lf%n", &seconds, &used) != 1)
        return std::nullopt;
      rest = rest.substr(static_cast<std::size_t>(used));
    }
    int hours = 0;
    int minutes = 0;
    if (rest == "Z" || rest == "z" || rest.empty())
      offset_minutes = 0;
    else if ((rest.front() == '+' || rest.front() == '-')
             && std::sscanf(rest.c_str() + 1, "%2d:%2d", &hours, &minutes) == 2)
      offset_minutes = (rest.front() == '-' ? -1 : 1) * (hours * 60 + minutes);
    else
      return std::nullopt;
  }
  bool sane = parts.tm_mon >= 1 && parts.tm_mon <= 12 && parts.tm_mday >= 1 && parts.tm_mday <= 31
              && parts.tm_hour >= 0 && parts.tm_hour < 24 && parts.tm_min >= 0 && parts.tm_min < 60
              && seconds >= 0 && seconds < 61;
  if (!sane)
    return std::nullopt;
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  std::int64_t whole = static_cast<std::int64_t>(timegm(&parts)) - offset_minutes * 60;
  return whole * 1000 + static_cast<std::int64_t>(seconds * 1000);
}

decoded<std::string> read_text_member(const json& body, const char* name) {
  auto member = body.find(name);
  if (member == body.end() || member->is_null())
    return std::string{};
  if (!member->is_string())
    return malformed{name, "must be text, is " + detail::kind_of(*member)};
  return member->get<std::string>();
}

void put_twice(json& to, const std::string& name, const json& value) {
  std::string camel;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] != '_' || i + 1 == name.size()) {
      camel += name[i];
      continue;
    }
    ++i;
    camel += static_cast<char>(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);
  }
  to[name] = value;
  to[camel] = value;
}

json or_null(const std::string& text) {
  return text.empty() ? json(nullptr) : json(text);
}

} // namespace berth::http
