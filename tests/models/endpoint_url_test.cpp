// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "models/endpoint_url.hpp"

using namespace berth;
using namespace berth::models;

TEST_CASE("URLs that mean one endpoint are equal in their normal form") {
  for (const char* each :
       {"http://127.0.0.1:11434", "http://127.0.0.1:11434/", "HTTP://LocalHost:11434/v1",
        "http://localhost:11434/v1/", "http://localhost:11434/api", "http://localhost:11434///"}) {
    CAPTURE(each);
    CHECK(normal_url(each) == "http://127.0.0.1:11434");
  }
  CHECK(normal_url("https://API.openai.com:443/v1") == "https://api.openai.com");
  CHECK(normal_url("http://models.example:80") == "http://models.example");
  CHECK(normal_url("https://models.example/Path/v1/") == "https://models.example/Path");
  CHECK(normal_url("http://[::1]:11434/v1") == "http://[::1]:11434");
}

TEST_CASE("What is no plain URL of an endpoint has no normal form") {
  for (const char* each :
       {"", "http://", "http:///v1", "ftp://host", "file:///etc/passwd", "gopher://x", "host:80",
        "http://user:word@host", "http://host@other", "http://host/?x=1", "http://host/#x",
        "http://host:80:80", "http://host:port", "http://host:123456", "http://ho st",
        "http://host\\@other", "http://host\r\nX: y", "http://h\xC3\xB6st"}) {
    CAPTURE(each);
    CHECK(normal_url(each).empty());
  }
}

TEST_CASE("A URL that is called keeps its host, and loses the dialect's own path") {
  CHECK(plain_url("http://localhost:11434/v1/") == "http://localhost:11434");
  CHECK(plain_url("https://models.example/openai") == "https://models.example/openai");
}

TEST_CASE("Only configured endpoints are found, the first that fits") {
  std::vector<model_endpoint> all(3);
  all[0].base_url = "http://127.0.0.1:11434";
  all[1].base_url = "http://127.0.0.1:11434/";
  all[1].provider = "openai";
  all[2].base_url = "https://models.example/v1";
  all[2].provider = "openai";
  auto at = [&](const model_choice& choice) {
    const model_endpoint* found = find_endpoint(all, choice);
    return found == nullptr ? -1 : static_cast<int>(found - all.data());
  };
  CHECK(at({}) == 0);
  CHECK(at({.provider = "ollama"}) == 0);
  CHECK(at({.provider = "openai"}) == 1);
  CHECK(at({.base_url = "http://localhost:11434/v1"}) == 0);
  CHECK(at({.provider = "openai", .base_url = "http://localhost:11434"}) == 1);
  CHECK(at({.base_url = "https://MODELS.example"}) == 2);
  CHECK(at({.provider = "ollama", .base_url = "https://models.example"}) == -1);
  CHECK(at({.provider = "claude"}) == -1);
  for (const char* strange :
       {"http://169.254.169.254/latest", "http://127.0.0.1:11435", "https://127.0.0.1:11434",
        "http://127.0.0.1:11434/other", "http://127.0.0.1:11434@evil.example", "nonsense"}) {
    CAPTURE(strange);
    CHECK(at({.base_url = strange}) == -1);
  }
  CHECK(find_endpoint({}, {}) == nullptr);
}

TEST_CASE("The base of an openai endpoint is its path, and /v1 where it has none") {
  CHECK(openai_base("https://api.openai.com") == "https://api.openai.com/v1");
  CHECK(openai_base("https://api.openai.com/") == "https://api.openai.com/v1");
  CHECK(openai_base("https://api.openai.com/v1/") == "https://api.openai.com/v1");
  CHECK(openai_base("http://[::1]:8000") == "http://[::1]:8000/v1");
  CHECK(openai_base("https://models.example/v1beta/openai/")
        == "https://models.example/v1beta/openai");
}
