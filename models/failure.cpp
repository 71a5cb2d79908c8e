// SPDX-License-Identifier: Apache-2.0
#include "models/failure.hpp"

#include <algorithm>
#include <array>

namespace berth::models {

namespace {

bool says(const std::string& text, std::string_view word) {
  auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + ('a' - 'A') : a) == b; };
  return !std::ranges::search(text, word, same).empty();
}

/// Whether a refusal means that the model, or its endpoint, knows no tools.
bool knows_no_tools(const failed_call& failed) {
  if (!failed.with_tools || !says(failed.why, "tool"))
    return false;
  constexpr std::array<std::string_view, 4> words{"support", "require", "enable", "not allowed"};
  return std::ranges::any_of(words, [&](std::string_view word) { return says(failed.why, word); });
}

ec code_of_status(const failed_call& failed) {
  int status = failed.status;
  if (status != 429 && status != 401 && status != 403 && knows_no_tools(failed))
    return ec::unsupported;
  if (status >= 500)
    return ec::machine_failed;
  switch (status) {
  case 401:
  case 403:
    return ec::unauthorized;
  case 404:
    return ec::not_found;
  case 413:
    return ec::too_large;
  case 429:
    return ec::no_capacity;
  default:
    return status >= 300 && status < 400 ? ec::rejected : ec::malformed;
  }
}

ec code_of(const failed_call& failed) {
  switch (failed.end) {
  case attempt_end::refused:
    return code_of_status(failed);
  case attempt_end::broken:
    return ec::malformed;
  case attempt_end::too_large:
    return ec::too_large;
  case attempt_end::silence:
  case attempt_end::deadline:
    return ec::deadline;
  case attempt_end::cancelled:
    return ec::conflict;
  default:
    return ec::machine_failed;
  }
}

std::string text_of(const failed_call& failed) {
  switch (failed.end) {
  case attempt_end::refused:
    if (failed.status >= 300 && failed.status < 400)
      return "redirects are not followed";
    return failed.why.empty() ? "no reason given" : failed.why;
  case attempt_end::too_large:
    return "the answer exceeds answer_bytes_max";
  case attempt_end::silence:
    return "nothing came for silence_timeout_ms";
  case attempt_end::deadline:
    return "the call took longer than it may";
  case attempt_end::cancelled:
    return "the call was cancelled";
  default:
    return failed.why;
  }
}

} // namespace

error failure_of(const failed_call& failed) {
  std::string detail = "model endpoint " + failed.endpoint + ": ";
  if (failed.status != 0 && failed.end != attempt_end::cancelled)
    detail += "HTTP " + std::to_string(failed.status) + ": ";
  detail += text_of(failed);
  if (failed.attempts > 1)
    detail += " (" + std::to_string(failed.attempts) + " attempts)";
  ec code = code_of(failed);
  if (code != ec::no_capacity)
    return fail(code, std::move(detail));
  auto wait = failed.retry_after.value_or(limits::model_retry_delay_max);
  return caf::make_error(code, std::move(detail), static_cast<std::uint32_t>(wait.count()));
}

bool refuses_temperature(const failed_call& failed) {
  bool is_refused = failed.end == attempt_end::refused;
  return is_refused && (failed.status == 400 || failed.status == 422)
         && says(failed.why, "temperature");
}

std::string without(std::string text, std::string_view secret) {
  if (secret.empty())
    return text;
  constexpr std::string_view stand_in = "[key]";
  for (auto at = text.find(secret); at != std::string::npos;
       at = text.find(secret, at + stand_in.size()))
    text.replace(at, secret.size(), stand_in);
  return text;
}

} // namespace berth::models
