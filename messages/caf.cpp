// SPDX-License-Identifier: Apache-2.0
#include "messages/caf.hpp"

#include <caf/atom.hpp>
#include <caf/deep_to_string.hpp>
#include <caf/message.hpp>
#include <caf/sec.hpp>

namespace berth {

namespace {

std::string detail_of(const error& why) {
  const caf::message& context = why.context();
  if (context.size() > 0 && context.match_element<std::string>(0))
    return context.get_as<std::string>(0);
  return {};
}

refusal make_refusal(ec code, std::string detail) {
  return {.code = static_cast<std::uint32_t>(code),
          .name = std::string{name_of(code)},
          .detail = std::move(detail),
          .retry_after_ms = {}};
}

} // namespace

refusal to_refusal(const error& why) {
  if (why.category() == caf::atom("berth")) {
    refusal answer = make_refusal(static_cast<ec>(why.code()), detail_of(why));
    const caf::message& context = why.context();
    if (context.size() > 1 && context.match_element<std::uint32_t>(1))
      answer.retry_after_ms = context.get_as<std::uint32_t>(1);
    return answer;
  }
  if (why == caf::sec::request_timeout)
    return make_refusal(ec::deadline, "the answer did not come in time");
  return make_refusal(ec::internal,
                      "a part of the server did not answer: " + caf::deep_to_string(why));
}

std::string describe_error(const error& why) {
  refusal told = to_refusal(why);
  return told.name + ": " + told.detail;
}

} // namespace berth
