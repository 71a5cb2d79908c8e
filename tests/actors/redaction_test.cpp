// SPDX-License-Identifier: Apache-2.0
#include "actors/redaction.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <string>

using namespace berth;

namespace {

std::string redacted(const std::string& text) {
  bytes data{text.begin(), text.end()};
  bool changed = redact(data);
  std::string result{data.begin(), data.end()};
  CHECK(changed == (result != text));
  return result;
}

} // namespace

TEST_CASE("Secrets are taken out of output") {
  struct row {
    const char* output;
    const char* secret;
  };
  auto next = GENERATE(values<row>(
      {{"API_KEY=secret123456", "secret123456"},
       {"PASSWORD=super_secret", "super_secret"},
       {"db_password: hunter22", "hunter22"},
       {R"({"password": "open sesame", "user": "ada"})", "open sesame"},
       {"GITHUB_TOKEN=abcdefgh, next", "abcdefgh"},
       {"token: a1b2c3d4e5", "a1b2c3d4e5"},
       {"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"},
       {"key AKIAIOSFODNN7EXAMPLE here", "AKIAIOSFODNN7EXAMPLE"},
       {"Authorization: Bearer abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"},
       {"Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"},
       {"ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz"},
       {"sk-abcdefghijklmnopqrstuvwx", "sk-abcdefghijklmnopqrstuvwx"},
       {"postgres://bob:hunter2@db/x", "hunter2"},
       {"-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nrest", "MIIabc"},
       {"-----BEGIN PRIVATE KEY-----\nMIIabc and no end", "MIIabc"}}));
  CAPTURE(next.output);
  std::string result = redacted(next.output);
  CHECK(result.find(next.secret) == std::string::npos);
  CHECK(result.find("[REDACTED]") != std::string::npos);
}

TEST_CASE("Ordinary output stays as it is") {
  auto output = GENERATE(values<std::string>(
      {"", "1\n", "token: 5", "Token: identifier", "tokens: 123456789", "secret: 424242",
       "PWD=/work\nOLDPWD=/tmp", "password == other_value", "mail me at ada@example.org",
       "password: string;", "password = getpass()", "http://host:8080/a@b", "PASSWORD=********",
       "PASSWORD=[REDACTED]", "the token was accepted", "Enter password:", "-----BEGIN CERTIFICATE",
       std::string("\xff\x00\xfe raw", 7)}));
  CAPTURE(output);
  CHECK(redacted(output) == output);
}

TEST_CASE("What stands around a secret stays") {
  CHECK(redacted("a\nAPI_KEY=secret123456\nb\n") == "a\nAPI_KEY=[REDACTED]\nb\n");
  CHECK(redacted("{password: abcdefgh}, x") == "{password: [REDACTED]}, x");
}

TEST_CASE("A mebibyte of anything is redacted without a hang") {
  auto unit = GENERATE(values<std::string>({"token=token=", "x", "password=\"", "-----BEGIN ",
                                            "pwd=/aaaaaaaaaa", "a://", "eyJaaaaaaaaa.", "sk-"}));
  std::string text;
  while (text.size() < (1U << 20))
    text += unit;
  auto begin = std::chrono::steady_clock::now();
  redacted(text);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds{30}); // a hang, not a race
}
