// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "models/dialect.hpp"
#include "models/failure.hpp"

using namespace berth;
using namespace berth::models;

namespace {

refusal refused(int status, const std::string& why, bool with_tools = false) {
  return to_refusal(failure_of({.endpoint = "http://host",
                                .end = attempt_end::refused,
                                .status = status,
                                .why = why,
                                .with_tools = with_tools}));
}

} // namespace

TEST_CASE("An error of a call names the endpoint, the status and what the endpoint says") {
  refusal why = to_refusal(failure_of({.endpoint = "http://host:1",
                                       .end = attempt_end::refused,
                                       .status = 503,
                                       .why = "loading",
                                       .attempts = 3}));
  CHECK(why.name == "machine_failed");
  CHECK(why.detail == "model endpoint http://host:1: HTTP 503: loading (3 attempts)");
}

TEST_CASE("A status becomes the error that means the same") {
  CHECK(refused(400, "bad").name == "malformed");
  CHECK(refused(401, "bad key").name == "unauthorized");
  CHECK(refused(403, "").name == "unauthorized");
  CHECK(refused(404, "model not found").name == "not_found");
  CHECK(refused(413, "").name == "too_large");
  CHECK(refused(302, "over there").detail.find("redirects are not followed") != std::string::npos);
  CHECK(refused(302, "").name == "rejected");
  CHECK(refused(500, "").name == "machine_failed");
  refusal busy = refused(429, "slow down");
  CHECK(busy.name == "no_capacity");
  CHECK(busy.retry_after_ms.has_value());
}

TEST_CASE("A model that knows no tools is told from one that was asked wrongly") {
  CHECK(refused(400, "registry.ollama.ai/library/x does not support tools", true).name
        == "unsupported");
  CHECK(refused(400, "\"auto\" tool choice requires --enable-auto-tool-choice", true).name
        == "unsupported");
  CHECK(refused(400, "does not support tools", false).name == "malformed");
  CHECK(refused(400, "messages must not be empty", true).name == "malformed");
}

TEST_CASE("A key is taken out of what an endpoint says") {
  CHECK(without("wrong key sk-1 (sk-1)", "sk-1") == "wrong key [key] ([key])");
  CHECK(without("nothing", "") == "nothing");
  CHECK(without("kk", "k") == "[key][key]");
}

TEST_CASE("What an endpoint says about a refusal is one line of bounded text") {
  CHECK(refusal_text(R"({"error": "model not found"})") == "model not found");
  CHECK(refusal_text(R"({"error": {"message": "bad\nthing", "type": "x"}})") == "bad thing");
  CHECK(refusal_text(R"({"detail": [{"loc": 1}]})") == R"([{"loc":1}])");
  CHECK(refusal_text("<html>Bad Gateway</html>") == "<html>Bad Gateway</html>");
  CHECK(refusal_text("").empty());
  std::string euros;
  for (int i = 0; i < 1'000; ++i)
    euros += "\xE2\x82\xAC";
  std::string cut = refusal_text(euros);
  CHECK(cut.size() <= limits::model_refusal_text_max);
  CHECK(is_utf8(cut));
  CHECK(is_utf8(refusal_text("\xFF\xFE broken")));
}
