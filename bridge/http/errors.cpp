// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/errors.hpp"

namespace berth::http {

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
  return {{"status", "error"}, {"error", detail}, {"message", detail}, {"code", code}};
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
