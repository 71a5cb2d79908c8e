// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/errors.hpp"

namespace berth::http {

namespace {

/// The Terraphim server's word for what kind of error it is.
std::string_view category_of(ec code) {
  switch (code) {
  case ec::unauthorized:
    return "auth";
  case ec::deadline:
    return "network";
  case ec::store_failed:
    return "storage";
  case ec::no_capacity:
  case ec::machine_failed:
  case ec::isolation_unavailable:
  case ec::shutting_down:
  case ec::internal:
    return "system";
  default:
    return "validation";
  }
}

/// Whether the same request may do better later.
bool is_passing(ec code) {
  return code == ec::no_capacity || code == ec::shutting_down || code == ec::deadline
         || code == ec::machine_failed || code == ec::conflict;
}

} // namespace

int status_of(ec code) {
  switch (code) {
  case ec::malformed:
  case ec::unsupported:
  case ec::rejected:
    return 400;
  case ec::unauthorized:
    return 401;
  case ec::not_found:
    return 404;
  case ec::already_exists:
  case ec::conflict:
    return 409;
  case ec::too_large:
    return 413;
  case ec::no_capacity:
    return 429;
  case ec::deadline:
    return 504;
  case ec::machine_failed:
  case ec::shutting_down:
  case ec::isolation_unavailable:
    return 503;
  case ec::none:
  case ec::store_failed:
  case ec::internal:
    break;
  }
  return 500;
}

json error_body(std::string_view code, const std::string& detail) {
  auto known = from_name<ec>(code);
  return {{"status", "error"},
          {"error", detail},
          {"message", detail},
          {"code", code},
          {"category", category_of(known.value_or(ec::malformed))},
          {"recoverable", known && is_passing(*known)}};
}

reply json_reply(const json& body, int status) {
  return {.status = status, .body = json_text(body)};
}

reply error_reply(int status, std::string_view code, const std::string& detail) {
  return json_reply(error_body(code, detail), status);
}

reply error_reply(ec code, const std::string& detail) {
  return error_reply(status_of(code), name_of(code), detail);
}

reply error_reply(const error& why) {
  refusal told = to_refusal(why);
  auto code = static_cast<ec>(told.code);
  json body = error_body(told.name, told.detail);
  if (told.retry_after_ms)
    body["retry_after_ms"] = *told.retry_after_ms;
  reply answer = json_reply(body, status_of(code));
  bool later = answer.status == 429 || answer.status == 503;
  if (later) {
    std::uint32_t seconds = told.retry_after_ms ? (*told.retry_after_ms + 999) / 1000 : 1;
    answer.headers.emplace_back("Retry-After", std::to_string(std::max(seconds, 1U)));
  }
  return answer;
}

} // namespace berth::http
