// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/client.hpp"
#include "app/commands.hpp"
#include "app/terminal.hpp"
#include "bridge/json.hpp"

#include <cstdio>

/// How most commands work: one question, its answer shown.
namespace berth {

/// A message as one line of JSON on standard output.
template <described T>
void print_json(const T& message) {
  std::printf("%s\n", json_text(to_json(message)).c_str());
  std::fflush(stdout);
}

/// Asks once; shows the answer as JSON, or by `show`.
template <class Reply, class Request, class Show>
int ask_and_show(const common_options& common, const Request& request, Show show,
                 std::chrono::milliseconds timeout = std::chrono::seconds{30}) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto answer = (*server)->template ask<Reply>(request, timeout);
  if (!answer)
    return terminal::report(answer.error());
  if (common.json)
    print_json(*answer);
  else
    show(*answer);
  return 0;
}

/// The colour of a state's name.
inline terminal::tint tint_of(std::string_view state) {
  if (state == "running" || state == "busy" || state == "healthy" || state == "idle"
      || state == "ready")
    return terminal::tint::green;
  return state == "lost" || state == "broken" ? terminal::tint::red : terminal::tint::yellow;
}

} // namespace berth
